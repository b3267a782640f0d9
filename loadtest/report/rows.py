"""The questions of the first screen and their answers: how much each target handles, how soon it answers at the main
rate, and what that costs. No line names a winner that its verdict does not, and none mixes two questions."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from loadtest.analysis.records import Summary, Verdict
from loadtest.experiment.questions import Metric
from loadtest.report import headline, ranking, sizing, verdict_words, wording
from loadtest.report.ranking import Place
from loadtest.report.sizing import Plan, Sizing
from loadtest.report.verdict_words import Names


class Topic(enum.Enum):
    """What a row asks: how much each handles, how soon each answers at the main rate, what that costs."""

    CAPACITY = "capacity"
    LATENCY = "latency"
    COST = "cost"


@dataclass(frozen=True)
class Line:
    """An answer over one protocol, or over several that one target won.

    winner    a target's name, where a verdict names it
    verdicts  what the answer rests on; of three targets or more those of all pairs, and ``places``
    where     "over gRPC at 600/s"; empty where ``says`` tells it
    answer    the winner as it is called, or "no difference shown", …
    """

    protocols: tuple[str, ...]
    winner: str | None
    verdicts: tuple[Verdict, ...]
    where: str
    answer: str
    says: str
    places: tuple[Place, ...] = ()

    @property
    def text(self) -> str:
        """The whole line."""
        told = f"{self.answer}: {self.says}" if self.says and self.answer else self.answer or self.says
        return f"{self.where} {told}".strip()


@dataclass(frozen=True)
class Row:
    """One question, and its answers."""

    topic: Topic
    title: str
    lines: tuple[Line, ...]


# What is said of one verdict, beside the target that won it.
Phrase = Callable[[Verdict], str]


def rows(figures: Summary, names: Names) -> tuple[Row, ...]:
    """The rows of a run's summary, at most one of each topic; ``names``: what its targets are called."""
    plan = sizing.plan(figures)
    found = (
        Row(Topic.CAPACITY, "Capacity", _capacity(figures, names)),
        Row(Topic.LATENCY, "Latency", _latency(figures, names)),
        Row(Topic.COST, "Cost" if plan.price_per_hour else "Servers", _cost(figures, names, plan)),
    )
    return tuple(row for row in found if row.lines)


def _several(figures: Summary) -> bool:
    return len(figures.targets) >= ranking.FEWEST


# --- capacity ---


def _capacity(figures: Summary, names: Names) -> tuple[Line, ...]:
    verdicts, limit = headline.main(figures, Metric.CAPACITY), wording.setting(figures.experiment.slo.p99_ms, "ms")
    if _several(figures):
        return _places(figures, verdicts, names)

    def won(verdict: Verdict) -> str:
        ours, theirs = map(wording.rate, verdict_words.winners_first(verdict))
        factor, around = verdict_words.better(verdict)
        return f"{ours} within {limit} against {theirs}, {factor} times as many{_in_brackets(around)}"

    def compared(verdict: Verdict) -> str:
        return _side_by_side(verdict, names, wording.rate)

    return _lines(figures, verdicts, names, won, compared)


# --- latency ---


def _latency(figures: Summary, names: Names) -> tuple[Line, ...]:
    verdicts = headline.main(figures, Metric.P99)

    def won(verdict: Verdict) -> str:
        ours, theirs = map(wording.brief_milliseconds, verdict_words.winners_first(verdict))
        factor, around = verdict_words.better(verdict)
        long = f"{factor} times as long{f', {around}' if around else ''}"
        return f"99 % of requests within {ours}, {names[str(verdict.loser)]} within {theirs} ({long})"

    def compared(verdict: Verdict) -> str:
        return f"99 % within: {_side_by_side(verdict, names, wording.brief_milliseconds)}"

    if _several(figures):
        return _places(figures, verdicts, names)
    return _lines(figures, verdicts, names, won, compared)


# --- cost, or how many servers ---


def _cost(figures: Summary, names: Names, plan: Plan) -> tuple[Line, ...]:
    """Costs follow from capacities, so a target wins by cost where it wins by capacity."""
    if not plan.price_per_hour and not plan.expected:
        return ()
    amounts = {(one.target, one.protocol): _amount(plan, one) for one in plan.sizings}
    verdicts = headline.main(figures, Metric.CAPACITY)
    known = [one for one in verdicts if all(amounts.get((name, one.protocol)) for name in one.compared)]
    spare = f" for {wording.images(plan.rates[0])} (one to spare)"
    each = " for a million predictions" if plan.price_per_hour else spare
    if _several(figures):
        return _places(figures, known, names, amounts, each)

    def compared(verdict: Verdict) -> str:
        first, second = _both(amounts, verdict)
        one, other = (names[name] for name in verdict.compared)
        return f"{first} with {one}, {second} with {other}{each}"

    def won(verdict: Verdict) -> str:
        loser = str(verdict.loser)
        ours, theirs = amounts[str(verdict.winner), verdict.protocol], amounts[loser, verdict.protocol]
        told = f"{ours}{each}, {names[loser]} {theirs}"
        if not plan.price_per_hour:
            return told
        factor, around = verdict_words.better(verdict)
        return f"{told} ({factor} times as much{f', {around}' if around else ''})"

    differ = [one for one in known if one.has_ratio and len(set(_both(amounts, one))) > 1]
    alike = [
        Line((one.protocol,), None, (one,), headline.where(figures, one), "no difference", f"{first} each{each}")
        for one in known
        if one.has_ratio and one not in differ
        for first in _both(amounts, one)[:1]
    ]
    return (*_lines(figures, differ, names, won, compared, brief=True), *alike)


def _both(amounts: Mapping[tuple[str, str], str], verdict: Verdict) -> list[str]:
    return [amounts[name, verdict.protocol] for name in verdict.compared]


def _amount(plan: Plan, one: Sizing) -> str:
    """What a million predictions cost, else how many servers answer the rate; empty where neither is known."""
    if plan.price_per_hour:
        return wording.money(one.cost_per_million, plan.currency) if one.cost_per_million else ""
    return wording.plural(one.replicas[0].with_spare, "server") if one.replicas else ""


# --- lines ---


def _lines(
    figures: Summary,
    verdicts: Sequence[Verdict],
    names: Names,
    won: Phrase,
    compared: Phrase,
    *,
    brief: bool = False,
) -> tuple[Line, ...]:
    """A line for each protocol, and one for all those in a row that the same target won. ``brief``: without what an
    open verdict leaves open, which another row says."""
    found = []
    for winner, group in groupby(verdicts, key=lambda one: one.winner):
        same = list(group)
        together = [same] if winner else [[one] for one in same]
        for some in together:
            protocols, first = tuple(one.protocol for one in some), some[0]
            if winner and len(some) > 1:
                says = "; ".join(f"{headline.where(figures, one)} {won(one)}" for one in some)
                found.append(Line(protocols, winner, tuple(some), "", names[winner], says))
                continue
            says = won(first) if winner else compared(first) if brief else _open(figures, first, names, compared)
            where, answer = headline.where(figures, first), verdict_words.answer(first, names)
            found.append(Line(protocols, winner, (first,), where, answer, says))
    return tuple(found)


def _open(figures: Summary, verdict: Verdict, names: Names, compared: Phrase) -> str:
    """What a verdict without a winner leaves open, or why it names none."""
    if verdict.shows_no_difference:
        return verdict_words.open_words(verdict) or compared(verdict)
    reason = verdict_words.because(verdict, figures.experiment.slo, names)
    return f"{reason} ({compared(verdict)})" if verdict.has_ratio else reason


def _side_by_side(verdict: Verdict, names: Names, show: Callable[[float | None], str]) -> str:
    if verdict.figures is None:
        return ""
    sides = zip(verdict.compared, verdict.figures, strict=True)
    return ", ".join(f"{names[name]} {show(figure.value)}" for name, figure in sides)


def _in_brackets(around: str) -> str:
    return f" ({around})" if around else ""


def _places(
    figures: Summary,
    verdicts: Sequence[Verdict],
    names: Names,
    amounts: Mapping[tuple[str, str], str] | None = None,
    more: str = "",
) -> tuple[Line, ...]:
    """Of three targets or more: their places over each protocol, with ``amounts`` beside the names, if there are."""
    if not verdicts:
        return ()
    found = []
    for protocol, places in ranking.places(figures, verdicts[0].metric).items():
        own = tuple(verdict for verdict in verdicts if verdict.protocol == protocol)
        if not own:
            continue
        shown = {
            name: f"{called} {amounts[name, protocol]}" if amounts and amounts.get((name, protocol)) else called
            for name, called in names.items()
        }
        says = f"{ranking.line(places, shown)}{more}"
        found.append(
            Line((protocol,), ranking.winner(places, own), own, headline.where(figures, own[0]), "", says, places)
        )
    return tuple(found)
