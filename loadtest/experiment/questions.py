"""What a run asks: which of two targets is better, by what, over which protocol."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


class Metric(enum.Enum):
    """What is compared: the highest rate within the SLO, or p99 latency at one rate."""

    CAPACITY = "capacity"
    P99 = "p99"


class Family(enum.Enum):
    """The families of questions, in their sequence: capacities, latency at the main rate, latency at other rates."""

    CAPACITY = "capacity"
    LATENCY = "latency"
    REST = "rest"


@dataclass(frozen=True)
class Question:
    """Which of two targets is better, over a protocol; ``rate``: requests/s, 0 for a capacity."""

    family: Family
    metric: Metric
    protocol: str
    compared: tuple[str, str]
    rate: float = 0.0


def ask(
    targets: Sequence[str],
    protocols: Iterable[str],
    rates: Mapping[str, Sequence[float]],
    main: Mapping[str, float],
    *,
    capacity: bool,
) -> list[Question]:
    """Everything that a run asks about each two of its targets.

    rates  requests/s for each protocol at which latencies are compared, and the ``main`` one of them
    """
    pairs = [(first, second) for index, first in enumerate(targets) for second in targets[index + 1 :]]
    found = []
    for protocol in protocols:
        for pair in pairs:
            if capacity:
                found.append(Question(Family.CAPACITY, Metric.CAPACITY, protocol, pair))
            for rate in rates.get(protocol, ()):
                family = Family.LATENCY if rate == main.get(protocol) else Family.REST
                found.append(Question(family, Metric.P99, protocol, pair, rate))
    return found
