"""Feeds Locust's own statistics in bulk, so that its summary, CSV files and web page show the truth.

Firing `events.request` for each request would cost more than sending it; the entries end up the same.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
from locust import stats as locust_stats
from numpy.typing import NDArray

from loadtest.generator.live import Slice


class LocustStats:
    """One row of Locust's statistics: `method` is the protocol, `name` says what is measured."""

    def __init__(self, stats: Any, method: str, name: str) -> None:
        self._stats, self._method, self._name = stats, method, name

    def add(self, piece: Slice) -> None:
        """Count a slice's requests; a failed one counts as request and as failure, a dropped one as failure alone."""
        for entry in (self._stats.total, self._stats.entries[(self._name, self._method)]):
            _log(entry, np.concatenate([piece.latency_ms, piece.failed_ms]))
        errors = {**piece.errors, **({"dropped": piece.dropped} if piece.dropped else {})}
        for kind, count in errors.items():
            for _ in range(count):
                self._stats.log_error(self._method, self._name, kind)


def _log(entry: Any, took_ms: NDArray[np.float64]) -> None:
    """What `StatsEntry.log` does, for many requests."""
    if not took_ms.size:
        return
    now = time.time()
    second = int(now)
    if entry.use_response_times_cache and entry.last_request_timestamp and second > int(entry.last_request_timestamp):
        entry._cache_response_times(second - 1)
    entry.num_requests += took_ms.size
    entry.num_reqs_per_sec[second] += took_ms.size
    entry.last_request_timestamp = now
    entry.total_response_time += float(took_ms.sum())
    low, high = float(took_ms.min()), float(took_ms.max())
    entry.min_response_time = low if entry.min_response_time is None else min(entry.min_response_time, low)
    entry.max_response_time = max(entry.max_response_time, high)
    for rounded, count in Counter(np.rint(took_ms).astype(np.int64).tolist()).items():
        entry.response_times[locust_stats.bucket_response_time(rounded)] += count
