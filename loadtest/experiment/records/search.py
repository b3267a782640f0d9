"""search.json: a search for a capacity, and why its trials missed."""

from __future__ import annotations

from loadtest.experiment.own_errors import Lack
from loadtest.experiment.records.record import Record
from loadtest.experiment.records.trial import FirstError, OtherProcess, ServerOutOfFiles
from loadtest.experiment.staircase import Try


class SentLate(Record, frozen=True, kw_only=True, tag="sent-late"):
    """The generator sent late, so the trial says nothing of the server."""

    slip_p99_ms: float


class BoundTooLow(Record, frozen=True, kw_only=True, tag="bound-too-low"):
    """Arrivals were dropped at a bound on requests in flight below what a server that just meets the SLO holds
    (`held`), so the trial says nothing of the server."""

    dropped: int
    max_in_flight: int
    held: float


class CoresTaken(Record, frozen=True, kw_only=True, tag="cores-taken"):
    """Other programs used so large a share of the cores' time that the trial says nothing of the server."""

    share: float
    by: tuple[OtherProcess, ...] = ()


class HeldUp(Record, frozen=True, kw_only=True, tag="held-up"):
    """A control group held the generator up, so the trial says nothing of the server."""

    periods: int
    seconds: float


class OutOf(Record, frozen=True, kw_only=True, tag="out-of"):
    """So many requests failed because the generator's own machine had none of this left."""

    lack: Lack
    requests: int


class ArrivalsDropped(Record, frozen=True, kw_only=True, tag="arrivals-dropped"):
    """Arrivals were dropped: too many requests were in flight."""

    dropped: int


class RequestsFailed(Record, frozen=True, kw_only=True, tag="requests-failed"):
    """More requests failed than the SLO allows."""

    failed: int
    sent: int
    first_error: FirstError | None = None


class NothingAnswered(Record, frozen=True, kw_only=True, tag="nothing-answered"):
    """No request was answered rightly."""


class TooSlow(Record, frozen=True, kw_only=True, tag="too-slow"):
    """The 99th percentile of latency is above the SLO's."""

    p99_ms: float


class NotProven(Record, frozen=True, kw_only=True, tag="not-proven"):
    """The measured 99th percentile is within the SLO, but so many requests took longer, or failed (`over`), that those
    that were sent do not prove it (see `early_stopping`); `needed` requests with no more of them over would."""

    over: int
    sent: int
    needed: int


SaysNothing = SentLate | BoundTooLow | CoresTaken | HeldUp | OutOf | ServerOutOfFiles
"""Why a trial says nothing of the server."""

SloMiss = ArrivalsDropped | RequestsFailed | NothingAnswered | TooSlow | NotProven
"""Why a trial that says something of the server misses the SLO."""


class SearchStep(Record, frozen=True, kw_only=True):
    """A trial of a search. `why_not`: why it did not meet the SLO, or (`spoiled`) says nothing of the server; None
    where it met it, and in older files, which had words."""

    trial: str = ""
    rate: float
    p99_ms: float | None = None
    met: bool
    why_not: SaysNothing | SloMiss | None = None
    spoiled: bool = False


class SearchRecord(Record, frozen=True, kw_only=True):
    """A capacity search on one started server.

    centre  requests/s around which the capacity was expected; 0 in files of older searches, which had none
    rate    the capacity that its trials point to, requests/s, and `sd`, how sure that is on a log scale; None where no
            trial says anything
    steps   its trials in their order, and `tries`: what those of them say that say something
    """

    id: str = ""
    target: str
    protocol: str
    repetition: int = 1
    centre: float = 0.0
    rate: float | None = None
    sd: float | None = None
    seconds: float = 0.0
    steps: tuple[SearchStep, ...] = ()
    tries: tuple[Try, ...] = ()
