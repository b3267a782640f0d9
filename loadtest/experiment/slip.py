"""How late a generator may send before its measurement says nothing of the server."""

from __future__ import annotations

from loadtest.experiment.records import TrialRecord

SLIP_FLOOR_MS = 1.0
SLIP_SHARE_OF_P50 = 0.05


def allowed_ms(p50_ms: float | None) -> float:
    """The largest schedule slip (p99) of a valid trial: 1 ms, or a twentieth of the median latency if that is more."""
    return max(SLIP_FLOOR_MS, SLIP_SHARE_OF_P50 * (p50_ms or 0))


def spoiled(trial: TrialRecord) -> bool:
    """Whether the generator (or its machine) spoiled a trial by sending late, whatever the server did in it."""
    slip = trial.schedule_slip_ms.p99 if trial.schedule_slip_ms else None
    return slip is not None and slip > allowed_ms(trial.latency_ms.p50)
