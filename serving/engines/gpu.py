"""A GPU, which several servers share: how each is told its share of the memory, what a server will need of it, and
which one it says that it computes on. Imports the standard library only.

TensorFlow takes all of it at its start unless it is told otherwise, and whoever comes next finds none. So every server
has a cap, `ServingProfile.gpu_memory_fraction`, and TensorFlow grows up to it (`GROWTH`), as PyTorch does by itself.
Beside the cap each process has a CUDA context, with its kernels.
https://www.tensorflow.org/guide/gpu#limiting_gpu_memory_growth
https://docs.pytorch.org/docs/stable/generated/torch.cuda.memory.set_per_process_memory_fraction.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serving.engines.engine import GPU, Knob, KnobKind, Switch

if TYPE_CHECKING:
    from serving.profile import ServingProfile

NAME = "gpu_memory_fraction"
AUTOTUNE = "cuDNN autotune"
# Our code in PyTorch's workers caps itself by the first, and runs every batch up to the second when it loads.
TORCH = "TANDEM_TORCH_GPU_MEMORY"
TORCH_WARM_UP = "TANDEM_TORCH_WARM_UP"
GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"
# Of one process, some: it hangs on GPU, driver and libraries. TensorFlow Serving was seen to have 234 MiB.
CONTEXT_BYTES = 400 * 2**20
# As CUDA_VISIBLE_DEVICES: an empty one is none to some programs.
NONE = "-1"
SAID = "GPU is "
# Our own words in the embedded server's log, and TensorFlow's in that of the real one (gpu_device.cc).
_LINE = re.compile(rf"{SAID}(.+)|Created device \S*GPU:0 with .*, name: ([^,\n]+)")


@dataclass(frozen=True)
class Expected:
    """What a server will have of a GPU's memory at least, beside its activations: of each of its ``processes`` a
    context, some `CONTEXT_BYTES`, and the weights. ``cap_bytes``: what all of them may take beside contexts, as a
    share; None: it has no cap."""

    processes: int
    weights_bytes: int
    share: float | None = None

    @property
    def at_least_bytes(self) -> int:
        """Contexts and weights of all processes."""
        return self.processes * (CONTEXT_BYTES + self.weights_bytes)


def expected(knobs: tuple[Knob, ...], weights_bytes: int) -> Expected:
    """What a server that was given ``knobs`` will need for a model of so many bytes of weights, each of its processes
    for itself."""
    given = {knob.name: knob for knob in knobs}
    workers, capped = given.get("instances"), given.get(NAME)
    processes = int(workers.value or 1) if workers and workers.unit == "processes" else 1
    asked = capped.asked if capped and capped.native_key else None
    return Expected(processes, weights_bytes, float(asked) if asked is not None else None)


def per_worker(profile: ServingProfile, models: int) -> float:
    """The share of each worker process where each of so many models has ``instances`` of them."""
    return round(profile.gpu_memory_fraction / (profile.instances * models), 4)


def torch_variables(profile: ServingProfile, models: int = 1) -> dict[str, str]:
    """What a worker of PyTorch is given; nothing where it computes on the CPU."""
    if profile.device != "gpu":
        return {}
    return {TORCH: f"{per_worker(profile, models):g}", TORCH_WARM_UP: str(profile.max_batch_size)}


def torch_knobs(profile: ServingProfile, processes: str, models: int = 1) -> tuple[Knob, ...]:
    """The same as knobs; ``processes``: what worker processes are called."""
    if profile.device != "gpu":
        return ()
    workers, share = profile.instances * models, per_worker(profile, models)
    own = f"Each of {workers} {processes} has a CUDA context (some hundred MB) and the weights of its own."
    return (
        Knob(
            name=NAME,
            native_key=TORCH,
            value=share,
            unit="of the GPU's memory" if workers == 1 else "of the GPU's memory, each process",
            kind=KnobKind.SAME if workers == 1 else KnobKind.OTHER_UNIT,
            note=own,
            asked=profile.gpu_memory_fraction,
        ),
        Knob(
            name=AUTOTUNE,
            native_key="torch.backends.cudnn.benchmark",
            value=0,
            kind=KnobKind.DIFFERS,
            note="PyTorch takes the algorithm that cuDNN's heuristics name, and times none.",
        ),
    )


def tensorflow_variables(profile: ServingProfile) -> dict[str, str]:
    """What a server of TensorFlow is given beside its flag; nothing where it computes on the CPU."""
    return {GROWTH: "true"} if profile.device == "gpu" else {}


def tensorflow_knobs(profile: ServingProfile, flag: str) -> tuple[Knob, ...]:
    """The same as knobs; ``flag``: that of the share."""
    if profile.device != "gpu":
        return ()
    share = profile.gpu_memory_fraction
    return (
        Knob(
            name=NAME,
            native_key=flag,
            value=share,
            unit="of the GPU's memory",
            note=f"TensorFlow takes memory as it needs it ({GROWTH}), up to this share; its context comes on top.",
            asked=share,
        ),
        Knob(
            name=AUTOTUNE,
            native_key="TF_CUDNN_USE_AUTOTUNE",
            value=None,
            kind=KnobKind.DIFFERS,
            note="TensorFlow times cuDNN's algorithms for each batch size that it meets for the first time.",
        ),
    )


def in_force(log: str) -> tuple[Switch, ...]:
    """Which GPU a server of TensorFlow says in its ``log`` that it computes on; empty where it names none."""
    found = _LINE.search(log)
    return (Switch(GPU, (found[1] or found[2]).strip()),) if found else ()


def computes_there(knobs: tuple[Knob, ...]) -> bool:
    """Whether a server that was given ``knobs`` computes on a GPU."""
    return any(knob.name == AUTOTUNE for knob in knobs)
