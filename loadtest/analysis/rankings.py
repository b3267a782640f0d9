"""All targets in the order that the verdicts give them, with places that are shared where nothing tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

from loadtest.analysis.records import Metric, Ranking, Standing, Verdict


def of(targets: Sequence[str], verdicts: Sequence[Verdict]) -> tuple[Ranking, ...]:
    """A ranking for each protocol and metric that verdicts ask about, in their order.

    A target's place is one more than the number of targets that a verdict names the winner over it, so a target is
    behind another only where that was shown. It has none where it was compared with no other.
    """
    asked = dict.fromkeys((verdict.protocol, verdict.metric) for verdict in verdicts)
    return tuple(
        _one(targets, protocol, metric, [one for one in verdicts if (one.protocol, one.metric) == (protocol, metric)])
        for protocol, metric in asked
    )


def _one(targets: Sequence[str], protocol: str, metric: Metric, verdicts: Sequence[Verdict]) -> Ranking:
    standings = []
    for target in targets:
        own = [one for one in verdicts if target in one.compared]
        ahead = [one.winner for one in own if one.winner and one.winner != target]
        compared = any(one.has_ratio for one in own)
        standings.append(Standing(target=target, place=1 + len(ahead) if compared else None, behind=tuple(ahead)))
    standings.sort(key=lambda one: len(targets) + 1 if one.place is None else one.place)  # stable
    return Ranking(protocol=protocol, metric=metric, standings=tuple(standings))
