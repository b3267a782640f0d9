"""Why a measurement does not count, or counts with a caution; why a capacity is open; why a part of the time is not
known: each typed reason as a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.analysis.records import (
    ArrivalsDiffer,
    ArrivalsDropped,
    BusyGenerator,
    Caution,
    Decomposition,
    Fault,
    GeneratorOutOf,
    HeldUp,
    Measurement,
    NoAnswer,
    Notice,
    NotSettled,
    OpenEnd,
    OthersOnCores,
    SentLate,
    ServerHeldUp,
    SlipUnknown,
    TrialRepeated,
    UnsteadyWarmUp,
    Untold,
    WarmUpRepeated,
    WhyInvalid,
    WhyOpen,
    WrongAnswers,
)
from loadtest.experiment.records import ConnectionsLost, ServerDied, ServerOutOfFiles
from loadtest.report import machine_words, wording

NOTABLY_STOLEN = 0.01
FEW_SAMPLES = "fewer than ten answers lie beyond this percentile: it is read with care, and not compared"


def of_repetitions(item: Fault | Caution) -> str:
    """A reason, said once with the repetitions that it holds for."""
    told = caution(item.reason) if isinstance(item, Caution) else fault(item.reason)
    return f"{_repetitions(item.repetitions)}{told}"


def _repetitions(numbers: Sequence[int]) -> str:
    if not numbers:
        return ""
    return f"repetition{'s' if len(numbers) > 1 else ''} {wording.listed([str(number) for number in numbers])}: "


def fault(reason: WhyInvalid) -> str:
    """Why a trial does not count."""
    match reason:
        case SlipUnknown():
            told = "the generator did not record its schedule slip, so it cannot prove that it kept its schedule"
        case SentLate():
            told = (
                f"the generator sent late: schedule slip p99 was {wording.milliseconds(reason.slip_p99_ms)}, allowed "
                f"are {wording.setting(round(reason.allowed_ms, 2), 'ms')}"
                f"{_stolen(reason.cpu_stolen)}"
            )
        case ArrivalsDropped():
            told = (
                f"{wording.count(reason.dropped)} arrivals were dropped because "
                f"{wording.count(reason.max_in_flight)} requests were already in flight"
            )
        case WrongAnswers():
            told = f"{wording.count(reason.wrong)} of {wording.count(reason.checked)} checked answers were wrong"
        case ServerDied():
            told = _lost("the server died or became unreachable", reason)
        case OthersOnCores():
            used = machine_words.used(reason.share, reason.by)
            told = (
                f"other programs used the server’s or the generator’s cores: {used}, allowed are "
                f"{wording.share(reason.allowed)}{_stolen(reason.cpu_stolen)}"
            )
        case HeldUp():
            told = f"server and generator were stopped {machine_words.held_up(reason.periods, reason.seconds)}"
        case GeneratorOutOf():
            told = machine_words.out_of(reason.lack, reason.requests)
        case ServerOutOfFiles():
            told = (
                f"the server had no more file descriptors: its log says so {wording.plural(reason.times, 'time')}; "
                "raise the hard limit of its user (ulimit -Hn)"
            )
        case NoAnswer():
            told = "no request was answered correctly, so there is no latency to report"
        case UnsteadyWarmUp():
            cap = wording.seconds(reason.cap_s)
            told = f"the warm-up was not steady when it reached its cap of {cap}, so a warming server was measured"
    return told


def caution(reason: Notice) -> str:
    """What a reader should know of a trial that counts all the same."""
    match reason:
        case ConnectionsLost():
            told = _lost("the server refused or closed connections", reason)
        case TrialRepeated():
            told = f"repeated, because {_spoiled(reason)}; those are kept in spoiled/"
        case WarmUpRepeated():
            told = f"the warm-up was repeated: {wording.plural(reason.attempts, 'attempt')} did not get steady"
        case NotSettled():
            told = "the latency had not settled when the warm-up ended: a server that gets faster yet was measured"
        case BusyGenerator():
            told = f"the generator used {wording.share(reason.share)} of its core"
        case ArrivalsDiffer():
            told = (
                f"the requests did not leave as {reason.process} arrivals: the gaps between them lie "
                f"{reason.distance:.2f} from those (allowed {reason.allowed:g}), so the server met "
                "other bursts than it was to"
            )
        case ServerHeldUp():
            told = f"the server was stopped {machine_words.held_up(reason.periods, reason.seconds)}"
    return told


def _stolen(share: float) -> str:
    told = f" (its host gave {wording.share(share)} of this machine's CPU time to others meanwhile)"
    return told if share >= NOTABLY_STOLEN else ""


def _spoiled(reason: TrialRepeated) -> str:
    late = " and ".join(map(wording.milliseconds, reason.slips_p99_ms))
    others = " and ".join(map(wording.share, reason.others))
    causes = [
        f"the generator sent late before (slip p99 {late})" if late else "",
        f"other programs used its cores before ({others} of their time)" if others else "",
    ]
    return " and ".join(filter(None, causes))


def _lost(what: str, reason: ServerDied | ConnectionsLost) -> str:
    return (
        f"{what} {reason.after_s:.1f} s into the trial: {reason.lost} requests failed to connect or lost their "
        "connection"
    )


def open_end(end: OpenEnd) -> str:
    """Why an end of a capacity's interval is open."""
    rate = wording.rate(end.rate)
    return {
        WhyOpen.NOTHING_VALID: "no trial is valid, so nothing bounds the capacity",
        WhyOpen.NO_RATE_MET: f"no lower bound: no rate from {rate} on met the SLO",
        WhyOpen.NO_RATE_MISSED: f"no upper bound: no rate up to {rate} missed the SLO",
    }[end.why]


def untold(item: Decomposition) -> list[str]:
    """Why parts of a measurement's time are not known."""
    name = wording.target_name(item.target)
    says = {
        Untold.QUEUE: f"{name} does not report how long a request waits for its batch",
        Untold.BATCH: f"{name} does not report how large its batches are, so the model's time is not known",
        Untold.MODEL: item.model_problem or "the model's own time was not measured in this run",
        Untold.UNEVEN: "the model alone took longer than inside the server: this machine was not equally fast twice",
    }
    return [says[why] for why in item.cannot_report]


def errors(item: Measurement) -> str:
    """The errors of a measurement by kind, and what the first answer among them said."""
    kinds = ", ".join(f"{wording.count(count)} × {kind}" for kind, count in item.errors.items())
    first = machine_words.first_error(item.first_error) if item.first_error else ""
    return f"{kinds}; {first}" if kinds and first else kinds or first
