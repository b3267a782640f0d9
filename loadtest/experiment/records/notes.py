"""What a reader of a run's results should know of it: `warnings` of environment.json."""

from __future__ import annotations

import enum

from loadtest.experiment.records.record import Record
from loadtest.experiment.records.trial import OtherProcess
from serving.replaced import Successor
from serving.target import WhyStandIn


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
    """A server under load died and came back: a gap of `gap_s` seconds. In runs of before `ServerReplaced`, which went
    on all the same."""

    target: str
    engine: str
    died_at: float
    gap_s: float
    exit_status: int


class ServerReplaced(Record, frozen=True, kw_only=True, tag="server-replaced"):
    """A target's server was another one from `at` on: nothing that was measured on it counts.

    what                 is another one
    start                during which start's load (0: the probe's): it was repeated from its beginning, and what it had
                         measured put aside; None: between two starts, so that nothing was lost
    reason, exit_status  of the one before, in the words of whoever ended it, where they are known
    """

    at: float
    target: str
    engine: str
    what: Successor
    start: int | None = None
    reason: str = ""
    exit_status: int | None = None


class GeneratorReplaced(Record, frozen=True, kw_only=True, tag="generator-replaced"):
    """The load generator was replaced at `at`, during the load of a target's start (0: the probe's): what had come home
    was kept, the rest was measured again."""

    at: float
    target: str
    start: int


class Unread(enum.Enum):
    """What a user without the right to it leaves out.

    NODES         instance type, GPU model, kernel, container runtime and capacity of the servers' nodes
    PODS          pods of other namespaces on those nodes
    EXEC          how often the servers' pods were stopped because their CPU limit was spent
    """

    NODES = "nodes"
    PODS = "pods"
    EXEC = "exec"


class NotReadable(Record, frozen=True, kw_only=True, tag="not-readable"):
    """What this user may not read in the cluster, so that environment.json lacks what only that tells."""

    what: tuple[Unread, ...]


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
    | ServerReplaced
    | GeneratorReplaced
    | NotReadable
    | GpuLost
    | StoodIn
    | Remark
)
"""What a reader of a run's results should know of it. In environment.json, `warnings`."""
