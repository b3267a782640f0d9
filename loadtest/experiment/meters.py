"""Samples the meters of this machine's GPU and CPUs all through a run, and says what they counted in any stretch of it.

A thread of the observing process reads them on a schedule of its own, so that the generator's loop knows nothing of it;
each sample has the time at which it was taken. What a stretch used is the difference of counters at its ends, between
two samples each.
"""

from __future__ import annotations

import math
import os
import threading
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from loadtest.experiment import cpu_time, rapl
from loadtest.experiment.meter_records import DeviceUse, Gpus, GpuUse, IdlePower, Meter
from loadtest.experiment.nvml import Lost, Nvml, Reading, Unavailable
from loadtest.experiment.rapl import Counter

PERIOD_S = 0.1
FARTHEST_S = 1.0  # an end of a stretch lies between two samples that are no farther apart
KEPT_S = 3600.0
IDLE_S = 4.0
MPS = "nvidia-cuda-mps"  # its daemon and its server, as the kernel cuts their names


@dataclass(frozen=True)
class Sample:
    """One moment (Unix time) of the GPU, None where there is none or it is lost, and the joules of the CPUs so far."""

    at: float
    gpu: Reading | None
    cpu_j: float | None


class Meters:
    """Samples from `start` until `stop`. ``nvml``: with a GPU in use, or None; ``cpus``: None where unreadable."""

    def __init__(self, gpus: Gpus, nvml: Nvml | None, cpus: Counter | None) -> None:
        self.gpus = gpus
        self._nvml, self._cpus = nvml, cpus
        self._samples: deque[Sample] = deque(maxlen=math.ceil(KEPT_S / PERIOD_S))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tandem-meters", daemon=True)
        self.lost_at: float | None = None

    @property
    def any(self) -> bool:
        """Whether there is anything to sample."""
        return self._nvml is not None or self._cpus is not None

    @property
    def gpu_name(self) -> str:
        """Of the GPU that is sampled; empty where there is none."""
        return "" if self.gpus.used is None else self.gpus.found[self.gpus.used].name

    def start(self) -> None:
        """Begin to sample, where there is anything to."""
        if self.any:
            self._thread.start()

    def stop(self) -> None:
        """End it, and give NVIDIA's library back."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._nvml:
            self._nvml.close()

    def idle(self, seconds: float = IDLE_S) -> IdlePower | None:
        """What is drawn while nothing runs, which takes so long to see; None where no meter counts energy."""
        if not self.any:
            return None
        began = time.time()
        time.sleep(seconds + 2 * PERIOD_S)
        use = self.use(began + PERIOD_S, began + PERIOD_S + seconds)
        gpu_j = use.gpu.energy_j if use and use.gpu else None
        cpu_j = use.cpu_energy_j if use else None
        if use is None or (gpu_j is None and cpu_j is None):
            return None
        return IdlePower(seconds=seconds, gpu_w=_rounded(gpu_j, seconds), cpu_w=_rounded(cpu_j, seconds))

    def use(self, began: float, ended: float) -> DeviceUse | None:
        """What they counted between two moments (Unix time); None where nothing was seen of it."""
        near = [one for one in list(self._samples) if began - FARTHEST_S <= one.at <= ended + FARTHEST_S]
        return use(near, began, ended)

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._samples.append(self._sample())
            due = max(due + PERIOD_S, time.monotonic())
            self._stop.wait(due - time.monotonic())

    def _sample(self) -> Sample:
        gpu = None
        if self._nvml and self.lost_at is None:
            try:
                gpu = self._nvml.read()
            except Lost:
                self.lost_at = time.time()
        return Sample(time.time(), gpu, self._cpus.read() if self._cpus else None)


def find(powercap: Path = rapl.POWERCAP, *, on_gpu: bool) -> Meters:
    """The meters of this machine, not started yet; those of its GPU where something is to run ``on_gpu``."""
    zones = rapl.zones(powercap)
    cpus = Counter(zones) if zones else None
    if not on_gpu:
        return Meters(Gpus(asked=False), None, cpus)
    try:
        nvml = Nvml()
    except Unavailable as none:
        return Meters(Gpus(why_none=none.why), None, cpus)
    try:
        gpus = nvml.gpus(os.environ.get("CUDA_VISIBLE_DEVICES"), _mps_runs())
    except Lost:
        gpus = Gpus()
    if gpus.used is None:
        nvml.close()
        return Meters(gpus, None, cpus)
    return Meters(gpus, nvml, cpus)


def use(samples: Sequence[Sample], began: float, ended: float) -> DeviceUse | None:
    """What the meters counted between two moments; None where no sample is near enough to say."""
    times = [one.at for one in samples]
    seconds = ended - began
    if seconds <= 0 or any(later <= earlier for earlier, later in pairwise(times)):
        return None  # the clock was set
    within = [one.gpu for one in samples if began <= one.at <= ended and one.gpu]
    cpu_j = _counted(times, [one.cpu_j for one in samples], began, ended)
    gpu = _gpu(samples, times, within, began, ended) if within else None
    if gpu is None and cpu_j is None:
        return None
    return DeviceUse(seconds=round(seconds, 3), gpu=gpu, cpu_energy_j=None if cpu_j is None else round(cpu_j, 3))


def _gpu(
    samples: Sequence[Sample], times: Sequence[float], within: Sequence[Reading], began: float, ended: float
) -> GpuUse:
    counters = [one.gpu.energy_j if one.gpu else None for one in samples]
    energy, meter = _counted(times, counters, began, ended), Meter.GPU_COUNTER
    if energy is None and all(one is None for one in counters):
        powers = [one.gpu.power_w if one.gpu else None for one in samples]
        energy, meter = _counted(times, _integrated(times, powers), began, ended), Meter.GPU_POWER
    memories = [one.memory_bytes for one in within if one.memory_bytes is not None]
    return GpuUse(
        utilisation=_mean([one.utilisation for one in within], 4),
        memory_bytes=max(memories, default=None),
        clock_mhz=_mean([one.clock_mhz for one in within], 1),
        power_w=_mean([one.power_w for one in within], 2),
        energy_j=None if energy is None else round(energy, 3),
        meter=None if energy is None else meter,
    )


def _counted(times: Sequence[float], values: Sequence[float | None], began: float, ended: float) -> float | None:
    """By how much a counter grew; None where it is not known at an end, or began anew in between (a driver that was
    loaded again)."""
    first, last = (_at(times, values, moment) for moment in (began, ended))
    inside = [value for at, value in zip(times, values, strict=True) if began <= at <= ended]
    if first is None or last is None or None in inside:
        return None
    seen = [first, *(value for value in inside if value is not None), last]
    fell = any(later < earlier for earlier, later in pairwise(seen))
    return None if fell else last - first


def _at(times: Sequence[float], values: Sequence[float | None], moment: float) -> float | None:
    """A counter at a moment, between the samples around it."""
    after = bisect_left(times, moment)
    if not 0 < after < len(times):
        return None
    left, right = values[after - 1], values[after]
    passed = times[after] - times[after - 1]
    if left is None or right is None or right < left or passed > FARTHEST_S:
        return None
    return left + (right - left) * (moment - times[after - 1]) / passed


def _integrated(times: Sequence[float], powers: Sequence[float | None]) -> list[float | None]:
    """Joules so far, of watts at these times, by trapezoids; None where the power is not known."""
    total = 0.0
    found: list[float | None] = []
    for place, power in enumerate(powers):
        before = powers[place - 1] if place else None
        if before is not None and power is not None:
            total += (before + power) / 2 * (times[place] - times[place - 1])
        found.append(None if power is None else total)
    return found


def _mean(values: Sequence[float | None], digits: int) -> float | None:
    known = [value for value in values if value is not None]
    return round(math.fsum(known) / len(known), digits) if known else None


def _rounded(joules: float | None, seconds: float) -> float | None:
    return None if joules is None else round(joules / seconds, 2)


def _mps_runs() -> bool:
    """Whether NVIDIA's Multi-Process Service runs on this machine."""
    return any(one.name.startswith(MPS) for one in cpu_time.snapshot().processes.values())
