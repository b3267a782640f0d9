"""What a verdict asks and what it answers, in sentences."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.analysis.records import Estimate, Metric, Outcome, Verdict
from loadtest.experiment.settings import Slo
from loadtest.report import wording


def question(verdict: Verdict, several: bool = False) -> str:
    """What it asks; ``several``: with the names of the two, where a run has more than these."""
    over = wording.protocol(verdict.protocol)
    asked = {
        Metric.P99: f"Lower p99{_at(verdict)} over {over}",
        Metric.GOODPUT: f"More requests/s within the SLO over {over}",
        Metric.CAPACITY: f"Higher capacity within the SLO over {over}",
    }[verdict.metric]
    return f"{asked}, {pair(verdict)}?" if several else f"{asked}?"


def pair(verdict: Verdict) -> str:
    """The two targets that it compares."""
    return " or ".join(wording.shorten(wording.target_name(name), 30) for name in verdict.compared)


def _at(verdict: Verdict) -> str:
    return f" at {wording.rate(verdict.offered_rate)}" if verdict.offered_rate else ""


def why(verdict: Verdict, slo: Slo) -> str:
    """What it rests on, and why it names no winner where it names none."""
    if not verdict.has_ratio:
        return f"No verdict: {_missing(verdict)}."
    if verdict.outcome is Outcome.NO_DIFFERENCE_SHOWN:
        return f"No difference shown. {rests_on(verdict, slo)}"
    return rests_on(verdict, slo)


def rests_on(verdict: Verdict, slo: Slo) -> str:
    """As `why`, to stand beside `answer`, which says already that no difference is shown."""
    if not verdict.has_ratio:
        return why(verdict, slo)
    found = evidence(verdict, slo)
    if verdict.outcome is Outcome.NOT_AFTER_CORRECTION:
        return (
            f"No difference shown after Holm's correction for {verdict.comparisons} comparisons "
            f"(p {wording.number(verdict.p_adjusted, 2)}). {found}"
        )
    if withheld := _withheld(verdict, slo):
        return f"{found} No winner is named: {withheld}."
    return found


def answer(verdict: Verdict) -> str:
    """The answer in a word or two: the winner's name, or that there is none."""
    if verdict.winner:
        return wording.target_name(verdict.winner)
    if not verdict.has_ratio:
        return "no verdict"
    return "no difference shown" if verdict.shows_no_difference else "no winner named"


def no_winner(verdicts: Sequence[Verdict]) -> str:
    """The headline of verdicts of which none names a winner."""
    latency = [verdict for verdict in verdicts if verdict.metric is Metric.P99]
    if not any(verdict.has_ratio for verdict in latency):
        return "No verdict: the measurements do not allow a comparison."
    if any(verdict.shows_no_difference for verdict in latency):
        return "No difference shown."
    return "No winner is named."


def _missing(verdict: Verdict) -> str:
    """Why there is nothing to compare."""
    if verdict.outcome is Outcome.NO_RATE_MET_SLO:
        return f"{_names(verdict.because_of[:1])} met the SLO at no rate that was tried"
    if verdict.outcome is Outcome.NO_VALID_RATE:
        keeping_up = " and both servers keeping up" if verdict.metric is Metric.P99 else ""
        return f"at no common rate were both measurements valid{keeping_up}"
    return f"{_names(verdict.compared)} were not both measured at a common rate"


def _withheld(verdict: Verdict, slo: Slo) -> str:
    """Why a ratio names no winner; empty where it does."""
    match verdict.outcome:
        case Outcome.ONE_REPETITION_ONLY:
            return "measured once, so nothing tells how much a repetition would differ"
        case Outcome.TOO_MANY_ERRORS:
            failed = " and ".join(
                f"{wording.target_name(name)} failed {wording.share(verdict.error_ratios[name])}"
                for name in verdict.because_of
            )
            return f"{failed} of requests, more than {wording.share(slo.error_ratio)}"
        case Outcome.NOT_CONFIRMED:
            return f"the boundaries of {_names(verdict.because_of)} were not confirmed by a repeat"
        case Outcome.PARITY_NOT_PROVEN:
            return "the servers are not proven to serve the same model"
    return ""


def _names(targets: tuple[str, ...]) -> str:
    return " and ".join(wording.target_name(name) for name in targets)


def evidence(verdict: Verdict, slo: Slo) -> str:
    """The figures of the two, each with its interval, and their ratio."""
    if verdict.figures is None:
        return ""
    at, measured = wording.rate(verdict.offered_rate), zip(verdict.compared, verdict.figures, strict=True)
    if verdict.metric is Metric.P99:
        told = [f"{wording.target_name(name)} p99 {_milliseconds(figure)}" for name, figure in measured]
        where = f"At {at} offered, the highest common rate at which both are valid and keep up: "
    elif verdict.metric is Metric.GOODPUT:
        told = [f"{wording.target_name(name)} answered {_rate(figure)}" for name, figure in measured]
        where = (
            f"Within {wording.setting(slo.p99_ms, 'ms')} at {at} offered, the highest common rate with valid "
            "measurements: "
        )
    else:
        told = [f"{wording.target_name(name)} {_rate(figure)}" for name, figure in measured]
        where = ""
    ratio = "without bound" if verdict.unbounded else wording.number(verdict.ratio)
    both = " Both still meet the SLO there; only a higher ladder could tell them apart."
    return (
        f"{where}{told[0]}, {told[1]}; ratio {ratio} ({wording.interval(verdict.ci95)})."
        f"{both if verdict.both_meet_slo else ''}"
    )


def _milliseconds(figure: Estimate) -> str:
    return f"{wording.milliseconds(figure.value)} ({wording.interval(figure.ci95)})"


def _rate(figure: Estimate) -> str:
    return f"{wording.rate(figure.value)} ({wording.interval(figure.ci95, plain_rate=True)})"
