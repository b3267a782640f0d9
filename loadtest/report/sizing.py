"""What a million predictions cost at the SLO, and how many servers a rate needs, from the measured capacity."""

from __future__ import annotations

import math
from dataclasses import dataclass

from loadtest.analysis.records import Capacity, Interval, Summary

# Images/s that the table answers for where the experiment names no expected rate.
EXAMPLE_RATES = (100.0, 1_000.0, 10_000.0)
SPARE = 1  # N+1: one server may fail, or be replaced, without the rest missing the SLO


@dataclass(frozen=True)
class Replicas:
    """Servers for a rate (images/s): ``needed`` carry it, ``with_spare`` still do with one of them gone. ``cautious``:
    the same with a spare where a server's capacity is the lower end of its interval; None where that end is open."""

    rate: float
    needed: int
    with_spare: int
    cautious: int | None


@dataclass(frozen=True)
class Sizing:
    """One target over one protocol.

    requests_per_s, images_per_s  the highest measured rate within the SLO; None where no tested rate is
    images_ci95                   its interval [low, high], images/s; an end is None where the run set no bound
    cost_per_million, cost_ci95   money for a million predictions (images); None without a price or a capacity
    replicas                      for each rate asked for
    """

    target: str
    protocol: str
    requests_per_s: float | None
    images_per_s: float | None
    images_ci95: Interval
    cost_per_million: float | None
    cost_ci95: Interval
    replicas: list[Replicas]


@dataclass(frozen=True)
class Plan:
    """The sizing of every target: ``price_per_hour`` of one node in ``currency`` (None: not known), the rates asked for
    in images/s, and whether the experiment named one."""

    price_per_hour: float | None
    currency: str
    rates: list[float]
    expected: bool
    sizings: list[Sizing]


def capacity(figures: Summary, target: str, protocol: str) -> Capacity | None:
    """The best-founded capacity entry: one from a search for it before one from a ladder."""
    entries = [item for item in figures.capacity if (item.target, item.protocol) == (target, protocol)]
    return max(
        entries,
        key=lambda item: (item.max_rate is not None, item.scenario == "capacity"),
        default=None,
    )


def plan(figures: Summary) -> Plan:
    """Cost and replicas of every target and protocol with a capacity entry; ``figures`` is the run's summary."""
    cost = figures.experiment.cost
    price, expected = cost.price_per_hour or None, cost.expected_rate or None
    rates = [float(expected)] if expected else list(EXAMPLE_RATES)
    pairs = dict.fromkeys((item.target, item.protocol) for item in figures.capacity)
    entries = [entry for target, protocol in pairs if (entry := capacity(figures, target, protocol))]
    return Plan(
        price_per_hour=price,
        currency=cost.currency,
        rates=rates,
        expected=expected is not None,
        sizings=[_size(entry, figures.experiment.images_of(entry.scenario), price, rates) for entry in entries],
    )


def cost_per_million(price_per_hour: float | None, images_per_s: float | None) -> float | None:
    """price / (images/s × 3,600) × 1,000,000; None where either is not known."""
    if not price_per_hour or not images_per_s:
        return None
    return price_per_hour / (images_per_s * 3600) * 1e6


def replicas(rate: float, images_per_s: float) -> tuple[int, int]:
    """(servers that carry a rate, the same with one to spare)."""
    needed = math.ceil(round(rate / images_per_s, 9))
    return needed, needed + SPARE


def _size(entry: Capacity, images: int, price: float | None, rates: list[float]) -> Sizing:
    low, high = (None if end is None else end * images for end in entry.ci95)
    per_second = None if entry.max_rate is None else entry.max_rate * images
    return Sizing(
        target=entry.target,
        protocol=entry.protocol,
        requests_per_s=entry.max_rate,
        images_per_s=per_second,
        images_ci95=(low, high),
        cost_per_million=cost_per_million(price, per_second),
        # The dearest answer comes from the lowest capacity.
        cost_ci95=(cost_per_million(price, high), cost_per_million(price, low)),
        replicas=[
            Replicas(rate, *replicas(rate, per_second), replicas(rate, low)[1] if low else None) for rate in rates
        ]
        if per_second
        else [],
    )
