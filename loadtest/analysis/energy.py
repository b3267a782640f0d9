"""The energy of a measurement: joules for 1,000 images answered rightly, from the meters of the servers' machine, with
and without what the machine draws when idle.

A ratio of sums over the repetitions: of their energies, and of their images. What is drawn when idle was measured
before any server ran, so what a server draws by being there is its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.analysis.records import Energy
from loadtest.experiment.meter_records import DeviceUse, IdlePower, Meter

# Repetitions: what the meters say, and the images that were answered rightly meanwhile.
Uses = Sequence[tuple[DeviceUse, int]]
IMAGES = 1000


def of(uses: Uses, idle: IdlePower | None) -> tuple[Energy, ...]:
    """What each meter says; nothing of one that cannot be read, or where nothing was answered."""
    meter = next((use.gpu.meter for use, _ in uses if use.gpu and use.gpu.meter), None)
    gpu = [
        (use.gpu.energy_j if use.gpu and use.gpu.meter is meter else None, use.seconds, count) for use, count in uses
    ]
    cpu = [(use.cpu_energy_j, use.seconds, images) for use, images in uses]
    found = []
    if meter is not None and (energy := _energy(meter, gpu, idle.gpu_w if idle else None)):
        found.append(energy)
    if energy := _energy(Meter.CPU_COUNTER, cpu, idle.cpu_w if idle else None):
        found.append(energy)
    return tuple(found)


def _energy(meter: Meter, seen: Sequence[tuple[float | None, float, int]], idle_w: float | None) -> Energy | None:
    """``seen``: joules, seconds and images of each repetition."""
    known = [(joules, seconds, images) for joules, seconds, images in seen if joules is not None and images]
    if not known:
        return None

    def above(joules: float, seconds: float) -> float:
        return joules - (idle_w or 0.0) * seconds

    images = sum(count for _, _, count in known)
    each = [above(joules, seconds) / count * IMAGES for joules, seconds, count in known]
    return Energy(
        meter=meter,
        joules=round(sum(joules for joules, _, _ in known) / images * IMAGES, 4),
        above_idle=None
        if idle_w is None
        else round(sum(above(joules, seconds) for joules, seconds, _ in known) / images * IMAGES, 4),
        idle_w=idle_w,
        least=round(min(each), 4),
        most=round(max(each), 4),
    )
