"""trial.json: one trial on one target."""

from __future__ import annotations

from loadtest.experiment.arrival_shape import Shape
from loadtest.experiment.records.record import Errors, Record


class Requests(Record, frozen=True, kw_only=True):
    """How many were due, sent, answered in whatever way, answered rightly, and never sent (too many in flight)."""

    scheduled: int = 0
    sent: int = 0
    completed: int = 0
    ok: int = 0
    dropped: int = 0


class MedianAndTail(Record, frozen=True, kw_only=True):
    """Two percentiles in milliseconds; None where there was no value."""

    p50: float | None = None
    p99: float | None = None


class Latency(Record, frozen=True, kw_only=True):
    """Percentiles of right answers from due time, in milliseconds; None where there was none."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None


class Slip(Record, frozen=True, kw_only=True):
    """How late requests were sent, in milliseconds; None where none was sent."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class ArrivalsCheck(Record, frozen=True, kw_only=True):
    """The gaps between requests really sent against those of the arrival process that was asked for.

    gaps       how many
    statistic  Poisson arrivals: Anderson and Darling's A² against the exponential distribution of the offered rate
    distance   how far they lie apart: A² for each gap; for constant arrivals, what a gap is off by in the mean, as a
               share of it
    allowed    the largest distance of arrivals that count as what was asked for
    ok         the distance is allowed, or may well be chance
    """

    gaps: int
    statistic: float | None = None
    distance: float
    allowed: float
    ok: bool


class ServerDied(Record, frozen=True, kw_only=True, tag="server-died"):
    """Connections failed from `after_s` seconds into the trial on, and no request was answered any more; `lost` of them
    failed to connect or lost their connection."""

    after_s: float
    lost: int


class ConnectionsLost(Record, frozen=True, kw_only=True, tag="connections-lost"):
    """Connections failed first `after_s` seconds into the trial, and others were answered after that; `lost` of them
    failed to connect or lost their connection."""

    after_s: float
    lost: int


class ServerOutOfFiles(Record, frozen=True, kw_only=True, tag="server-out-of-files"):
    """The server's log says so often that it had no file descriptor left."""

    times: int


TrialNote = ServerDied | ConnectionsLost | ServerOutOfFiles
"""What happened in a trial besides its figures. Lost connections are a caution; the others make the trial invalid."""


class SpoiledAttempt(Record, frozen=True, kw_only=True):
    """An attempt at a trial that the generator spoiled by sending late, or other programs by using its cores (`others`:
    that share of their time); it is kept in `spoiled/<folder>`."""

    folder: str
    schedule_slip_ms: Slip = Slip()
    others: float | None = None


class OtherProcess(Record, frozen=True, kw_only=True):
    """A program that is not of the run, or several of one name: the number of one of its processes, and how many CPUs
    it used in the mean."""

    name: str
    pid: int
    cpus: float


class OtherUse(Record, frozen=True, kw_only=True):
    """What others used of the cores of a trial: shares of the time of the server's and of the generator's that neither
    used, with what the machine's host gave to others; None where that cannot be told. `by`: the programs that used
    most, on whichever cores."""

    server: float | None = None
    generator: float | None = None
    by: tuple[OtherProcess, ...] = ()

    @property
    def share(self) -> float:
        """The larger of the shares."""
        return max(self.server or 0.0, self.generator or 0.0)


class Throttling(Record, frozen=True, kw_only=True):
    """How often control groups stopped who is in them until the next period, and for how many seconds."""

    periods: int
    seconds: float


class FirstError(Record, frozen=True, kw_only=True):
    """The first answer of a trial that was an error: its kind, when it came, in seconds from the trial's beginning,
    and what it said, on one line."""

    kind: str
    after_s: float
    said: str


class ModelShare(Record, frozen=True, kw_only=True):
    """What a trial measured of one of several models; `share` of all requests were to be for it."""

    share: float
    requests: Requests
    errors: Errors = {}
    latency_ms: MedianAndTail = MedianAndTail()


class TrialRecord(Record, frozen=True, kw_only=True):
    """One trial on one target: what was asked, and what came back.

    target           what the experiment calls it; `engine` and `engine_version`: what that was
    offered_rate     requests/s of an open loop, 0 for a closed one, whose `concurrency` says how many were in flight
    arrivals         where the process (`arrival`) is more than a rate
    planned_s        longer than `duration_s`, where a search gave it up: its p99 could not meet twice the SLO any more
    errors           by kind; a request that failed is in `requests.sent` all the same
    late             right answers that took longer than `slo_p99_ms`; None where no SLO was known, and in older files
    schedule_slip_ms None: not recorded, so that the generator proves nothing
    arrivals_check   None: neither Poisson nor constant arrivals, or not all of them were sent
    checked, wrong   answers compared with the reference, and those of them that differed
    generator_cpu    share of a core that the busiest worker used, and `generator_cpus` all of them together
    cpu_stolen       the largest share of CPU time that its host gave to others
    others           what other programs used of the cores; None: not known
    throttled        where the generator's control groups held it up; `server_throttled`: the server's own ones
    first_error      None: no answer was an error, or none said anything
    warm_up          the id of the warm-up before it
    spoiled          attempts before this one that the generator spoiled
    by_model         where the requests were for several models
    """

    id: str = ""
    target: str
    engine: str = ""
    engine_version: str = ""
    protocol: str
    scenario: str = "ladder"
    offered_rate: float
    arrival: str = "poisson"
    max_in_flight: int | None = None
    arrivals: Shape | None = None
    concurrency: int | None = None
    repetition: int = 1
    seed: int = 0
    batch: int = 1
    duration_s: float
    planned_s: float | None = None
    lead_in_s: float = 0.0
    requests: Requests
    errors: Errors = {}
    latency_ms: Latency = Latency()
    slo_p99_ms: float | None = None
    late: int | None = None
    schedule_slip_ms: Slip | None = None
    arrivals_check: ArrivalsCheck | None = None
    in_flight_max: int | None = None
    checked: int = 0
    wrong: int = 0
    generator_cpu: float | None = None
    generator_cpus: float | None = None
    cpu_stolen: float | None = None
    others: OtherUse | None = None
    throttled: Throttling | None = None
    server_throttled: Throttling | None = None
    first_error: FirstError | None = None
    warm_up: str | None = None
    started_at: float = 0.0
    ended_at: float = 0.0
    workers: int = 1
    notes: tuple[TrialNote, ...] = ()
    spoiled: tuple[SpoiledAttempt, ...] = ()
    by_model: dict[str, ModelShare] | None = None
