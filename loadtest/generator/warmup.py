"""Warm-up: when a closed loop's throughput has become steady, which also probes the server's capacity."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from loadtest.experiment.phases import WarmUpPhase
from loadtest.experiment.records import MedianAndTail, WarmUpAttempt, Window
from loadtest.generator.live import Slice
from loadtest.generator.steady_state import agreeing
from models.problem import Problem

# A server that answers nothing but errors for this long is not warming up.
_PATIENCE_S = 5.0
# A slow server, whose windows are long because each caller gets an answer in one, has time for so many of them; for a
# cap that is later by so many seconds at most (`WarmUpPhase.longest_s` allows for 30).
_FEWEST_WINDOWS, _LATER_S = 8, 20.0


class WarmUp:
    """Watches a warm-up slice by slice: `over` once it is steady, at its cap, or hopeless.

    A window is open for `window_s`, and on until there were as many answers as callers, or an error: a server that
    answers whole batches of them would seem unsteady in shorter ones.
    Times are in seconds of any clock that all slices share; the first one's slice begins at `began`.
    """

    def __init__(self, phase: WarmUpPhase, began: float) -> None:
        self._phase = phase
        self._began = self._edge = self._last_success = began
        self._due = began + phase.window_s  # when the window that is open closes
        self._pieces: list[Slice] = []
        self._windows: list[Window] = []
        self._latency_ms: list[NDArray[np.float64]] = []  # by window
        self._errors: Counter[str] = Counter()
        self._said = ""
        self._agreed = 0
        self._requests = self._answered = 0  # in all, and in the window that is open
        self.over = False

    def take(self, piece: Slice, now: float) -> None:
        """What happened until `now`."""
        self._pieces.append(piece)
        self._said = self._said or piece.said
        self._answered += piece.latency_ms.size
        failing = any(one.errors for one in self._pieces)
        whole = self._answered >= self._phase.concurrency or failing or now - self._edge >= _PATIENCE_S
        if now >= self._due - 1e-6 and whole:
            self._due = max(self._due + self._phase.window_s, now)
            self._close_window(now)

    def _close_window(self, now: float) -> None:
        phase = self._phase
        for piece in self._pieces:
            self._errors.update(piece.errors)
        latency_ms = np.concatenate([piece.latency_ms for piece in self._pieces])
        self._pieces.clear()
        self._answered = 0
        succeeded = latency_ms.size
        p50 = round(float(np.median(latency_ms)), 3) if succeeded else None
        rate = round(succeeded / (now - self._edge), 2)
        self._windows.append(Window(t=round(now - self._began, 3), rate=rate, p50_ms=p50))
        self._latency_ms.append(latency_ms)
        self._requests += succeeded
        self._edge = now
        self._last_success = now if succeeded else self._last_success
        if now - self._began >= phase.min_s:
            self._agreed = agreeing([window.rate for window in self._windows], phase.tolerance)
        hopeless = bool(self._errors) and now - self._last_success >= _PATIENCE_S
        # Open load that follows makes up for requests that are missing here.
        enough = phase.settle_s > 0 or self._requests >= phase.min_requests
        late = now - self._began - phase.max_s
        fewest = min(_FEWEST_WINDOWS, int(phase.max_s / phase.window_s))
        capped = late >= 0 and (len(self._windows) >= fewest or late >= _LATER_S)
        self.over = (bool(self._agreed) and enough) or hopeless or capped

    def result(self) -> WarmUpAttempt:
        """What it found. Raises `Problem` when nothing but errors came back."""
        phase, windows = self._phase, self._windows
        counted = windows[-(self._agreed or 4) :]
        throughput = math.fsum(window.rate for window in counted) / len(counted)
        if not throughput:
            seen = ", ".join(f"{count} × {kind}" for kind, count in self._errors.most_common()) or "no answer at all"
            silence = self._edge - self._last_success
            said = f"; the first said: {self._said}" if self._said else ""
            raise Problem(f"warm-up {phase.id}: no successful answer for {silence:.1f} s: {seen}{said}")
        latency_ms = np.concatenate(self._latency_ms[-len(counted) :])
        p50, p99 = np.percentile(latency_ms, (50, 99)).round(3).tolist()
        return WarmUpAttempt(
            id=phase.id,
            protocol=phase.protocol,
            steady=bool(self._agreed),
            reached_cap=not self._agreed,
            seconds=round(self._edge - self._began, 3),
            concurrency=phase.concurrency,
            windows=tuple(windows),
            throughput=round(throughput, 2),
            latency_ms=MedianAndTail(p50=p50, p99=p99),
            requests=self._requests + self._errors.total(),
            errors=dict(self._errors),
        )
