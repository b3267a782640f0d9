"""Three targets or more, in order: who has which place by what was compared, and who leads, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.analysis.records import Metric, Ranking, Summary
from loadtest.report import verdict_words, wording

FEWEST = 3  # targets; of two a verdict says everything
MEANING = "A place is one more than the targets that a verdict names better; targets that were not told apart share it."
TITLES = {
    Metric.P99: "p99 latency",
    Metric.GOODPUT: "Requests/s within the SLO",
    Metric.CAPACITY: "Capacity within the SLO",
}
BEST = {
    Metric.P99: "the lowest p99 latency",
    Metric.GOODPUT: "the most requests/s within the SLO",
    Metric.CAPACITY: "the highest capacity within the SLO",
}


@dataclass(frozen=True)
class Place:
    """The targets on one place; ``number`` is None for those that were compared with none."""

    number: int | None
    targets: list[str]


@dataclass(frozen=True)
class Ranked:
    """All targets by one metric over a protocol, the best place first."""

    title: str
    places: list[Place]


def ranked(figures: Summary) -> list[Ranked]:
    """Every ranking of a run, without those that place nobody; none where there are fewer targets than three."""
    return [
        Ranked(f"{TITLES[ranking.metric]} over {wording.protocol(ranking.protocol)}", _places(ranking))
        for ranking in _rankings(figures)
    ]


def _rankings(figures: Summary) -> list[Ranking]:
    if len(figures.targets) < FEWEST:
        return []
    return [one for one in figures.rankings if any(item.place is not None for item in one.standings)]


def _places(ranking: Ranking) -> list[Place]:
    found: dict[int | None, list[str]] = {}
    for item in ranking.standings:
        found.setdefault(item.place, []).append(item.target)
    unplaced = found.pop(None, [])
    places = [Place(number, found[number]) for number in sorted(number for number in found if number is not None)]
    return [*places, Place(None, unplaced)] if unplaced else places


def line(item: Ranked) -> str:
    """A ranking on one line: "p99 latency over gRPC: 1. A; 2. B and C; not compared: D"."""
    told = []
    for place in item.places:
        names = _listed(place.targets)
        told.append(f"{place.number}. {names}" if place.number else f"not compared: {names}")
    return f"{item.title}: {'; '.join(told)}"


def _listed(targets: list[str]) -> str:
    return wording.listed([wording.shorten(wording.target_name(name), 30) for name in targets])


def headline(figures: Summary, names: dict[str, str]) -> str:
    """Who leads, and by what; ``names``: a target's name → as it is shown."""
    leads = [(one.metric, one.protocol, says) for one in _rankings(figures) if (says := _lead(one, names))]
    first = [lead for lead in leads if lead[0] is not Metric.GOODPUT]
    told: dict[str, list[str]] = {}
    for _, protocol, says in first or leads:
        told.setdefault(says, []).append(wording.protocol(protocol))
    if not told:
        return verdict_words.no_winner(figures.verdicts)
    return f"{'; '.join(f'{says} over {wording.listed(over)}' for says, over in told.items())}."


def _lead(ranking: Ranking, names: dict[str, str]) -> str:
    """Who leads a ranking; empty where nobody is behind anybody."""
    behind = [item for item in ranking.standings if item.behind]
    first = [item.target for item in ranking.standings if item.place == 1]
    if not behind or not first:
        return ""
    shown, best = wording.listed([names[name] for name in first]), BEST[ranking.metric]
    if len(first) > 1:
        return f"{shown} share the first place for {best}"
    rest = [item for item in ranking.standings if item.target != first[0]]
    others = [item.target for item in rest if first[0] not in item.behind]
    if not others:
        return f"{shown} has {best}"
    return f"{shown} leads for {best}, not told apart from {_listed(others)}"
