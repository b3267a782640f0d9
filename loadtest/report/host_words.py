"""What happened to the machine while it measured, in one line."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.analysis.records import Measurement, OthersOnCores, SentLate, Summary
from loadtest.experiment.records import NotPinned, WakesLate
from loadtest.report import wording
from loadtest.report.reasons import NOTABLY_STOLEN

NOTABLY_USED = 0.05


@dataclass(frozen=True)
class Host:
    """What the host did to a run.

    stolen    the largest share of the machine's CPU time that its host gave to others during a trial; None: unknown
    spoiled   trials that the generator spoiled by sending late, and that were repeated
    not_valid measurements of so many ``measured`` that count for nothing because it still sent late
    taken     likewise because other programs used the cores; `others`: the largest share of their time in a trial
    wakes_late_ms  how late the machine woke a process before any load (p99), where that was too late; else None
    shared    whether server and generator shared CPUs
    """

    stolen: float | None
    spoiled: int
    taken: int
    others: float | None
    not_valid: int
    measured: int
    wakes_late_ms: float | None
    shared: bool
    says: str


def host(figures: Summary) -> Host:
    """What happened to the machine in a run."""
    measurements = figures.measurements
    known = [item.cpu_stolen for item in measurements if item.cpu_stolen is not None]
    stolen = max(known, default=None)
    spoiled = len({folder for item in measurements for folder in item.spoiled})
    late, taken = (sum(_has(item, why) for item in measurements) for why in (SentLate, OthersOnCores))
    others = max((item.others for item in measurements if item.others is not None), default=None)
    wakes = max((one.p99_ms for one in figures.warnings if isinstance(one, WakesLate)), default=None)
    shared = any(isinstance(one, NotPinned) for one in figures.warnings)
    told = [_stolen(stolen), _spoiled(spoiled)] if measurements else ["nothing was measured on it"]
    if late:
        told.append(f"{late} of {wording.plural(len(measurements), 'measurement')} not valid, sent late all the same")
    if others is not None and others >= NOTABLY_USED:
        told.append(f"other programs used up to {wording.share(others)} of its cores’ time during a trial")
    if taken:
        told.append(
            f"{taken} of {wording.plural(len(measurements), 'measurement')} not valid, other programs on its cores"
        )
    if wakes is not None:
        told.append(f"before any load it woke a process {wording.milliseconds(wakes)} late (p99)")
    if shared:
        told.append("server and load generator shared its CPUs")
    return Host(
        stolen, spoiled, taken, others, late, len(measurements), wakes, shared, f"The machine: {'; '.join(told)}."
    )


def _stolen(share: float | None) -> str:
    if share is None:
        return "how much of its CPU time its host gave to others was not recorded"
    if share < NOTABLY_STOLEN:
        return f"its host gave less than {wording.setting(NOTABLY_STOLEN * 100, '%')} of its CPU time to others"
    return f"its host gave up to {wording.share(share)} of its CPU time to others during a trial"


def _spoiled(trials: int) -> str:
    return f"{wording.plural(trials, 'trial')} spoiled and repeated" if trials else "no trial had to be repeated"


def _has(item: Measurement, why: type[SentLate | OthersOnCores]) -> bool:
    return any(isinstance(fault.reason, why) for fault in item.why_not_valid)
