"""The one place where a server's tuning is written; both servers' native configs are rendered from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from models.problem import Problem

DEVICES = ("cpu", "gpu")
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

    Raises `Problem` for a value that no server could honour.
    """

    max_batch_size: int = 32
    batch_timeout_ms: float = 1.0
    instances: int = 1
    threads: int = 1
    queue_capacity: int = 1024
    device: str = "cpu"
    onednn: OneDnn = "default"

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
        if not isinstance(self.onednn, bool) and self.onednn != "default":
            raise Problem(f"profile.onednn = {self.onednn!r}: use true, false or 'default'")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ServingProfile:
        """Build a profile from keys and values; an unknown key raises `Problem`."""
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise Problem(f"profile.{key}: unknown key; use one of {', '.join(known)}")
        return cls(**values)

    def to_dict(self) -> dict[str, bool | int | float | str]:
        """The profile as plain values, for JSON."""
        return asdict(self)


def parser_of(key: str) -> Callable[[str], bool | int | float | str]:
    """What makes a value of the profile's ``key`` of a command line's text; it raises ValueError where it is none."""
    return onednn if key == "onednn" else type(ServingProfile().to_dict().get(key, 0))


def onednn(text: str) -> bool | str:
    """The value of `ServingProfile.onednn` that a command line gives; what is none stays text, for the profile to
    refuse."""
    return {"true": True, "false": False}.get(text, text)
