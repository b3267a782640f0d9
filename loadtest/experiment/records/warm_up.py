"""warm-up.json: how a server got warm."""

from __future__ import annotations

from loadtest.experiment.records.record import Errors, Record
from loadtest.experiment.records.trial import MedianAndTail


class Window(Record, frozen=True, kw_only=True):
    """A stretch of a warm-up that ended `t` seconds after its start."""

    t: float
    rate: float
    p50_ms: float | None = None


class Settling(Record, frozen=True, kw_only=True):
    """The open load after a warm-up's closed loop: its rate, the median latency of each chunk, whether those agreed in
    the end, and how many seconds it took."""

    rate: float
    p50_ms: tuple[float | None, ...] = ()
    settled: bool
    seconds: float


class WarmUpAttempt(Record, frozen=True, kw_only=True):
    """A closed loop until windows agreed (`steady`) or its cap came (`reached_cap`), with what the last windows say of
    the server: `throughput` and `latency_ms`."""

    id: str = ""
    protocol: str
    steady: bool = True
    reached_cap: bool = False
    seconds: float = 0.0
    concurrency: int = 0
    windows: tuple[Window, ...] = ()
    throughput: float
    latency_ms: MedianAndTail = MedianAndTail()
    requests: int = 0
    errors: Errors = {}


class WarmUpRecord(WarmUpAttempt, frozen=True, kw_only=True):
    """A warm-up: its last attempt, those before that did not get steady, and the open load after it."""

    target: str
    unsteady_attempts: tuple[WarmUpAttempt, ...] | None = None
    settling: Settling | None = None
