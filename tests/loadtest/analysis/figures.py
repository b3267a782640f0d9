"""Records as the analysis makes them, of which a test names only what it is about."""

from __future__ import annotations

from typing import Any

from loadtest.analysis.records import Intervals, Measurement, Parity, Percentiles, Slip
from loadtest.experiment.records import Requests


def measurement(target: str, protocol: str = "grpc", offered_rate: float = 100.0, **values: Any) -> Measurement:
    """A valid measurement of two repetitions of five seconds in which every request was answered in 20 ms or less."""
    requests = round(offered_rate * 10)
    complete: dict[str, Any] = {
        "scenario": "ladder",
        "engine": "torchserve",
        "engine_version": "0.12.0",
        "batch": 1,
        "achieved_rate": offered_rate,
        "goodput": offered_rate,
        "images_per_s": offered_rate,
        "latency_ms": Percentiles(p50=10.0, p90=12.0, p95=14.0, p99=18.0, p999=19.0, max=20.0),
        "ci95": Intervals(p99=(17.0, 19.0), goodput=(offered_rate * 0.9, offered_rate)),
        "requests": Requests(scheduled=requests, sent=requests, completed=requests, ok=requests),
        "errors": {},
        "error_ratio": 0.0,
        "schedule_slip_ms": Slip(p99=0.3, max=1.0),
        "valid": True,
        "why_not_valid": (),
        "cautions": (),
        "few_samples": (),
        "repetitions": 2,
        "duration_s": 10.0,
        "in_flight_max": 12,
        "generator_cpu": 0.4,
        "cpu_stolen": 0.0,
        "warm_up_throughput": (),
        "server": (),
        "trials": (),
        "spoiled": (),
    }
    return Measurement(target=target, protocol=protocol, offered_rate=offered_rate, **{**complete, **values})


def parity(proven: bool = True) -> Parity:
    """Evidence that there is, or is not."""
    return Parity(
        tolerance=1e-4,
        samples=100,
        wire_samples=100,
        exports={},
        wire={},
        max_abs_diff=1e-7,
        proven=proven,
        why_not_proven=(),
    )


def bounds(ends: tuple[float | None, float | None] | None) -> tuple[float, float]:
    """An interval of which both ends are known."""
    assert ends is not None
    low, high = ends
    assert low is not None
    assert high is not None
    return low, high
