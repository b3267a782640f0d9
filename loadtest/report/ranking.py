"""Three targets or more, in order: who has which place by what was compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtest.analysis.records import Ranking, Summary, Verdict
from loadtest.experiment.questions import Metric
from loadtest.report import wording

FEWEST = 3  # targets; of two a verdict says everything
MEANING = "A place is one more than the targets that a verdict names better; targets that were not told apart share it."


@dataclass(frozen=True)
class Place:
    """The targets on one place; ``number`` is None for those that were compared with none."""

    number: int | None
    targets: tuple[str, ...]


def places(figures: Summary, metric: Metric) -> dict[str, tuple[Place, ...]]:
    """For each protocol the places by a metric, the best first; none of a ranking that places nobody."""
    return {
        one.protocol: _places(one)
        for one in figures.rankings
        if one.metric is metric and any(item.place is not None for item in one.standings)
    }


def _places(ranking: Ranking) -> tuple[Place, ...]:
    found: dict[int | None, list[str]] = {}
    for item in ranking.standings:
        found.setdefault(item.place, []).append(item.target)
    unplaced = found.pop(None, [])
    places = [Place(number, tuple(found[number])) for number in sorted(n for n in found if n is not None)]
    return (*places, Place(None, tuple(unplaced))) if unplaced else tuple(places)


def winner(places: Sequence[Place], verdicts: Sequence[Verdict]) -> str | None:
    """The target that verdicts name better than every other one that was compared; None where there is none."""
    first = places[0].targets
    if len(first) != 1 or places[0].number != 1:
        return None
    rest = [name for place in places[1:] if place.number is not None for name in place.targets]
    beaten = {verdict.loser for verdict in verdicts if verdict.winner == first[0]}
    return first[0] if rest and beaten.issuperset(rest) else None


def line(places: Sequence[Place], names: Mapping[str, str]) -> str:
    """Places on one line: "1. A; 2. B and C; not compared: D"."""
    told = []
    for place in places:
        who = wording.listed([names[name] for name in place.targets])
        told.append(f"{place.number}. {who}" if place.number else f"not compared: {who}")
    return "; ".join(told)
