"""The one place where a server's tuning is written; both servers' native configs are rendered from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from models.precision import Precision
from models.problem import Problem

if TYPE_CHECKING:
    from models.bundle import Bundle

DEVICES = ("cpu", "gpu")
GPU_MEMORY_FRACTION = 0.4  # two servers fit, with their contexts
OneDnn = bool | Literal["default"]


@dataclass(frozen=True)
class ServingProfile:
    """Tuning shared by both servers.

    max_batch_size    images in one dynamic batch at most
    batch_timeout_ms  longest wait, in milliseconds, for a batch to fill
    instances         batches computed at the same time (TorchServe workers, TF Serving batch threads)
    threads           threads of one computation (intra-op)
    queue_capacity    requests that may wait before the server refuses more
    device            "cpu" or "gpu"
    onednn            whether the CPU's kernels are oneDNN's; "default": as the framework itself decides
    precision         what both sides compute in; "fp32" is strict, also on a GPU
    gpu_memory_fraction  the most of a GPU's memory that one server may take beside its CUDA contexts: several fit

    Raises `Problem` for a value that no server could honour.
    """

    max_batch_size: int = 32
    batch_timeout_ms: float = 1.0
    instances: int = 1
    threads: int = 1
    queue_capacity: int = 1024
    device: str = "cpu"
    onednn: OneDnn = "default"
    precision: Precision = Precision.FP32
    gpu_memory_fraction: float = GPU_MEMORY_FRACTION

    def __post_init__(self) -> None:
        for key in ("max_batch_size", "instances", "threads", "queue_capacity"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise Problem(f"profile.{key} = {value!r}: use a whole number of 1 or more")
        timeout = self.batch_timeout_ms
        if not isinstance(timeout, (int, float)) or isinstance(timeout, bool) or not 0 <= timeout <= 10_000:
            raise Problem(f"profile.batch_timeout_ms = {timeout!r}: use milliseconds from 0 to 10000")
        if self.queue_capacity < self.max_batch_size:
            raise Problem(
                f"profile.queue_capacity = {self.queue_capacity}: use at least max_batch_size ({self.max_batch_size})"
            )
        if self.device not in DEVICES:
            raise Problem(f"profile.device = {self.device!r}: use one of {', '.join(DEVICES)}")
        share = self.gpu_memory_fraction
        if not isinstance(share, (int, float)) or isinstance(share, bool) or not 0 < share <= 1:
            raise Problem(f"profile.gpu_memory_fraction = {share!r}: use a share above 0, up to 1")
        if not isinstance(self.onednn, bool) and self.onednn != "default":
            raise Problem(f"profile.onednn = {self.onednn!r}: use true, false or 'default'")
        if not isinstance(self.precision, Precision):
            raise Problem(f"profile.precision = {self.precision!r}: use one of {', '.join(Precision)}")
        if self.precision is Precision.TF32 and self.device != "gpu":
            raise Problem(
                f"profile.precision = 'tf32': a way in which GPUs multiply, and profile.device = {self.device!r}; "
                "use fp32, bf16 or fp16"
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ServingProfile:
        """Build a profile from keys and values; an unknown key raises `Problem`."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise Problem(f"profile.{key}: unknown key; use one of {', '.join(known)}")
        return cls(**{**values, **({"precision": precision(values["precision"])} if "precision" in values else {})})

    def require(self, bundle: Bundle) -> None:
        """Raise `Problem` where a bundle's graphs are of another precision."""
        if self.precision.exported is not bundle.precision:
            raise Problem(
                f"profile.precision = {self.precision.value!r}, and the graphs in {bundle.folder} compute in "
                f"{bundle.precision}: make export PRECISION={self.precision}, or choose {bundle.precision}"
            )

    def to_dict(self) -> dict[str, bool | int | float | str]:
        """The profile as plain values, for JSON; of the CPU without the share of a GPU, which nobody asked about."""
        values = {**asdict(self), "precision": self.precision.value}
        if self.device != "gpu" and self.gpu_memory_fraction == GPU_MEMORY_FRACTION:
            del values["gpu_memory_fraction"]
        return values


def parser_of(key: str) -> Callable[[str], bool | int | float | str]:
    """What makes a value of the profile's ``key`` of a command line's text; it raises ValueError where it is none."""
    return {"onednn": onednn, "precision": precision}.get(key) or type(asdict(ServingProfile()).get(key, 0))


def onednn(text: str) -> bool | str:
    """The value of `ServingProfile.onednn` that a command line gives; what is none stays text, for the profile to
    refuse."""
    return {"true": True, "false": False}.get(text, text)


def precision(value: str) -> Precision | str:
    """The value of `ServingProfile.precision`; what is none stays as it is, for the profile to refuse."""
    return next((one for one in Precision if one == value), value)
