"""What a scenario shows in the course of a trial: the time to recover from a spike, the drift of a soak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from loadtest.analysis import statistics
from loadtest.analysis.saved_run import SavedTrial
from loadtest.analysis.statistics import Counts, Measurement


def figures(
    scenario: str, trials: Sequence[SavedTrial], measurement: Measurement, slo: dict[str, float]
) -> dict[str, Any]:
    """More keys for a measurement.

    spike  `recovery_s`: for each repetition, seconds from the end of the spike until p99 of every later second meets
           the SLO (0: it was never missed after; None: it never met it again)
    soak   `drift_p50`, `drift_p99`: the percentile in the last quarter of the time over that in the first
    """
    if scenario == "spike":
        recovered = [
            recovery_s(measurement, counts, _spike_end(trial), slo["p99_ms"])
            for trial, counts in zip(trials, measurement.repetitions, strict=True)
        ]
        return {"recovery_s": recovered}
    if scenario == "soak":
        return {f"drift_{name}": drift(measurement, level) for name, level in (("p50", 0.5), ("p99", 0.99))}
    return {}


def _spike_end(trial: SavedTrial) -> float:
    shape = trial.record.get("arrivals") or {}
    return float(shape.get("spike_start_s", 0.0)) + float(shape.get("spike_s", 0.0))


def recovery_s(measurement: Measurement, counts: Counts, end_s: float, limit_ms: float) -> int | None:
    """See `figures`. `counts` [seconds × buckets]: one repetition; a second without an answer misses the SLO."""
    first = int(np.ceil(end_s))
    after = counts[first:]
    if not len(after):
        return None
    p99 = statistics.quantiles(measurement.values_ms, after, [0.99])[:, 0]
    misses = np.flatnonzero(~(p99 <= limit_ms))
    seconds = int(misses[-1]) + 1 if len(misses) else 0
    return seconds if seconds < len(after) else None


def drift(measurement: Measurement, level: float) -> float | None:
    """The quantile in the last quarter of each repetition over that in the first, of all repetitions together."""
    quarters = [max(1, len(counts) // 4) for counts in measurement.repetitions]
    pairs = list(zip(measurement.repetitions, quarters, strict=True))
    first = np.sum([counts[:quarter].sum(axis=0) for counts, quarter in pairs], axis=0)
    last = np.sum([counts[-quarter:].sum(axis=0) for counts, quarter in pairs], axis=0)
    begin, end = statistics.quantiles(measurement.values_ms, np.stack([first, last]), [level])[:, 0]
    return float(end / begin) if np.isfinite(begin) and np.isfinite(end) and begin > 0 else None
