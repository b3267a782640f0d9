"""Summaries for the first screen's tests: two or three known engines, and the verdicts that a test names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from loadtest.analysis import rankings
from loadtest.analysis.records import (
    Capacity,
    Cost,
    Estimate,
    ExperimentInfo,
    LadderInfo,
    Needed,
    Outcome,
    StartCapacity,
    Summary,
    TargetInfo,
    Verdict,
)
from loadtest.experiment.boundary import Binding, Shape
from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.records import Environment
from loadtest.experiment.settings import Slo
from tests.loadtest.analysis.figures import measurement, parity

TORCHSERVE = TargetInfo(name="pytorch", engine="torchserve", engine_version="0.12.0", measured=True)
TF_SERVING = TargetInfo(name="tensorflow", engine="tensorflow-serving", engine_version="2.20.0", measured=True)
STAND_IN = TargetInfo(
    name="tensorflow",
    engine="embedded-tfserving",
    engine_version="2.21.0",
    stands_in_for="tensorflow-serving",
    measured=True,
)
UNBATCHED = TargetInfo(name="unbatched", engine="torchserve", engine_version="0.12.0", measured=True)
BOTH = ("pytorch", "tensorflow")
WITHOUT_RATIO = (Outcome.NO_COMMON_RATE, Outcome.NO_VALID_RATE, Outcome.NO_RATE_MET_SLO)


def capacity(first: float, second: float, winner: str | None = None, protocol: str = "grpc", **values: Any) -> Verdict:
    """A verdict on two capacities, requests/s; an open one unless it has a ``winner``."""
    return _verdict(Family.CAPACITY, Metric.CAPACITY, first, second, winner, protocol, values)


def latency(
    first: float, second: float, winner: str | None = None, protocol: str = "grpc", rate: float = 600.0, **values: Any
) -> Verdict:
    """A verdict on two p99 latencies, milliseconds, at the main rate."""
    values = {"offered_rate": rate, **values}
    return _verdict(Family.LATENCY, Metric.P99, first, second, winner, protocol, values)


def _verdict(
    family: Family,
    metric: Metric,
    first: float,
    second: float,
    winner: str | None,
    protocol: str,
    values: dict[str, Any],
) -> Verdict:
    ratio = first / second
    usual: dict[str, Any] = {
        "family": family,
        "compared": BOTH,
        "outcome": Outcome.WINNER if winner else Outcome.NO_DIFFERENCE_SHOWN,
        "figures": (Estimate(first, (first * 0.95, first * 1.05)), Estimate(second, (second * 0.95, second * 1.05))),
        "ratio": ratio,
        "ci95": (ratio / 1.1, ratio * 1.1),
        "starts": 4,
        "p_value": 0.0004,
        "p_adjusted": 0.002,
        "error": 0.02,
    }
    if not winner:
        usual |= {"detectable": 1.3, "needed": Needed(effect=1.2, starts=4, seconds=180.0)}
    if values.get("outcome") in WITHOUT_RATIO:
        usual |= dict.fromkeys(("figures", "ratio", "ci95", "p_value", "p_adjusted", "detectable", "needed"))
    return Verdict(metric=metric, winner=winner, protocol=protocol, **{**usual, **values})


def found(target: str, rate: float | None, protocol: str = "grpc", **values: Any) -> Capacity:
    """A capacity found by a search on four starts that lie 6 % apart."""
    starts = tuple(
        StartCapacity(repetition=block, rate=(rate or 1.0) * math.exp(off), ci95=(1.0, 2.0), trials=(f"t-{block}",))
        for block, off in enumerate((-0.06, -0.02, 0.02, 0.06), start=1)
    )
    usual: dict[str, Any] = {
        "scenario": "capacity",
        "slo": Slo(),
        "ci95": (rate * 0.95, rate * 1.05) if rate else (None, None),
        "starts": starts if rate else (),
        "spread": 0.06 if rate else None,
        "binding": Binding.P99 if rate else Binding.NONE,
        "shape": Shape.CLIFF if rate else Shape.UNKNOWN,
    }
    return Capacity(target=target, protocol=protocol, max_rate=rate, **{**usual, **values})


def summary(
    *verdicts: Verdict,
    targets: Sequence[TargetInfo] = (TORCHSERVE, TF_SERVING),
    own_rate: float = 0.0,
    price: float = 0.0,
    expected: float = 0.0,
    **values: Any,
) -> Summary:
    """A summary with these verdicts, a capacity for each figure of theirs, and one measurement for each protocol."""
    figures = {
        (name, one.protocol): figure.value
        for one in verdicts
        if one.metric is Metric.CAPACITY and one.figures
        for name, figure in zip(one.compared, one.figures, strict=True)
    }
    names = tuple(target.name for target in targets)
    protocols = tuple(dict.fromkeys(one.protocol for one in verdicts))
    usual: dict[str, Any] = {
        "experiment": ExperimentInfo(
            targets=names,
            protocols=protocols,
            model="convnet",
            dataset="fashion-mnist",
            ladder=LadderInfo(rate=own_rate, duration_s=2.5),
            cost=Cost(price_per_hour=price, expected_rate=expected),
        ),
        "environment": Environment(),
        "parity": parity(),
        "measurements": tuple(measurement(name, over) for name in names for over in protocols),
        "capacity": tuple(found(name, rate, over) for (name, over), rate in figures.items()),
        "decomposition": (),
        "rankings": rankings.of(names, [one for one in verdicts if one.family is not Family.REST]),
        "warnings": (),
    }
    return Summary(targets=tuple(targets), verdicts=verdicts, **{**usual, **values})
