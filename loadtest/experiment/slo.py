"""What one trial says of the SLO: the same for the search that chooses its next rate by it and for the analysis."""

from __future__ import annotations

from loadtest.experiment.early_stopping import LONGEST_S, fewest_requests, proven
from loadtest.experiment.records import (
    ArrivalsDropped,
    BoundTooLow,
    NothingAnswered,
    NotProven,
    RequestsFailed,
    SaysNothing,
    SentLate,
    SloMiss,
    TooSlow,
    TrialRecord,
)
from loadtest.experiment.slip import spoiled


def says_nothing(trial: TrialRecord, p99_ms: float) -> SaysNothing | None:
    """Why a trial says nothing of the server; None where it does.

    The generator sent late, or let fewer requests be in flight than a server that just meets the SLO holds (Little
    1961: rate × latency), and so dropped arrivals before the server had missed anything.
    """
    slip = trial.schedule_slip_ms
    if slip and slip.p99 is not None and spoiled(trial):
        return SentLate(slip_p99_ms=slip.p99)
    most, held = trial.max_in_flight, trial.offered_rate * p99_ms / 1000
    if trial.requests.dropped and most is not None and most < held:
        return BoundTooLow(dropped=trial.requests.dropped, max_in_flight=most, held=held)
    return None


def why_missed(trial: TrialRecord, p99_ms: float, error_ratio: float) -> SloMiss | None:
    """Why a trial that says something of the server misses the SLO; None where it meets it.

    It meets `p99_ms` where its requests prove so, by MLPerf's early-stopping criterion (see `early_stopping`), in which
    a request that failed was over the limit. A trial that did not count late answers, or counted them at another limit,
    is judged by its measured percentile alone, and so is one that lasted `LONGEST_S` and could not prove anything.
    """
    p99, requests, failed = trial.latency_ms.p99, trial.requests, sum(trial.errors.values())
    if requests.dropped:
        return ArrivalsDropped(dropped=requests.dropped)
    if failed > error_ratio * requests.sent:
        return RequestsFailed(failed=failed, sent=requests.sent)
    if p99 is None:
        return NothingAnswered()
    if p99 > p99_ms:
        return TooSlow(p99_ms=p99)
    counted = trial.late is not None and trial.slo_p99_ms == p99_ms
    provable = requests.sent >= fewest_requests() or trial.duration_s < LONGEST_S
    over = (trial.late or 0) + failed
    if counted and provable and not proven(over, requests.sent):
        return NotProven(over=over, sent=requests.sent, needed=fewest_requests(over))
    return None
