"""NVIDIA's management library as its bindings load it: an object with its functions, which take ctypes values and
return statuses. The real one needs a GPU; so all above the C interface, NVIDIA's own bindings among it, is real."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest

OK = 0
PART = 10_000  # handles of parts: that of their GPU, times this, and their place from 1


@dataclass
class Part:
    """A part of a divided GPU."""

    uuid: str
    memory: int


@dataclass
class Device:
    """A GPU. ``fails``: function → the status that it returns."""

    name: str = "NVIDIA T4"
    uuid: str = "GPU-11"
    memory: int = 16 * 2**30
    used: int = 3 * 2**30
    busy: int = 80
    clock: int = 1500
    milliwatts: int = 60_000
    millijoules: int = 5_000_000
    compute_mode: int = pynvml.NVML_COMPUTEMODE_DEFAULT
    parts: list[Part | None] = field(default_factory=list)
    fails: dict[str, int] = field(default_factory=dict)


class FakeNvml:
    """The library with these GPUs; ``starts``: the status of its start."""

    def __init__(self, *devices: Device, starts: int = OK) -> None:
        self.devices, self.starts, self.open = list(devices), starts, 0

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("nvml"):
            raise AttributeError(name)
        own = getattr(type(self), f"_{name}", None)
        if own is None:
            raise AttributeError(name)

        def called(*arguments: Any) -> int:
            return own(self, *arguments)

        return called

    def _nvmlInitWithFlags(self, flags: int) -> int:
        self.open += self.starts == OK
        return self.starts

    def _nvmlShutdown(self) -> int:
        self.open -= 1
        return OK

    def _nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self.devices)
        return OK

    def _nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        return _point(handle, index.value + 1)

    def _nvmlSystemGetDriverVersion(self, text: Any, size: Any) -> int:
        text.value = b"580.82"
        return OK

    def _nvmlSystemGetCudaDriverVersion_v2(self, version: Any) -> int:
        version._obj.value = 13000
        return OK

    def _of(self, handle: Any, function: str, say: Callable[[Device, Part | None], None]) -> int:
        number = ctypes.cast(handle, ctypes.c_void_p).value or 0
        device, part = self.devices[(number // PART or number) - 1], None
        if number >= PART:
            part = device.parts[number % PART - 1]
        elif function in device.fails:
            return device.fails[function]
        say(device, part)
        return OK

    def _nvmlDeviceGetName(self, handle: Any, text: Any, size: Any) -> int:
        return self._of(handle, "name", lambda one, _: setattr(text, "value", one.name.encode()))

    def _nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> int:
        return self._of(handle, "uuid", lambda one, part: setattr(text, "value", (part or one).uuid.encode()))

    def _nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        def say(one: Device, part: Part | None) -> None:
            memory._obj.total = (part or one).memory
            memory._obj.used = part.memory // 2 if part else one.used

        return self._of(handle, "memory", say)

    def _nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:
        return self._of(handle, "utilisation", lambda one, _: setattr(rates._obj, "gpu", one.busy))

    def _nvmlDeviceGetClockInfo(self, handle: Any, kind: Any, clock: Any) -> int:
        assert kind.value == pynvml.NVML_CLOCK_SM
        return self._of(handle, "clock", lambda one, _: setattr(clock._obj, "value", one.clock))

    def _nvmlDeviceGetPowerUsage(self, handle: Any, power: Any) -> int:
        return self._of(handle, "power", lambda one, _: setattr(power._obj, "value", one.milliwatts))

    def _nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, energy: Any) -> int:
        return self._of(handle, "energy", lambda one, _: setattr(energy._obj, "value", one.millijoules))

    def _nvmlDeviceGetEnforcedPowerLimit(self, handle: Any, limit: Any) -> int:
        return self._of(handle, "limit", lambda one, _: setattr(limit._obj, "value", 70_000))

    def _nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:
        def say(one: Device, _: Part | None) -> None:
            major._obj.value, minor._obj.value = 7, 5

        return self._of(handle, "capability", say)

    def _nvmlDeviceGetComputeMode(self, handle: Any, mode: Any) -> int:
        return self._of(handle, "mode", lambda one, _: setattr(mode._obj, "value", one.compute_mode))

    def _nvmlDeviceGetMigMode(self, handle: Any, current: Any, pending: Any) -> int:
        def say(one: Device, _: Part | None) -> None:
            current._obj.value = pending._obj.value = int(bool(one.parts))

        return self._of(handle, "mig", say)

    def _nvmlDeviceGetMaxMigDeviceCount(self, handle: Any, count: Any) -> int:
        return self._of(handle, "mig", lambda one, _: setattr(count._obj, "value", len(one.parts)))

    def _nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: Any, part: Any) -> int:
        number = ctypes.cast(handle, ctypes.c_void_p).value or 0
        if self.devices[number - 1].parts[index.value] is None:
            return pynvml.NVML_ERROR_NOT_FOUND
        return _point(part, number * PART + index.value + 1)


def _point(handle: Any, number: int) -> int:
    ctypes.memmove(handle, ctypes.byref(ctypes.c_void_p(number)), ctypes.sizeof(ctypes.c_void_p))
    return OK


def install(monkeypatch: pytest.MonkeyPatch, library: FakeNvml | None) -> None:
    """Have NVIDIA's bindings load ``library``; None: there is none on this machine."""

    def load(name: str) -> FakeNvml:
        assert name == "libnvidia-ml.so.1"
        if library is None:
            raise OSError(f"{name}: cannot open shared object file")
        return library

    monkeypatch.setattr(pynvml, "CDLL", load)
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
