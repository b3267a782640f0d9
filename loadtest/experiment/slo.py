"""What one trial says of the SLO: the same for the search that chooses its next rate by it and for the analysis."""

from __future__ import annotations

from loadtest.experiment.early_stopping import LONGEST_S, fewest_requests, proven
from loadtest.experiment.own_errors import lacks
from loadtest.experiment.records import (
    ArrivalsDropped,
    BoundTooLow,
    CoresTaken,
    HeldUp,
    NothingAnswered,
    NotProven,
    OutOf,
    RequestsFailed,
    SaysNothing,
    SentLate,
    ServerOutOfFiles,
    SloMiss,
    TooSlow,
    TrialRecord,
)
from loadtest.experiment.slip import late, taken


def why_spoiled(trial: TrialRecord) -> SentLate | CoresTaken | None:
    """Why a trial is worth repeating, whatever the server did in it; None where it is not (see `slip.spoiled`)."""
    slip = trial.schedule_slip_ms
    if trial.others and taken(trial):
        return CoresTaken(share=trial.others.share, by=trial.others.by)
    if slip and slip.p99 is not None and late(trial):
        return SentLate(slip_p99_ms=slip.p99)
    return None


def says_nothing(trial: TrialRecord, p99_ms: float) -> SaysNothing | None:
    """Why a trial says nothing of the server; None where it does.

    The generator sent late, or was held up, or had no more of something; other programs used the cores; the server had
    no more file descriptors; or fewer requests were let be in flight than a server that just meets the SLO holds
    (Little 1961: rate × latency), so that arrivals were dropped before the server had missed anything.
    """
    for lack, requests in lacks(trial.errors).items():
        return OutOf(lack=lack, requests=requests)
    if trial.throttled:
        return HeldUp(periods=trial.throttled.periods, seconds=trial.throttled.seconds)
    if why := why_spoiled(trial):
        return why
    for note in trial.notes:
        if isinstance(note, ServerOutOfFiles):
            return note
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
        return RequestsFailed(failed=failed, sent=requests.sent, first_error=trial.first_error)
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
