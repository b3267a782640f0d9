"""What a run leaves on disk, typed: trial.json, warm-up.json, search.json, server.json and environment.json.

Generator and run write these records with `encode`, and whoever reads a run does it with `read_…`. Keys are the fields'
names; those that `_OPTIONAL` names are left out where they are None. Times are Unix seconds where a name ends in `_at`;
latencies and slips are milliseconds, rates are requests/s.
"""

from __future__ import annotations

import enum
import json
import re
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from loadtest.experiment.arrival_shape import Shape
from loadtest.experiment.meter_records import DeviceUse, GpuMemory, Gpus, IdlePower
from loadtest.experiment.own_errors import Lack
from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.staircase import Try
from models.problem import Problem
from serving.target import WhyStandIn

Errors = dict[str, int]
"""How often each kind of error was seen."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """Something that stands in a file. Unknown keys of a newer version are ignored."""


# --- trial.json -------------------------------------------------------------------------------------------------------


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


# --- warm-up.json -----------------------------------------------------------------------------------------------------


class Window(Record, frozen=True, kw_only=True):
    """A stretch of a warm-up that ended `t` seconds after its start."""

    t: float
    rate: float
    p50_ms: float | None = None


class Settling(Record, frozen=True, kw_only=True):
    """The open load after a warm-up's closed loop: its rate, the median latency of each chunk, whether those agreed in
    the end, and how many seconds it took."""

    rate: float
    p50_ms: tuple[float | None, ...] = ()
    settled: bool
    seconds: float


class WarmUpAttempt(Record, frozen=True, kw_only=True):
    """A closed loop until windows agreed (`steady`) or its cap came (`reached_cap`), with what the last windows say of
    the server: `throughput` and `latency_ms`."""

    id: str = ""
    protocol: str
    steady: bool = True
    reached_cap: bool = False
    seconds: float = 0.0
    concurrency: int = 0
    windows: tuple[Window, ...] = ()
    throughput: float
    latency_ms: MedianAndTail = MedianAndTail()
    requests: int = 0
    errors: Errors = {}


class WarmUpRecord(WarmUpAttempt, frozen=True, kw_only=True):
    """A warm-up: its last attempt, those before that did not get steady, and the open load after it."""

    target: str
    unsteady_attempts: tuple[WarmUpAttempt, ...] | None = None
    settling: Settling | None = None


# --- search.json ------------------------------------------------------------------------------------------------------


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


# --- decisions.json ---------------------------------------------------------------------------------------------------


class DecidedQuestion(Record, frozen=True, kw_only=True):
    """How a question stood when the run looked last (see `loadtest.experiment.decision`)."""

    metric: Metric
    family: Family
    protocol: str
    compared: tuple[str, str]
    rate: float
    starts: int
    decided: bool
    p_adjusted: float


class Decisions(Record, frozen=True, kw_only=True):
    """After how many starts of each target a run looks, and how its questions stand; `over`: when it has ended."""

    looks: tuple[int, ...]
    over: bool = False
    questions: tuple[DecidedQuestion, ...] = ()


# --- server.json ------------------------------------------------------------------------------------------------------


class ModelLatency(Record, frozen=True, kw_only=True):
    """What a server says of one of several models' latency, in milliseconds."""

    p50: float | None = None
    p99: float | None = None
    mean: float | None = None


class ServerFigures(Record, frozen=True, kw_only=True):
    """What a server says of a trial; None where its engine does not tell.

    throughput       requests/s; batch sizes are images, times milliseconds
    latency_ms       of one model; of several, quantiles are in `by_model` alone: they do not add up
    latency_meaning  which part of a request's time the engine counts
    source           who was asked
    """

    throughput: float | None = None
    latency_ms: MedianAndTail = MedianAndTail()
    latency_ms_mean: float | None = None
    by_model: dict[str, ModelLatency] | None = None
    latency_meaning: str = ""
    batch_size_mean: float | None = None
    compute_ms_mean: float | None = None
    queue_ms_mean: float | None = None
    source: str = ""


# --- wire-parity.json -------------------------------------------------------------------------------------------------


class RightAnswers(enum.Enum):
    """Which answers count as right in a run.

    REFERENCE  those of eager PyTorch, which the bundle brings
    FIRST      those of the first target, before any load
    RECORDED   those of a file
    ANY        all that are no errors: nothing shows that the targets serve one model
    """

    REFERENCE = "reference"
    FIRST = "first"
    RECORDED = "recorded"
    ANY = "any"


# --- environment.json -------------------------------------------------------------------------------------------------


class Resumed(Record, frozen=True, kw_only=True, tag="resumed"):
    """The run was interrupted, and went on then."""

    at: float


class ClockSet(Record, frozen=True, kw_only=True, tag="clock-set"):
    """During load that ended at `at` the wall clock was set by `step_s` seconds (negative: back), or the machine slept
    for so long."""

    at: float
    step_s: float


class WakesLate(Record, frozen=True, kw_only=True, tag="wakes-late"):
    """Before any load the generator's machine woke a process later than a schedule may slip."""

    p99_ms: float
    allowed_ms: float


class NoPrometheus(Record, frozen=True, kw_only=True, tag="no-prometheus"):
    """Prometheus is not installed: no server-side figures."""


class NotPinned(Record, frozen=True, kw_only=True, tag="not-pinned"):
    """Server and generator have no cores of their own."""


class BusyMachine(Record, frozen=True, kw_only=True, tag="busy-machine"):
    """Before any load other programs used so large a share of the machine's CPU time; `by`: those that used most."""

    share: float
    allowed: float
    by: tuple[OtherProcess, ...] = ()


class CpuQuota(Record, frozen=True, kw_only=True, tag="cpu-quota"):
    """A control group allows the programs here so many CPUs' time, and they have so many CPUs."""

    cpus: float
    of: int


class FewFiles(Record, frozen=True, kw_only=True, tag="few-files"):
    """The user may open so many files at most (the hard limit), and the experiment may need more."""

    allowed: int
    needed: int


class ServerNotSeen(Record, frozen=True, kw_only=True, tag="server-not-seen"):
    """A target answers at an `address` of this machine, and its process cannot be seen, so that nothing is known of the
    cores that it keeps to, nor of other programs on them. `forwarder`: the program that passes its requests on, where
    that is why; empty: the process is another user's, or the kernel passes them on."""

    target: str
    address: str
    forwarder: str = ""


class RateLimited(Record, frozen=True, kw_only=True, tag="rate-limited"):
    """At most so many requests/s were to be sent, also by probes and searches (`generator.most_rate`)."""

    most: float


class ProxyNotUsed(Record, frozen=True, kw_only=True, tag="proxy-not-used"):
    """The environment names a proxy by which other programs would reach these endpoints; the load went past it."""

    variable: str
    targets: list[str]


class ProxyUsed(Record, frozen=True, kw_only=True, tag="proxy-used"):
    """These endpoints were reached through a proxy, as their user asked. ``proxy``: its address, or the variable of the
    environment that names it."""

    proxy: str
    targets: list[str]


class DifferentNodes(Record, frozen=True, kw_only=True, tag="different-nodes"):
    """The servers ran on different types of nodes."""


class ServerRestarted(Record, frozen=True, kw_only=True, tag="server-restarted"):
    """A server under load died and came back: a gap of `gap_s` seconds."""

    target: str
    engine: str
    died_at: float
    gap_s: float
    exit_status: int


class GpuLost(Record, frozen=True, kw_only=True, tag="gpu-lost"):
    """From `at` on the GPU of this name did not answer any more: it fell off the bus, or must be reset."""

    at: float
    gpu: str


class StoodIn(Record, frozen=True, kw_only=True, tag="stood-in"):
    """The own program of `engine` was not at hand, and `stand_in` ran in its place; `detail`: what the system or a
    registry said of that."""

    engine: str
    stand_in: str
    reason: WhyStandIn
    detail: str = ""


class Remark(Record, frozen=True, kw_only=True, tag="remark"):
    """A sentence of a run of the previous format."""

    text: str


RunNote = (
    Resumed
    | ClockSet
    | WakesLate
    | NoPrometheus
    | NotPinned
    | BusyMachine
    | CpuQuota
    | FewFiles
    | ServerNotSeen
    | RateLimited
    | ProxyNotUsed
    | ProxyUsed
    | DifferentNodes
    | ServerRestarted
    | GpuLost
    | StoodIn
    | Remark
)
"""What a reader of a run's results should know of it. In environment.json, `warnings`."""


class Lateness(Record, frozen=True, kw_only=True):
    """How late the machine woke a process before any load, milliseconds."""

    p50: float | None = None
    p99: float | None = None
    max: float | None = None


class Node(Record, frozen=True, kw_only=True):
    """The node of a cluster that a target's server ran on."""

    node: str | None = None
    instance_type: str | None = None
    gpu: str | None = None
    capacity: dict[str, str] = {}
    kernel: str | None = None
    kubelet: str | None = None
    image: str | None = None


class Environment(Record, frozen=True, kw_only=True):
    """Where a run took place; what was not saved is None or empty.

    server_cores, generator_cores  CPUs that each is pinned to; empty: not pinned
    load_average_at_start          over 1, 5 and 15 minutes
    busy_at_start                  the share of its CPUs' time that others used before any load; `busy_by`: who most
    cpus                           the CPUs that programs may use here; `cpu_quota`: and of their time so many CPUs'
                                   worth, None: all of it
    open_files                     how many files a program may have open
    prometheus                     its version, None where it did not watch the run
    order                          the targets in the order in which their servers were started
    nodes                          target → its node, in a cluster
    gpus                           of the servers' machine, where one of them computes on a GPU; `gpu_memory`: target →
                                   what it was expected to have of the GPU's memory
    idle                           what the meters of energy said before any server ran; None where there are none
    """

    cpu_model: str | None = None
    cpu_count: int | None = None
    memory_bytes: int | None = None
    os: str | None = None
    kernel: str | None = None
    python: str | None = None
    libraries: dict[str, str] = {}
    git_commit: str | None = None
    started_at: float | None = None
    finished_at: float | None = None
    load_average_at_start: tuple[float, ...] = ()
    busy_at_start: float | None = None
    busy_by: tuple[OtherProcess, ...] = ()
    cpus: tuple[int, ...] = ()
    cpu_quota: float | None = None
    open_files: int | None = None
    generator_priority: str | None = None
    wake_up_lateness_ms: Lateness | None = None
    server_cores: tuple[int, ...] = ()
    generator_cores: tuple[int, ...] = ()
    prometheus: str | None = None
    order: tuple[str, ...] = ()
    cluster: str | None = None
    nodes: dict[str, Node] = {}
    gpus: Gpus | None = None
    gpu_memory: dict[str, GpuMemory] = {}
    idle: IdlePower | None = None
    warnings: tuple[RunNote, ...] = ()


# --- reading and writing ----------------------------------------------------------------------------------------------

_OPTIONAL = (
    "max_in_flight",
    "arrivals",
    "concurrency",
    "planned_s",
    "slo_p99_ms",
    "late",
    "arrivals_check",
    "by_model",
    "others",
    "throttled",
    "server_throttled",
    "first_error",
    "unsteady_attempts",
    "settling",
    "gpus",
    "idle",
)
_Kind = TypeVar("_Kind", bound=msgspec.Struct)


def values_of(record: msgspec.Struct) -> dict[str, Any]:
    """A record as plain values, as they stand in its file."""
    values: dict[str, Any] = msgspec.to_builtins(record)
    return {key: value for key, value in values.items() if value is not None or key not in _OPTIONAL}


def encode(record: msgspec.Struct) -> str:
    """A record as its file's text."""
    return json.dumps(values_of(record), indent=2) + "\n"


def read_trial(path: Path) -> TrialRecord:
    """A trial.json. Raises `Problem` naming the file where it is missing, damaged or lacks a key."""
    return _read(path, TrialRecord, "delete the folder and run again to repeat the trial")


def read_warm_up(path: Path) -> WarmUpRecord:
    """A warm-up.json. Raises `Problem` naming the file where it is missing, damaged or lacks a key."""
    return _read(path, WarmUpRecord, "run the experiment again")


def read_search(path: Path) -> SearchRecord:
    """A search.json. Raises `Problem` naming the file where it is missing, damaged or lacks a key."""
    return _read(path, SearchRecord, "delete the folder and run again to repeat the search")


def read_server(path: Path) -> ServerFigures:
    """A server.json. Raises `Problem` naming the file where it is missing, damaged or lacks a key."""
    return _read(path, ServerFigures, "delete it and build the report again")


def read_use(path: Path) -> DeviceUse | None:
    """A devices.json; None where there is none. Raises `Problem` naming the file where it is damaged."""
    return _read(path, DeviceUse, "delete it and build the report again") if path.exists() else None


def read_decisions(path: Path) -> Decisions | None:
    """A decisions.json; None where there is none. Raises `Problem` naming the file where it is damaged."""
    return _read(path, Decisions, "run the experiment again") if path.exists() else None


def read_environment(path: Path) -> Environment | None:
    """An environment.json; None where there is none. Raises `Problem` naming the file where it is damaged."""
    return _read(path, Environment, "run the experiment again") if path.exists() else None


def _read(path: Path, kind: type[_Kind], fix: str) -> _Kind:
    try:
        values = json.loads(path.read_text())
        return msgspec.convert(_current(values), kind)
    except msgspec.ValidationError as error:
        raise Problem(f"{path}: {error}; {fix}") from error
    except ValueError as error:
        raise Problem(f"{path}: not valid JSON ({error}); {fix}") from error
    except OSError as error:
        raise Problem(f"{path}: cannot be read ({error.strerror}); {fix}") from error


# Until summary format 2 notes were sentences; these are the two that trials had.
_SPOKEN = re.compile(r"the server (died or became unreachable|refused or closed connections) ([\d.]+) s [^:]*: (\d+) ")


_CORES = ("server_cores", "generator_cores", "load_average_at_start")


def _current(values: Any) -> Any:
    """Values of an older file as those of today's."""
    if not isinstance(values, dict):
        return values
    found = dict(values)
    for key in ("latency_ms", "errors", "notes", "spoiled", "libraries", "nodes", "order", *_CORES):
        if key in found and found[key] is None:
            del found[key]
    if "warnings" in found:
        told = found["warnings"] or ()
        found["warnings"] = [{"type": "remark", "text": one} if isinstance(one, str) else one for one in told]
    if any(isinstance(note, str) for note in found.get("notes", ())):
        found["notes"] = [_note(note) for note in found["notes"]]
    if "steps" in found:
        steps = [one if not isinstance(one.get("why_not"), str) else {**one, "why_not": None} for one in found["steps"]]
        found["steps"] = steps
    return found


def _note(note: Any) -> Any:
    spoken = _SPOKEN.match(note) if isinstance(note, str) else None
    if spoken is None:
        return note
    tag = "server-died" if spoken[1].startswith("died") else "connections-lost"
    return {"type": tag, "after_s": float(spoken[2]), "lost": int(spoken[3])}
