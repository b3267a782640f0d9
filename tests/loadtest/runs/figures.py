"""Small results for tests of what reads them: a summary with what the test names, and defaults for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loadtest.analysis.records import (
    Capacity,
    Estimate,
    ExperimentInfo,
    Intervals,
    Measurement,
    Outcome,
    Percentiles,
    Summary,
    TargetInfo,
    Verdict,
)
from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.records import Environment
from loadtest.experiment.settings import Slo
from tests.loadtest.analysis.figures import measurement as complete
from tests.loadtest.analysis.figures import parity

PROVEN = parity()


def measurement(target: str, protocol: str = "grpc", **values: Any) -> Measurement:
    """One measurement of an unknown engine; ``values`` override what is usual."""
    usual: dict[str, Any] = {
        "offered_rate": 9.0,
        "engine": "e",
        "engine_version": "1",
        "goodput": 1.0,
        "latency_ms": Percentiles(p50=0.5, p99=1.0),
        "ci95": Intervals(),
    }
    return complete(target, protocol, **{**usual, **values})


def verdict(
    metric: Metric, winner: str | None, compared: tuple[str, str], protocol: str = "grpc", **values: Any
) -> Verdict:
    """One verdict: for its winner, or (unless ``values`` says otherwise) without one for want of starts."""
    usual: dict[str, Any] = {
        "family": Family.CAPACITY if metric is Metric.CAPACITY else Family.LATENCY,
        "outcome": Outcome.WINNER if winner else Outcome.ONE_START_ONLY,
        "offered_rate": None if metric is Metric.CAPACITY else 9.0,
        "figures": (Estimate(1.0, None), Estimate(1.0, None)),
        "ratio": 1.0,
        "ci95": (0.9, 1.1),
    }
    return Verdict(protocol=protocol, metric=metric, compared=compared, winner=winner, **{**usual, **values})


def capacity(target: str, protocol: str = "grpc", **values: Any) -> Capacity:
    """One capacity, of a ladder: 500/s, between 500/s and 800/s."""
    usual: dict[str, Any] = {
        "scenario": "ladder",
        "slo": Slo(),
        "max_rate": 500.0,
        "ci95": (500.0, 800.0),
        "tested_rates": (500.0,),
    }
    return Capacity(target=target, protocol=protocol, **{**usual, **values})


def summary(targets: Sequence[str], **values: Any) -> Summary:
    """A summary of measured targets of an unknown engine "e", version 1."""
    infos = tuple(TargetInfo(name=name, engine="e", engine_version="1", measured=True) for name in targets)
    usual: dict[str, Any] = {
        "experiment": ExperimentInfo(targets=tuple(targets)),
        "environment": Environment(),
        "parity": PROVEN,
        "targets": infos,
        "measurements": (),
        "capacity": (),
        "decomposition": (),
        "verdicts": (),
        "rankings": (),
        "warnings": (),
    }
    return Summary(**{**usual, **values})
