"""The border to NVIDIA's management library, by NVIDIA's own bindings: what it answers as records, and its errors as
None, `Unavailable` or `Lost`. https://docs.nvidia.com/deploy/nvml-api/"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pynvml

from loadtest.experiment.meter_records import Gpu, Gpus, MigDevice, Sharing, WhyNoGpus

# What a GPU, its driver or this user does not have: no answer to one question, and no reason not to ask others.
_NO_ANSWER = frozenset(
    {
        pynvml.NVML_ERROR_NOT_SUPPORTED,
        pynvml.NVML_ERROR_FUNCTION_NOT_FOUND,
        pynvml.NVML_ERROR_NO_PERMISSION,
        pynvml.NVML_ERROR_NOT_FOUND,
        pynvml.NVML_ERROR_INVALID_ARGUMENT,
        pynvml.NVML_ERROR_NO_DATA,
    }
)
_UNAVAILABLE = {
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: WhyNoGpus.NO_LIBRARY,
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: WhyNoGpus.NO_DRIVER,
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: WhyNoGpus.NO_DRIVER,
    pynvml.NVML_ERROR_NO_PERMISSION: WhyNoGpus.NO_PERMISSION,
}
_SHARING = {
    pynvml.NVML_COMPUTEMODE_DEFAULT: Sharing.SHARED,
    pynvml.NVML_COMPUTEMODE_EXCLUSIVE_PROCESS: Sharing.EXCLUSIVE,
    pynvml.NVML_COMPUTEMODE_PROHIBITED: Sharing.PROHIBITED,
}


class Unavailable(Exception):
    """The library says nothing at all."""

    def __init__(self, why: WhyNoGpus) -> None:
        super().__init__(why.value)
        self.why = why


class Lost(Exception):
    """A GPU answers no more: it fell off the bus, or must be reset."""


@dataclass(frozen=True)
class Reading:
    """One moment of a GPU: the share of time in which a kernel ran, bytes in use, MHz, watts, and joules since its
    driver was loaded."""

    utilisation: float | None
    memory_bytes: int | None
    clock_mhz: float | None
    power_w: float | None
    energy_j: float | None


class Nvml:
    """The library, open until `close`. Raises `Unavailable` where it is not there."""

    def __init__(self) -> None:
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as error:
            raise Unavailable(_UNAVAILABLE.get(error.value, WhyNoGpus.FAILED)) from None
        self._used: Any = None
        self._memory: Any = None  # of a part of a GPU the part's own

    def close(self) -> None:
        """Give the library back."""
        pynvml.nvmlShutdown()

    def gpus(self, visible: str | None, mps: bool) -> Gpus:
        """All GPUs; from now on `read` is about the first of those that are ``visible`` (CUDA_VISIBLE_DEVICES; None:
        all). Raises `Lost`."""
        numbers = range(_asked(pynvml.nvmlDeviceGetCount) or 0)
        every = [_asked(pynvml.nvmlDeviceGetHandleByIndex, number) for number in numbers]
        handles = [handle for handle in every if handle is not None]
        found = tuple(_described(index, handle) for index, handle in enumerate(handles))
        used, part = first_visible(found, visible)
        if used is not None:
            self._used = self._memory = handles[used]
            if part is not None:
                self._memory = _asked(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handles[used], part)
        cuda = _asked(pynvml.nvmlSystemGetCudaDriverVersion_v2)
        return Gpus(
            found=found,
            driver=_asked(pynvml.nvmlSystemGetDriverVersion),
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            visible=visible,
            used=used,
            mps=mps,
        )

    def read(self) -> Reading:
        """The GPU in use at this moment. Raises `Lost`."""
        utilisation = _asked(pynvml.nvmlDeviceGetUtilizationRates, self._used)
        memory = _asked(pynvml.nvmlDeviceGetMemoryInfo, self._memory)
        clock = _asked(pynvml.nvmlDeviceGetClockInfo, self._used, pynvml.NVML_CLOCK_SM)
        power = _asked(pynvml.nvmlDeviceGetPowerUsage, self._used)
        energy = _asked(pynvml.nvmlDeviceGetTotalEnergyConsumption, self._used)
        return Reading(
            utilisation=None if utilisation is None else utilisation.gpu / 100,
            memory_bytes=None if memory is None else int(memory.used),
            clock_mhz=None if clock is None else float(clock),
            power_w=None if power is None else power / 1e3,
            energy_j=None if energy is None else energy / 1e3,
        )


def first_visible(found: tuple[Gpu, ...], visible: str | None) -> tuple[int | None, int | None]:
    """The place of the first GPU that CUDA_VISIBLE_DEVICES leaves, and the number of its part, where it is divided;
    None where it leaves none.

    Numbers are CUDA's; they are NVML's where all GPUs are of one kind, or CUDA_DEVICE_ORDER=PCI_BUS_ID.
    """
    first = "0" if visible is None else visible.split(",")[0].strip()
    for place, one in enumerate(found):
        for number, part in enumerate(one.mig_devices):
            # Of a divided GPU CUDA sees one part alone, the first unless another is named.
            if part.uuid.startswith(first) if first.startswith("MIG-") else first == str(place) and number == 0:
                return place, part.index
        if first == str(place) or (first.startswith("GPU-") and one.uuid.startswith(first)):
            return place, None
    return None, None


def _described(index: int, handle: Any) -> Gpu:
    memory = _asked(pynvml.nvmlDeviceGetMemoryInfo, handle)
    limit = _asked(pynvml.nvmlDeviceGetEnforcedPowerLimit, handle)
    capability = _asked(pynvml.nvmlDeviceGetCudaComputeCapability, handle)
    mig = _asked(pynvml.nvmlDeviceGetMigMode, handle)
    divided = bool(mig and mig[0] == pynvml.NVML_DEVICE_MIG_ENABLE)
    return Gpu(
        index=index,
        name=_asked(pynvml.nvmlDeviceGetName, handle) or "",
        uuid=_asked(pynvml.nvmlDeviceGetUUID, handle) or "",
        memory_bytes=int(memory.total) if memory else None,
        power_limit_w=limit / 1e3 if limit else None,
        capability=(int(capability[0]), int(capability[1])) if capability else None,
        sharing=_SHARING.get(_asked(pynvml.nvmlDeviceGetComputeMode, handle)),
        mig=divided,
        mig_devices=tuple(_parts(handle)) if divided else (),
    )


def _parts(handle: Any) -> list[MigDevice]:
    found = []
    for place in range(_asked(pynvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
        part = _asked(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, place)
        if part is not None:
            memory = _asked(pynvml.nvmlDeviceGetMemoryInfo, part)
            uuid = _asked(pynvml.nvmlDeviceGetUUID, part) or ""
            found.append(MigDevice(index=place, uuid=uuid, memory_bytes=int(memory.total) if memory else None))
    return found


def _asked(question: Callable[..., Any], *arguments: Any) -> Any:
    """What the library answers; None where this GPU, driver or user has no answer. Raises `Lost`."""
    try:
        return question(*arguments)
    except pynvml.NVMLError as error:
        if error.value in _NO_ANSWER:
            return None
        raise Lost(str(error)) from None
