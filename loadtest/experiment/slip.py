"""How late a generator may send, and how much other programs may use of its and the server's cores, before a
measurement says nothing of the server."""

from __future__ import annotations

from loadtest.experiment.records import TrialRecord

SLIP_FLOOR_MS = 1.0
SLIP_SHARE_OF_P50 = 0.05
# The largest share of the cores' time that others may use. What Tandem itself does beside its load, and a system's own
# services, stay well below it; one program that is busy all the time is above it on up to ten cores.
OTHERS_ALLOWED = 0.1


def allowed_ms(p50_ms: float | None) -> float:
    """The largest schedule slip (p99) of a valid trial: 1 ms, or a twentieth of the median latency if that is more."""
    return max(SLIP_FLOOR_MS, SLIP_SHARE_OF_P50 * (p50_ms or 0))


def late(trial: TrialRecord) -> bool:
    """Whether the generator (or its machine) sent too late."""
    slip = trial.schedule_slip_ms.p99 if trial.schedule_slip_ms else None
    return slip is not None and slip > allowed_ms(trial.latency_ms.p50)


def taken(trial: TrialRecord) -> bool:
    """Whether other programs used too much of the cores."""
    return trial.others is not None and trial.others.share > OTHERS_ALLOWED


def spoiled(trial: TrialRecord) -> bool:
    """Whether the generator or other programs spoiled a trial, whatever the server did in it; another may go better."""
    return late(trial) or taken(trial)
