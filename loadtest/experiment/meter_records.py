"""What the machine's own meters say, typed: which GPUs there are, what they and the CPUs draw while nothing runs, and
what they did in a trial (devices.json). Energies are joules, powers watts; None where a meter does not say."""

from __future__ import annotations

import enum

import msgspec


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Values that do not change. Unknown keys of a newer version are ignored."""


class WhyNoGpus(enum.Enum):
    """Why NVIDIA's library says nothing of GPUs.

    NO_LIBRARY     it is not installed: no NVIDIA driver
    NO_DRIVER      the driver is not loaded, or another version than the library
    NO_PERMISSION  this user may not ask it
    FAILED         it fails
    """

    NO_LIBRARY = "no-library"
    NO_DRIVER = "no-driver"
    NO_PERMISSION = "no-permission"
    FAILED = "failed"


class Sharing(enum.Enum):
    """Who may compute on a GPU at the same time (NVML's compute mode).

    SHARED      any number of processes
    EXCLUSIVE   one process: a second worker fails
    PROHIBITED  none
    """

    SHARED = "shared"
    EXCLUSIVE = "exclusive"
    PROHIBITED = "prohibited"


class Meter(enum.Enum):
    """Where an energy comes from.

    GPU_COUNTER  the GPU's own counter (nvmlDeviceGetTotalEnergyConsumption)
    GPU_POWER    its power over time, for GPUs without a counter
    CPU_COUNTER  the counters of the CPU's packages and their memory (RAPL)
    """

    GPU_COUNTER = "gpu-counter"
    GPU_POWER = "gpu-power"
    CPU_COUNTER = "cpu-counter"


class MigDevice(Record, frozen=True, kw_only=True):
    """A part of a GPU that is a device of its own, by its number there."""

    index: int = 0
    uuid: str
    memory_bytes: int | None = None


class Gpu(Record, frozen=True, kw_only=True):
    """A GPU. ``mig``: whether it is divided, ``mig_devices``: into which; ``capability``: CUDA's compute capability."""

    index: int
    name: str
    uuid: str
    memory_bytes: int | None = None
    power_limit_w: float | None = None
    capability: tuple[int, int] | None = None
    sharing: Sharing | None = None
    mig: bool = False
    mig_devices: tuple[MigDevice, ...] = ()


class Gpus(Record, frozen=True, kw_only=True):
    """The GPUs of a machine, as they were found before any load.

    driver, cuda   the versions of NVIDIA's driver and of the CUDA that it supports
    visible        CUDA_VISIBLE_DEVICES; None: not set, so that all are
    used           the place in ``found`` of the one that servers compute on, the first that is visible; None: none is
    mps            whether NVIDIA's Multi-Process Service runs
    why_none       None: the library answers
    asked          whether it was asked at all, as a server computes on a GPU
    """

    found: tuple[Gpu, ...] = ()
    driver: str | None = None
    cuda: str | None = None
    visible: str | None = None
    used: int | None = None
    mps: bool = False
    why_none: WhyNoGpus | None = None
    asked: bool = True


class IdlePower(Record, frozen=True, kw_only=True):
    """What was drawn before any server ran, in the mean over so many seconds."""

    seconds: float
    gpu_w: float | None = None
    cpu_w: float | None = None


class GpuMemory(Record, frozen=True, kw_only=True):
    """What a server was expected to have of a GPU's memory: each of its ``processes`` a CUDA context, of some
    ``context_bytes``, and the weights. ``share``: the most that it may take beside contexts; None: it has no cap."""

    processes: int
    weights_bytes: int
    context_bytes: int
    share: float | None = None


class GpuUse(Record, frozen=True, kw_only=True):
    """What the GPU did in a trial.

    utilisation   the share of time in which a kernel ran, in the mean
    memory_bytes  the most that was in use, of all processes
    clock_mhz     of its multiprocessors, in the mean; `power_w` likewise
    energy_j      of the whole trial; `meter`: where that comes from
    """

    utilisation: float | None = None
    memory_bytes: int | None = None
    clock_mhz: float | None = None
    power_w: float | None = None
    energy_j: float | None = None
    meter: Meter | None = None


class DeviceUse(Record, frozen=True, kw_only=True):
    """devices.json: what the meters say of a trial's ``seconds``. ``cpu_energy_j``: of all packages, whoever used them,
    the load generator too."""

    seconds: float
    gpu: GpuUse | None = None
    cpu_energy_j: float | None = None
