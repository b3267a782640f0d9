"""All targets in the order that the verdicts give them, with places that are shared where nothing tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.analysis.records import Ranking, Standing, Verdict
from loadtest.experiment.questions import Family, Metric


def of(targets: Sequence[str], verdicts: Sequence[Verdict]) -> tuple[Ranking, ...]:
    """For each protocol a ranking by capacity and one by p99 at the main rate, where verdicts ask about them.

    A target's place is one more than the number of targets that a verdict names the winner over it, so a target is
    behind another only where that was shown. It has none where it was compared with no other.
    """
    asked: dict[tuple[str, Metric], list[Verdict]] = {}
    for verdict in verdicts:
        if verdict.family is not Family.REST:
            asked.setdefault((verdict.protocol, verdict.metric), []).append(verdict)
    return tuple(_one(targets, *key, own) for key, own in asked.items())


def _one(targets: Sequence[str], protocol: str, metric: Metric, verdicts: Sequence[Verdict]) -> Ranking:
    standings = []
    for target in targets:
        own = [one for one in verdicts if target in one.compared]
        ahead = [one.winner for one in own if one.winner and one.winner != target]
        compared = any(one.has_ratio for one in own)
        standings.append(Standing(target=target, place=1 + len(ahead) if compared else None, behind=tuple(ahead)))
    standings.sort(key=lambda one: len(targets) + 1 if one.place is None else one.place)  # stable
    return Ranking(protocol=protocol, metric=metric, standings=tuple(standings))
