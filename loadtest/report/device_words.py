"""What the machine's meters said of GPU and CPUs, and what servers were given of a GPU, in words and rows. Where there
are no data there is no row."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtest.analysis.records import Energy, Measurement, Summary
from loadtest.experiment.meter_records import DeviceUse, GpuMemory, Gpus, GpuUse, Meter, Sharing, WhyNoGpus
from loadtest.report import wording
from serving.engines import gpu

_WHY_NONE = {
    WhyNoGpus.NO_LIBRARY: "not known: NVIDIA's library is not installed",
    WhyNoGpus.NO_DRIVER: "not known: NVIDIA's driver is not loaded, or of another version than its library",
    WhyNoGpus.NO_PERMISSION: "not known: this user may not ask NVIDIA's library",
    WhyNoGpus.FAILED: "not known: NVIDIA's library fails",
}
_METERS = {
    Meter.GPU_COUNTER: "GPU (its energy counter)",
    Meter.GPU_POWER: "GPU (its power over time)",
    Meter.CPU_COUNTER: "CPU packages and memory, the generator's work with them (RAPL)",
}


@dataclass(frozen=True)
class Row:
    """What the meters say of one measurement; text for people, "–" where one does not say.

    energies  meter, joules for 1,000 images above idle, and with what is drawn when idle
    """

    item: Measurement
    utilisation: str
    memory: str
    clock: str
    power: str
    energies: tuple[tuple[str, str, str], ...]


def rows(figures: Summary) -> list[Row]:
    """A row for each measurement of which the meters say something, but for the short trials of capacity searches."""
    return [_row(item) for item in figures.measurements if item.devices and item.scenario != "capacity"]


def conditions(figures: Summary) -> list[tuple[str, str]]:
    """(What, how) of the GPU and of what servers were given of it; nothing where all compute on the CPU."""
    environment = figures.environment
    found = [("GPU", gpus(environment.gpus))] if environment.gpus else []
    for name, title in ((gpu.NAME, "GPU memory"), (gpu.AUTOTUNE, "cuDNN")):
        notes = [
            f"{wording.shorten(wording.target_name(target.name), 30)}: {knob.note}"
            for target in figures.targets
            for knob in target.knobs
            if knob.name == name and knob.note
        ]
        if notes:
            found.append((title, " ".join(notes)))
    if any(gpu.computes_there(target.knobs) for target in figures.targets):
        found.append(("GPU warm-up", "each start was asked for every batch size once, before any load"))
    found += [
        (f"GPU memory of {wording.shorten(wording.target_name(name), 30)}", expected(memory))
        for name, memory in environment.gpu_memory.items()
    ]
    if idle := environment.idle:
        meters = (("GPU", idle.gpu_w), ("CPUs", idle.cpu_w))
        drawn = [f"{name} {wording.number(watts)} W" for name, watts in meters if watts is not None]
        if drawn:
            found.append(("Idle", f"{', '.join(drawn)} before any server ran"))
    return found


def gpus(found: Gpus) -> str:
    """Which GPU servers compute on, and how it is shared and divided."""
    if found.why_none:
        return _WHY_NONE[found.why_none]
    visible = "not set" if found.visible is None else found.visible or "empty"
    if found.used is None:
        return f"none that servers see ({wording.plural(len(found.found), 'GPU')}, CUDA_VISIBLE_DEVICES {visible})"
    one = found.found[found.used]
    parts = [
        wording.isolated(one.name),
        wording.gibibytes(one.memory_bytes) if one.memory_bytes else "",
        f"driver {found.driver}" if found.driver else "",
        f"CUDA up to {found.cuda}" if found.cuda else "",
        f"limit {wording.number(one.power_limit_w)} W" if one.power_limit_w else "",
        f"the first of {len(found.found)}" if len(found.found) > 1 else "",
        f"CUDA_VISIBLE_DEVICES {visible}",
        f"MIG: one of {len(one.mig_devices)} parts, utilisation and energy are of the whole" if one.mig else "no MIG",
        "MPS runs" if found.mps else "no MPS",
        "for one process at a time" if one.sharing is Sharing.EXCLUSIVE else "",
    ]
    return ", ".join(part for part in parts if part)


def expected(memory: GpuMemory) -> str:
    """What a server will have of a GPU's memory."""
    least = memory.processes * (memory.weights_bytes + memory.context_bytes)
    each = f"{wording.number(memory.weights_bytes / 2**20)} MiB of weights and some {memory.context_bytes // 2**20} MiB"
    cap = f", and may take {wording.share(memory.share)} of it beside contexts" if memory.share else ""
    who = "1 process" if memory.processes == 1 else f"{memory.processes} processes, each"
    return f"expected at least {wording.gibibytes(least)}: {who} with {each} of CUDA context{cap}"


def _row(item: Measurement) -> Row:
    uses = item.devices
    memory = _gpu(uses, lambda one: one.memory_bytes)
    return Row(
        item=item,
        utilisation=wording.share(_mean(uses, lambda one: one.utilisation)),
        memory=wording.gibibytes(max(memory, default=None)),
        clock=_with(_mean(uses, lambda one: one.clock_mhz), "MHz"),
        power=_with(_mean(uses, lambda one: one.power_w), "W"),
        energies=tuple(map(_energy, item.energy)),
    )


def _with(value: float | None, unit: str) -> str:
    return wording.NOTHING if value is None else f"{wording.number(value)} {unit}"


def _energy(one: Energy) -> tuple[str, str, str]:
    spread = f" ({wording.number(one.least)}–{wording.number(one.most)})" if one.least != one.most else ""
    if one.above_idle is None:
        return _METERS[one.meter], wording.NOTHING, f"{wording.number(one.joules)} J{spread}"
    return _METERS[one.meter], f"{wording.number(one.above_idle)} J{spread}", f"{wording.number(one.joules)} J"


def _gpu(uses: Sequence[DeviceUse], figure: Callable[[GpuUse], float | None]) -> list[float]:
    return [value for use in uses if use.gpu and (value := figure(use.gpu)) is not None]


def _mean(uses: Sequence[DeviceUse], figure: Callable[[GpuUse], float | None]) -> float | None:
    known = _gpu(uses, figure)
    return math.fsum(known) / len(known) if known else None
