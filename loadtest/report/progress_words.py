"""What a run tells of itself while it goes on, in words for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    SearchRecord,
    SentLate,
    ServerOutOfFiles,
    SloMiss,
    TooSlow,
    TrialRecord,
)
from loadtest.experiment.steps import (
    GpuMemoryExpected,
    Looked,
    Noted,
    Probed,
    RatesChosen,
    RateTried,
    Resumed,
    SearchEnded,
    StartingServer,
    Step,
    TimingModel,
    TrialEnded,
    TrialSpoiled,
    UnderLoad,
    WarmingUp,
    WarmUpNotSteady,
)
from loadtest.report import device_words, machine_words, warning_words


def line(step: Step) -> str:  # noqa: PLR0911, PLR0912 - one sentence for each kind of step
    """A step as one line."""
    match step:
        case Noted():
            return f"note: {warning_words.warning(step.note)}"
        case Resumed():
            return f"resume {step.measured} trials are already measured"
        case StartingServer():
            return f"{step.target}: starting its server"
        case TimingModel():
            return f"{step.target}: the model alone, without a server"
        case Probed():
            found = ", ".join(f"{protocol} {rate:,.0f}/s" for protocol, rate in step.throughput.items())
            return f"probe  {step.target}: {found} at {step.concurrency} in flight"
        case WarmingUp():
            return f"{step.target} {step.protocol}: warming up"
        case WarmUpNotSteady():
            label = f"{step.target} {step.protocol}"
            return f"note: {label}: not steady after {step.cap_s:.0f} s of warm-up: not valid"
        case UnderLoad():
            offered = "" if step.offered_rate is None else f"{step.offered_rate:g}/s offered, "
            return f"{step.target} {step.protocol}: {offered}{step.ok}/s ok, p99 {step.p99_ms or 0:.1f} ms"
        case RateTried():
            outcome = reason(step.why_not) if step.why_not else "meets the SLO"
            return f"{step.target} {step.protocol}: capacity: {step.rate:g}/s {outcome}"
        case TrialSpoiled():
            label = f"{step.target} {step.protocol}"
            return f"note: {label}: {_spoiled(step.why)}; the trial is repeated"
        case TrialEnded():
            trial = step.trial
            return f"start {trial.repetition}  {trial.target} {trial.protocol} {_measured(trial)}"
        case SearchEnded():
            search = step.search
            return f"start {search.repetition}  {search.target} {search.protocol} {_searched(search)}"
        case RatesChosen():
            chosen = "; ".join(f"{name} {_listed(rates)}" for name, rates in step.rates.items())
            return f"rates  latency is compared at {chosen} requests/s"
        case GpuMemoryExpected():
            return f"{step.target}: {device_words.expected(step.memory)}"
        case Looked():
            found = f"after {step.starts} starts of each server {step.decided} of {step.asked} questions are decided"
            return f"done   {found}" if step.over else f"look   {found}"


def reason(why: SaysNothing | SloMiss) -> str:  # noqa: PLR0911 - one phrase for each kind
    """Why a rate that a search tried did not meet the SLO, or says nothing of the server."""
    match why:
        case SentLate():
            return f"the generator sent late: schedule slip p99 {why.slip_p99_ms:.2f} ms"
        case CoresTaken():
            return f"other programs used the cores: {machine_words.used(why.share, why.by)}"
        case HeldUp():
            return f"stopped {machine_words.held_up(why.periods, why.seconds)}"
        case OutOf():
            return machine_words.out_of(why.lack, why.requests)
        case ServerOutOfFiles():
            return f"the server had no more file descriptors (its log, {why.times} times)"
        case BoundTooLow():
            bound = f"max_in_flight = {why.max_in_flight} is less than the {why.held:.0f} that the SLO allows"
            return f"{why.dropped} arrivals dropped: {bound}"
        case ArrivalsDropped():
            return f"{why.dropped} arrivals dropped"
        case RequestsFailed():
            first = f" ({machine_words.first_error(why.first_error)})" if why.first_error else ""
            return f"{why.failed} of {why.sent} requests failed{first}"
        case NothingAnswered():
            return "no request was answered"
        case TooSlow():
            return f"p99 {why.p99_ms:.1f} ms"
        case NotProven():
            return f"{why.over} of {why.sent} requests over the limit prove no p99 within it: {why.needed} would"


def _spoiled(why: SentLate | CoresTaken) -> str:
    if isinstance(why, SentLate):
        return f"sent late (slip p99 {why.slip_p99_ms:.1f} ms)"
    return f"other programs used the cores: {machine_words.used(why.share, why.by)}"


def _measured(trial: TrialRecord) -> str:
    latency, slip = trial.latency_ms, trial.schedule_slip_ms
    what = f"{trial.offered_rate:g}/s" if trial.scenario == "ladder" else trial.scenario
    if latency.p50 is None or latency.p99 is None:
        outcome = "no answer was ok"
    else:
        late = slip.p99 if slip and slip.p99 is not None else 0.0
        outcome = f"p50 {latency.p50:.2f} ms, p99 {latency.p99:.2f} ms, slip p99 {late:.2f} ms"
    failed = sum(trial.errors.values())
    first = f" ({machine_words.first_error(trial.first_error)})" if trial.first_error else ""
    return f"{what}: {outcome}" + (f", {failed} errors{first}" if failed else "")


def _searched(search: SearchRecord) -> str:
    if search.rate is None or search.sd is None:
        return f"capacity: none of {len(search.steps)} trials says anything"
    low, high = (search.rate * math.exp(sign * 1.96 * search.sd) for sign in (-1, 1))
    return f"capacity: {search.rate:,.0f}/s within the SLO ({low:,.0f}-{high:,.0f}), {len(search.steps)} trials"


def _listed(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)
