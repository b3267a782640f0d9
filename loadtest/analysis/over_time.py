"""What a scenario shows in the course of a trial: the time to recover from a spike, the drift of a soak."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loadtest.analysis import statistics
from loadtest.analysis.saved_run import SavedTrial
from loadtest.analysis.statistics import Counts, LatencyCounts


def recoveries_s(trials: Sequence[SavedTrial], measured: LatencyCounts, limit_ms: float) -> tuple[int | None, ...]:
    """For each repetition of a spike, seconds from the end of the spike until p99 of every later second meets the SLO
    (0: it was never missed after; None: it never met it again)."""
    return tuple(
        recovery_s(measured, counts, _spike_end(trial), limit_ms)
        for trial, counts in zip(trials, measured.repetitions, strict=True)
    )


def _spike_end(trial: SavedTrial) -> float:
    shape = trial.record.arrivals
    return shape.spike_start_s + shape.spike_s if shape else 0.0


def recovery_s(measured: LatencyCounts, counts: Counts, end_s: float, limit_ms: float) -> int | None:
    """See `recoveries_s`. `counts` [seconds × buckets]: one repetition; a second without an answer misses the SLO."""
    first = int(np.ceil(end_s))
    after = counts[first:]
    if not len(after):
        return None
    p99 = statistics.quantiles(measured.values_ms, after, [0.99])[:, 0]
    misses = np.flatnonzero(~(p99 <= limit_ms))
    seconds = int(misses[-1]) + 1 if len(misses) else 0
    return seconds if seconds < len(after) else None


def drift(measured: LatencyCounts, level: float) -> float | None:
    """The quantile in the last quarter of each repetition over that in the first, of all repetitions together."""
    quarters = [max(1, len(counts) // 4) for counts in measured.repetitions]
    pairs = list(zip(measured.repetitions, quarters, strict=True))
    first = np.sum([counts[:quarter].sum(axis=0) for counts, quarter in pairs], axis=0)
    last = np.sum([counts[-quarter:].sum(axis=0) for counts, quarter in pairs], axis=0)
    begin, end = statistics.quantiles(measured.values_ms, np.stack([first, last]), [level])[:, 0]
    return float(end / begin) if np.isfinite(begin) and np.isfinite(end) and begin > 0 else None
