"""The verdict of a run in plain sentences: a headline, a few sentences, and the evidence. No HTML here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis.records import Interval, Metric, Summary, Verdict
from loadtest.report import ranking, verdict_words, wording
from loadtest.report.conditions import holds


@dataclass(frozen=True)
class Story:
    """``headline`` is one short sentence; ``lede`` says it in two or three, with ratios, intervals and conditions;
    ``sentences`` give the evidence, (topic, sentence) for each question."""

    headline: str
    lede: list[str]
    sentences: list[tuple[str, str]]


def tell(figures: Summary) -> Story:
    """The verdict in words. Of three targets or more the headline says who leads, and `ranking` who follows."""
    verdicts = figures.verdicts
    names = {target.name: wording.shorten(wording.target(target)) for target in figures.targets}
    if not verdicts:
        measured = [names[target.name] for target in figures.targets if target.measured]
        headline = f"Only {measured[0]} was measured." if measured else "Nothing was measured."
        alone = "There is no second target to compare it with."
        return Story(headline, [alone, holds(figures)] if measured else [], [("", alone)] if measured else [])
    several = len(figures.targets) >= ranking.FEWEST
    return Story(
        headline=ranking.headline(figures, names) if several else _headline(verdicts, names),
        lede=[*([ranking.MEANING] if several else _lede(verdicts)), holds(figures)],
        sentences=[_sentence(figures, verdict, names, several) for verdict in verdicts],
    )


LEDE_PROTOCOLS = 2


def _lede(verdicts: Sequence[Verdict]) -> list[str]:
    """A sentence for the latency and the capacity of each of the first protocols."""
    found = []
    for verdict in [verdict for verdict in verdicts if verdict.metric is Metric.P99][:LEDE_PROTOCOLS]:
        searched = [item for item in verdicts if item.metric is Metric.CAPACITY and item.protocol == verdict.protocol]
        found.append(f"{_latency_sentence(verdict)}{_capacity_clause(searched[0]) if searched else ''}.")
    return found


def _latency_sentence(verdict: Verdict) -> str:
    over = wording.protocol(verdict.protocol)
    if not verdict.has_ratio:
        return f"Over {over} there is no verdict on latency; the reason stands below"
    at = wording.rate(verdict.offered_rate)
    if verdict.winner is None:
        shown = f"{wording.number(verdict.ratio)} {_bounds(verdict.ci95)}"
        verb = "no difference is shown" if verdict.shows_no_difference else "no winner is named"
        return f"Over {over} at {at} {verb}: the ratio of the p99 latencies is {shown}"
    best, other = map(wording.milliseconds, _winners_first(verdict))
    return (
        f"Over {over} at {at}, {wording.shorten(wording.target_name(verdict.winner), 30)}’s p99 latency is "
        f"{_factor(verdict, ' times lower')}: {best} against {other}"
    )


def _capacity_clause(verdict: Verdict) -> str:
    if not verdict.has_ratio:
        return "; there is no verdict on capacity"
    if verdict.winner is None:
        shown = f"{wording.number(verdict.ratio)} {_bounds(verdict.ci95)}"
        verb = "no difference in capacity is shown" if verdict.shows_no_difference else "capacity names no winner"
        return f"; {verb}, ratio {shown}"
    best, other = map(wording.rate, _winners_first(verdict))
    return (
        f"; {wording.shorten(wording.target_name(verdict.winner), 30)}’s capacity within the SLO is "
        f"{_factor(verdict, ' times higher')}: {best} against {other}"
    )


def _winners_first(verdict: Verdict) -> tuple[float | None, float | None]:
    """The figures of the winner and of the other one."""
    if verdict.figures is None:
        return None, None
    first, second = (figure.value for figure in verdict.figures)
    return (first, second) if verdict.winner == verdict.compared[0] else (second, first)


def _factor(verdict: Verdict, unit: str = "") -> str:
    """How many times better the winner is, above 1, with its interval."""
    # The loser's goodput may be 0: then only the interval's near end says anything.
    factor, ends = math.inf if verdict.ratio is None else verdict.ratio, verdict.ci95
    if factor < 1:
        factor = 1 / factor if factor else math.inf
        ends = ends and (1 / ends[1] if ends[1] else None, 1 / ends[0] if ends[0] else None)
    if not math.isfinite(factor):
        return f"without bound{unit} {_bounds(ends)}"
    return f"{wording.number(factor)}{unit} {_bounds(ends)}"


def _bounds(ends: Interval | None) -> str:
    known = wording.interval(ends)
    return "(without an interval)" if known == wording.NOTHING else f"(95 % interval {known})"


def _headline(verdicts: Sequence[Verdict], names: dict[str, str]) -> str:
    faster, higher = _won(verdicts, Metric.P99), _won(verdicts, Metric.CAPACITY)
    if len(faster) > 1:
        return "It depends on the protocol: each target has the lower p99 on one."
    if not faster:
        more = _won(verdicts, Metric.GOODPUT)
        for won, says in ((higher, "has the higher capacity"), (more, "answered more requests")):
            if won:
                told = "; ".join(f"{names[winner]} {says} within the SLO over {where}" for winner, where in won.items())
                return f"It depends on the protocol: {told}." if len(won) > 1 else f"{told}."
        return verdict_words.no_winner(verdicts)
    ((winner, where),) = faster.items()
    if higher == faster:
        return f"{names[winner]} has the lower p99 latency and the higher capacity over {where}."
    told = f"{names[winner]} has the lower p99 latency over {where}"
    if winner in higher:
        told += f", and the higher capacity over {higher[winner]}"
    others = [f"; {names[other]} has the higher capacity over {higher[other]}" for other in higher if other != winner]
    return f"{told}{''.join(others)}."


def _won(verdicts: Sequence[Verdict], metric: Metric) -> dict[str, str]:
    """For each target that won by a metric, over which protocols, "only" where these are not all that were asked."""
    asked = [verdict for verdict in verdicts if verdict.metric is metric]
    found: dict[str, list[str]] = {}
    for verdict in asked:
        if verdict.winner:
            found.setdefault(verdict.winner, []).append(wording.protocol(verdict.protocol))
    return {winner: " and ".join(over) + (" only" if len(over) < len(asked) else "") for winner, over in found.items()}


def _sentence(figures: Summary, verdict: Verdict, names: dict[str, str], several: bool) -> tuple[str, str]:
    question = verdict_words.question(verdict, several)
    if verdict.winner is None or verdict.loser is None or verdict.metric is Metric.CAPACITY:
        return question, verdict_words.why(verdict, figures.experiment.slo)
    winner, loser = names[verdict.winner], names[verdict.loser]
    ours, theirs = _winners_first(verdict)
    sure = f"{_factor(verdict)}{_adjusted(verdict)}"
    if verdict.metric is Metric.P99:
        return question, (
            f"{winner}: 99 % of its answers came within {wording.milliseconds(ours)}, of {loser} within "
            f"{wording.milliseconds(theirs)}. That is a factor of {sure}."
        )
    return question, (
        f"{winner}: at {wording.rate(verdict.offered_rate)} offered it answered {wording.rate(ours)} within the SLO, "
        f"{loser} {wording.rate(theirs)}. That is a factor of {sure}."
    )


def _adjusted(verdict: Verdict) -> str:
    """The p-value after Holm's correction for all questions of the run, where there is one."""
    p = verdict.p_adjusted
    if p is None:
        return ""
    return f", adjusted p {'below 0.001' if p < 0.001 else wording.number(p, 2)}"
