"""Warm-up: a closed loop until the server's throughput is steady, which also probes its capacity."""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gevent
import numpy as np
from numpy.typing import NDArray

from loadtest.generator.expiry import Client, Expiry
from loadtest.generator.live import Reader
from loadtest.generator.phases import WarmUpPhase
from loadtest.generator.recording import Recording
from loadtest.generator.steady_state import agreeing
from loadtest.generator.timer import clock
from models.problem import Problem

_REFILL_S = 0.01
# A server that answers nothing but errors for this long is not warming up.
_PATIENCE_S = 5.0


class ClosedLoop:
    """`concurrency` requests in flight: each success is followed by the next request at once, each failure by one at
    the next `refill`, so that a server that refuses everything is not hammered."""

    def __init__(self, payloads: Sequence[bytes], concurrency: int) -> None:
        self.recording = Recording()
        self._payloads = itertools.cycle(payloads)
        self._concurrency = concurrency
        self._client: Client | None = None

    def start(self, client: Client) -> None:
        """Begin sending."""
        self._client = client
        self.refill()

    def stop(self) -> None:
        """Send nothing more."""
        self._client = None

    def finish(self, request: int, kind: str | None, when: float, body: bytes | None) -> None:
        """A request has ended (called by the client)."""
        self.recording.finish(request, kind, when, body)
        if kind is None and self._client is not None:
            self._send(self._client)

    def refill(self) -> None:
        """Replace the requests that failed."""
        if self._client is not None:
            for _ in range(self._concurrency - self.recording.in_flight):
                self._send(self._client)

    def _send(self, client: Client) -> None:
        recording = self.recording
        now = clock()
        request = recording.offer(now)
        recording.offered = request + 1
        recording.sent[request] = now
        recording.in_flight += 1
        client.send(request, next(self._payloads), False)


def warm_up(phase: WarmUpPhase, loop: ClosedLoop, client: Client, tick: Callable[[float], None]) -> dict[str, Any]:
    """Run the loop until it is steady or at its cap; warm-up.json's values without the target's.

    Raises `Problem` when nothing but errors comes back.
    """
    windows: list[dict[str, float | None]] = []
    latency_ms: list[NDArray[np.float64]] = []  # by window
    errors: Counter[str] = Counter()
    reader = Reader(loop.recording)
    expiry = Expiry(loop.recording, client, phase.timeout_s)
    began = edge = last_success = clock()
    agreed = 0
    loop.start(client)
    try:
        while not agreed and clock() - began < phase.max_s:
            next_edge = edge + phase.window_s
            while (now := clock()) < next_edge:
                gevent.sleep(min(_REFILL_S, next_edge - now))
                expiry.sweep(clock())
                loop.refill()
            tick(now)
            piece = reader.read()
            errors.update(piece.errors)
            succeeded = piece.latency_ms.size
            p50 = round(float(np.median(piece.latency_ms)), 3) if succeeded else None
            windows.append({"t": round(now - began, 3), "rate": round(succeeded / (now - edge), 2), "p50_ms": p50})
            latency_ms.append(piece.latency_ms)
            edge = now
            last_success = now if succeeded else last_success
            if errors and now - last_success > _PATIENCE_S:
                break
            if now - began >= phase.min_s:
                agreed = agreeing([float(window["rate"] or 0) for window in windows], phase.tolerance)
    finally:
        loop.stop()
    counted = windows[-(agreed or 4) :]
    throughput = math.fsum(float(window["rate"] or 0) for window in counted) / len(counted)
    if not throughput:
        seen = ", ".join(f"{count} × {kind}" for kind, count in errors.most_common()) or "no answer at all"
        raise Problem(f"warm-up {phase.id}: no successful answer for {edge - last_success:.1f} s: {seen}")
    p50, p99 = np.percentile(np.concatenate(latency_ms[-len(counted) :]), (50, 99)).round(3).tolist()
    return {
        "id": phase.id,
        "protocol": phase.protocol,
        "steady": bool(agreed),
        "reached_cap": not agreed,
        "seconds": round(edge - began, 3),
        "concurrency": phase.concurrency,
        "windows": windows,
        "throughput": round(throughput, 2),
        "latency_ms": {"p50": p50, "p99": p99},
        "requests": len(loop.recording),
        "errors": dict(errors),
    }


def write_warm_up(folder: Path, values: dict[str, Any]) -> None:
    """Write warm-up.json into an existing folder."""
    (folder / "warm-up.json").write_text(json.dumps(values, indent=2) + "\n")
