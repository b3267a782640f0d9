"""What a verdict asks and what it answers, in sentences.

``names`` is what the targets are called (see `loadtest.report.names`): a target's name → the words for it.
"""

from __future__ import annotations

from collections.abc import Mapping

from loadtest.analysis.records import Estimate, Needed, Outcome, Verdict
from loadtest.experiment.questions import Metric
from loadtest.experiment.settings import Slo
from loadtest.report import wording

Names = Mapping[str, str]
WIDE = 100  # an interval whose ends lie further apart than this factor says so instead of its ends


def question(verdict: Verdict, names: Names, several: bool = False) -> str:
    """What it asks; ``several``: with the names of the two, where a run has more than these."""
    over = wording.protocol(verdict.protocol)
    asked = {
        Metric.P99: f"Lower p99 latency{_at(verdict)} over {over}",
        Metric.CAPACITY: f"More requests per second within the SLO over {over}",
    }[verdict.metric]
    return f"{asked}, {wording.listed([names[name] for name in verdict.compared], 'or')}?" if several else f"{asked}?"


def pair(verdict: Verdict) -> str:
    """The two targets that it compares, as charts call them."""
    return " or ".join(wording.shorten(wording.target_name(name), 30) for name in verdict.compared)


def _at(verdict: Verdict) -> str:
    return f" at {wording.rate(verdict.offered_rate)}" if verdict.offered_rate else ""


def answer(verdict: Verdict, names: Names) -> str:
    """The answer in a word or two: the winner, or that there is none."""
    if verdict.winner:
        return names[verdict.winner]
    if not verdict.has_ratio:
        return "no verdict"
    return "no difference shown" if verdict.shows_no_difference else "no winner named"


def better(verdict: Verdict) -> tuple[str, str]:
    """How many times better the winner is, above 1, and the interval of that: ("2.0", "1.8–2.2"). The interval is empty
    where there is none."""
    ratio, ends = verdict.ratio or 1.0, verdict.ci95
    if verdict.winner and (verdict.winner == verdict.compared[0]) == (verdict.metric is Metric.P99):
        ratio, ends = 1 / ratio, ends and (1 / ends[1], 1 / ends[0])
    shown, *around = wording.times(ratio, *(ends or ()))
    return shown, "–".join(around)


def winners_first(verdict: Verdict) -> tuple[float | None, float | None]:
    """The figures of the winner and of the other one; in their own order where there is none."""
    if verdict.figures is None:
        return None, None
    first, second = (figure.value for figure in verdict.figures)
    return (second, first) if verdict.winner == verdict.compared[1] else (first, second)


def open_words(verdict: Verdict) -> str:
    """What a verdict that shows no difference leaves open: "this run could have found 1.3 (ratio 0.9–1.2; about 4 more
    starts of each, 3 minutes, would decide a ratio of 1.2)"."""
    more = needed(verdict.needed)
    if verdict.outcome is Outcome.NOT_AFTER_CORRECTION and verdict.ci95:
        seen = f"a ratio of {wording.between(*verdict.ci95)}"
        told = f"{seen} may still be chance, as often as this run asked and looked"
        return f"{told}; {more}" if more else told
    lies = _lies(verdict)
    around = "; ".join(part for part in (lies, more) if part)
    found = f"this run could have found {power}" if (power := detectable(verdict)) else ""
    return f"{found} ({around})" if found and around else found or around


def detectable(verdict: Verdict) -> str:
    """The ratio that a run would have found; empty where that is not known, or beyond anything that matters."""
    ratio = verdict.detectable
    return "" if ratio is None or ratio > WIDE else wording.effect(ratio)


def _lies(verdict: Verdict) -> str:
    """Where the ratio lies; an interval that says nothing is not spelled out."""
    if verdict.ci95 is None:
        return ""
    low, high = verdict.ci95
    return f"ratio {wording.between(low, high)}" if high <= WIDE * low else f"ratio not known within {WIDE}-fold"


def needed(more: Needed | None) -> str:
    """What would decide an open question; empty where that is not known."""
    if more is None or not more.starts or more.effect > WIDE:
        return ""
    starts = f"about {wording.count(_rounded(more.starts))} more start{'' if more.starts == 1 else 's'} of each"
    time = "" if more.seconds is None else f", {wording.roughly(more.seconds)},"
    return f"{starts}{time} would decide a ratio of {wording.effect(more.effect)}"


def _rounded(starts: int) -> float:
    return starts if starts < 100 else float(f"{starts:.2g}")


def because(verdict: Verdict, slo: Slo, names: Names) -> str:
    """Why a verdict neither names a winner nor shows that there is no difference; empty where it does."""
    both = " and ".join(names[name] for name in verdict.compared)
    blamed = " and ".join(names[name] for name in verdict.because_of)
    allowed = wording.setting(slo.error_ratio * 100, "%")
    failed = " and ".join(f"{names[name]} failed {wording.share(part)}" for name, part in verdict.error_ratios.items())
    return {
        Outcome.NO_RATE_MET_SLO: f"{blamed} met the SLO at no rate that was tried",
        Outcome.TOO_FEW_ANSWERS: f"fewer than ten answers of {blamed} lie beyond p99{_at(verdict)}",
        Outcome.NO_VALID_RATE: f"{both} were not both measured validly{_at(verdict)}",
        Outcome.NO_COMMON_RATE: f"{both} were not both measured{_at(verdict)}",
        Outcome.ONE_START_ONLY: "with one start only nothing tells how far starts lie apart",
        Outcome.TOO_MANY_ERRORS: f"{failed} of requests, more than the {allowed} allowed",
        Outcome.PARITY_NOT_PROVEN: "the servers are not proven to serve the same model",
    }.get(verdict.outcome, "")


def why(verdict: Verdict, slo: Slo, names: Names) -> str:
    """What it rests on, and why it names no winner where it names none, in whole sentences."""
    if not verdict.has_ratio:
        return f"No verdict: {because(verdict, slo, names)}."
    found = evidence(verdict, names)
    if verdict.winner:
        return found
    if verdict.shows_no_difference:
        left = open_words(verdict)
        return f"No difference shown{f': {left}' if left else ''}. {found}"
    return f"No winner is named: {because(verdict, slo, names)}. {found}"


def evidence(verdict: Verdict, names: Names) -> str:
    """The figures of the two, each with its interval, their ratio, and what these rest on."""
    if verdict.figures is None:
        return ""
    show = _milliseconds if verdict.metric is Metric.P99 else _rate
    told = [f"{names[name]} {show(figure)}" for name, figure in zip(verdict.compared, verdict.figures, strict=True)]
    what = "p99: " if verdict.metric is Metric.P99 else ""
    shown, around = _ratio(verdict)
    bounds = f" (95 % interval {around})" if around and not verdict.shows_no_difference else ""
    ratio = f"; ratio {shown}{bounds}" if shown and not verdict.winner else ""
    return f"{what}{told[0]}, {told[1]}{ratio}, from {_starts(verdict)}{_sure(verdict)}."


def _starts(verdict: Verdict) -> str:
    return "one start" if verdict.starts == 1 else f"{verdict.starts} starts each"


def _ratio(verdict: Verdict) -> tuple[str, str]:
    if verdict.ratio is None:
        return "", ""
    shown, *around = wording.times(verdict.ratio, *(verdict.ci95 or ()))
    return shown, "–".join(around)


def _sure(verdict: Verdict) -> str:
    """The p-value after correction for all questions and looks of the run, where there is one."""
    p = verdict.p_adjusted
    if p is None:
        return ""
    return f"; p {'below 0.001' if p < 0.001 else wording.number(p, 2)}"


def _milliseconds(figure: Estimate) -> str:
    return f"{wording.milliseconds(figure.value)}{_around(figure)}"


def _rate(figure: Estimate) -> str:
    return f"{wording.rate(figure.value)}{_around(figure, plain_rate=True)}"


def _around(figure: Estimate, plain_rate: bool = False) -> str:
    return f" ({wording.interval(figure.ci95, plain_rate)})" if figure.ci95 else ""
