"""What a reader must know of a whole run, of two runs, and of whether the servers serve one model, in sentences."""

from __future__ import annotations

from datetime import datetime

from loadtest.analysis.records import (
    AnswersDiffer,
    AnswersUnchecked,
    ComparisonWarning,
    ExportDiffers,
    LeftOut,
    MeasuredOnce,
    ModelsDiffer,
    NoCommonRate,
    NoExportParity,
    NotCompared,
    NotFinished,
    NotItsOwnBackend,
    NotMeasured,
    ParityNotProven,
    PrecisionsDiffer,
    SlosDiffer,
    StandIn,
    SummaryWarning,
    TrialsMissing,
    WhyNotProven,
)
from loadtest.experiment.records import (
    BusyMachine,
    ClockSet,
    CpuQuota,
    DifferentNodes,
    FewFiles,
    GeneratorReplaced,
    GpuLost,
    NoPrometheus,
    NotPinned,
    NotReadable,
    ProxyNotUsed,
    ProxyUsed,
    RateLimited,
    Remark,
    Resumed,
    ServerNotSeen,
    ServerReplaced,
    ServerRestarted,
    StoodIn,
    Unread,
    WakesLate,
)
from loadtest.report import machine_words, wording
from serving.engines import registry
from serving.replaced import Successor
from serving.runtimes.process import obtain_words
from serving.target import Caveat


def warning(item: SummaryWarning) -> str:  # noqa: PLR0912, PLR0915 - one sentence for each kind of warning
    """What a reader of a run must know."""
    match item:
        case Remark():
            told = item.text
        case Resumed():
            told = f"interrupted and resumed at {datetime.fromtimestamp(item.at):%Y-%m-%d %H:%M:%S}"
        case ClockSet():
            how = "forward, or the machine slept" if item.step_s > 0 else "back"
            until, seconds = datetime.fromtimestamp(item.at), wording.number(abs(item.step_s))
            told = (
                f"before {until:%H:%M:%S} the clock was set {seconds} s {how}: "
                "latencies do not depend on it, but servers' own figures of that time may be missing"
            )
        case WakesLate():
            told = (
                f"before any load this machine woke a process {item.p99_ms:.1f} ms late (p99): others use it too, and "
                f"schedules cannot be kept to {item.allowed_ms:g} ms, so measurements may be invalid"
            )
        case NoPrometheus():
            told = "Prometheus is not installed: no server-side metrics (apt-get install prometheus)"
        case RateLimited():
            told = f"no more than {wording.number(item.most)} requests/s were to be sent, whatever the servers could do"
        case ProxyNotUsed():
            told = (
                f"{wording.isolated(item.variable)} names a proxy; the load went past it, straight to "
                f"{wording.listed([wording.target_name(one) for one in item.targets])}"
            )
        case ProxyUsed():
            told = (
                f"the load on {wording.listed([wording.target_name(one) for one in item.targets])} went through the "
                f"proxy {_named(item.proxy)}, as asked: their figures are the proxy’s, too"
            )
        case NotPinned():
            told = "server and load generator are not pinned to cores of their own"
        case BusyMachine():
            told = (
                f"before any load other programs used this machine’s CPUs: {machine_words.used(item.share, item.by)}; "
                f"beyond {wording.share(item.allowed)} trials are repeated, then not valid: end them, or wait"
            )
        case CpuQuota():
            told = (
                f"a control group allows programs here {wording.number(item.cpus)} CPUs’ time on {item.of} CPUs: "
                "trials in which it stops them are not valid"
            )
        case FewFiles():
            told = (
                f"this user may open {wording.count(item.allowed)} files at most, and the experiment may need "
                f"{wording.count(item.needed)}: raise the hard limit (ulimit -Hn), or lower generator.max_in_flight"
            )
        case ServerNotSeen():
            told = _not_seen(item)
        case DifferentNodes():
            told = "the servers ran on different types of nodes: make deploy ARGS=--node-type=… makes them the same"
        case ServerRestarted():
            died = datetime.fromtimestamp(item.died_at)
            told = (
                f"{item.engine} died at {died:%H:%M:%S} (exit status {item.exit_status}) and answered again after "
                f"{item.gap_s} s"
            )
        case GpuLost():
            told = _lost(item)
        case ServerReplaced():
            told = _replaced(item)
        case GeneratorReplaced():
            at = datetime.fromtimestamp(item.at)
            told = (
                f"{wording.target_name(item.target)}: the load generator was replaced at {at:%H:%M:%S}, during "
                f"{_start(item.start)}: what it had not sent home by then was measured again"
            )
        case NotReadable():
            left_out = [UNREAD[one] for one in item.what]
            told = f"not known, as this user may not read it in the cluster: {wording.listed(left_out)}"
        case StoodIn():
            told = _stood_in(item)
        case NotMeasured():
            told = f"{wording.target_name(item.target)} has no measurement in this run"
        case StandIn():
            server = f"{wording.product(item.engine)} {wording.isolated(item.engine_version or '')}".strip()
            told = (
                f"{wording.target_name(item.target)} ({server}) is a stand-in inside this project, not "
                f"{wording.product(item.stands_in_for)}{_because(item)}: its speed says little about the production "
                "server"
            )
        case NotItsOwnBackend():
            told = (
                f"{wording.target_name(item.target)}: behind {wording.product(item.engine)} computed its "
                f"{wording.backend(item.backend)}, not its {item.backend.instead_of} backend: its speed says little "
                "about that one"
            )
        case TrialsMissing() | NotFinished():
            told = _incomplete(item)
        case MeasuredOnce():
            told = "each server was started once: intervals cover time within a trial, not how far starts lie apart"
        case ParityNotProven():
            told = f"model parity is not proven: {doubt(item.why)}"
    return told


def _not_seen(item: ServerNotSeen) -> str:
    """A server of this machine that this user cannot see."""
    through = wording.isolated(item.forwarder)
    why = f"{through} passes its requests on" if item.forwarder else "its process is another user’s, or in a container"
    return (
        f"{wording.target_name(item.target)} is on this machine (at {wording.isolated(item.address)}), and this user "
        f"cannot see where, since {why}: the cores that it keeps to, and who else is at work on them, are not known; "
        "run as root, or give the server’s own address"
    )


def _lost(item: GpuLost) -> str:
    since, name = f"{datetime.fromtimestamp(item.at):%H:%M:%S}", wording.isolated(item.gpu)
    return (
        f"from {since} on the GPU ({name}) did not answer any more: its figures end there (nvidia-smi, and dmesg for "
        "Xid, say why)"
    )


UNREAD = {
    Unread.NODES: "what the nodes are (their type, GPU, kernel and container runtime)",
    Unread.PODS: "which pods of other namespaces ran beside the servers",
    Unread.EXEC: "how often CPU limits stopped the servers",
}
_SUCCESSORS = {
    Successor.POD: "its pod is another one",
    Successor.CONTAINER: "its container is another one, or was started anew",
    Successor.PROCESS: "another process listens at its address",
    Successor.WORKER: "a process that it computes in is another one",
}


def _replaced(item: ServerReplaced) -> str:
    """That a server was another one, and what came of it."""
    causes = [wording.isolated(item.reason)] if item.reason else []
    causes += [] if item.exit_status is None else [f"exit status {item.exit_status}"]
    why = f" ({', '.join(causes)})" if causes else ""
    told = (
        f"{wording.target_name(item.target)}: the server was replaced at {datetime.fromtimestamp(item.at):%H:%M:%S}: "
        f"{_SUCCESSORS[item.what]}{why}"
    )
    if item.start is None:
        return f"{told}; no load was on it, and its successor was proven like it"
    return (
        f"{told}; {_start(item.start)} was repeated from its beginning, and what it had measured by then is kept in "
        "replaced/, out of the results"
    )


def _start(number: int) -> str:
    return f"start {number}" if number else "the probe"


def _stood_in(item: StoodIn) -> str:
    """Before a run: what stands in for what, why, and what the user can do."""
    product, stand_in = wording.product(item.engine), wording.product(item.stand_in)
    engine = registry.find(item.engine)
    remedy = f"; {obtain_words.remedy(item.reason, engine)}" if engine else ""
    why = obtain_words.why(item.reason, wording.isolated(item.detail))
    return f"{stand_in} stands in for {product}, since {why}{remedy}"


def _because(item: StandIn) -> str:
    """Why the production server was not measured, in brackets."""
    return f" ({obtain_words.why(item.reason, wording.isolated(item.detail))})" if item.reason else ""


def _incomplete(item: TrialsMissing | NotFinished) -> str:
    if isinstance(item, TrialsMissing):
        return f"{item.missing} of {item.planned} planned trials are missing: the run is not complete"
    return f"the run is not complete: it was stopped after {item.starts} starts of each server"


def doubt(why: WhyNotProven) -> str:
    """Why it is not proven that all targets serve the same model."""
    match why:
        case AnswersUnchecked():
            told = "any answer that was no error counted as right, and none was compared with another"
        case NoExportParity():
            told = "the bundle's manifest holds no parity figures"
        case NotCompared():
            told = f"the answers of {_answers(why)} were not compared with the reference"
        case ExportDiffers():
            told = f"the {why.export} export {_differs(why)}"
        case AnswersDiffer():
            told = f"{_answers(why)} {_differs(why)}"
    return "".join(f"{prefix}: " for prefix in (why.run, why.model) if prefix) + told


def _answers(why: NotCompared | AnswersDiffer) -> str:
    return f"{wording.target_name(why.target)} over {wording.protocol(why.protocol)}"


def _differs(why: ExportDiffers | AnswersDiffer) -> str:
    return f"differs from the reference by {why.difference}, more than {why.allowed:g}"


def _named(proxy: str) -> str:
    shown = wording.isolated(proxy)
    return shown if "//" in proxy else f"that {shown} names"


CAVEATS = {
    Caveat.KEPT_UP: "It was up before and stays up: what differs between starts of it is not in its intervals.",
    Caveat.DOCKER_PROXY: "It is in a container and not asked at its own address: requests pass through Docker’s proxy.",
    Caveat.PROXY: "It was reached through a proxy, as asked: its figures are the proxy’s, too.",
}


def caveat(item: Caveat) -> str:
    """What is not as it seems with a target's figures."""
    return CAVEATS[item]


def of_two_runs(item: ComparisonWarning, baseline: str) -> str:
    """What a reader of two runs must know; ``baseline``: the folder's name."""
    match item:
        case NoCommonRate():
            return (
                f"{wording.target_name(item.target)} was measured at no rate that both runs share, so only the highest "
                "rates within the SLO can be compared; to repeat the baseline’s rates: "
                f"make compare EXPERIMENT=results/{baseline}/experiment.toml"
            )
        case LeftOut():
            name = wording.shorten(wording.target_name(item.target))
            return f"{name} was not measured in both runs and is left out"
        case SlosDiffer():
            return "the runs had different SLOs: both are judged by this run’s"
        case ModelsDiffer():
            return "the runs served different model files: what is compared is not the server alone"
        case PrecisionsDiffer():
            return (
                f"what is compared of {wording.shorten(wording.target_name(item.target))} is precision: the baseline "
                f"computed in {item.baseline}, this run in {item.this}"
            )
