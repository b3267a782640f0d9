"""Where the time of a request goes."""

from __future__ import annotations

import enum

from loadtest.analysis.records.record import Record


class Untold(enum.Enum):
    """Why a part of the latency is not known, or only within limits.

    QUEUE          the server does not report how long a request waits for its batch
    BATCH          the server does not report how large its batches are, so the model's time is not known
    MODEL          the model alone was not measured (`Decomposition.model_problem` says why, where it was tried)
    UNEVEN         the model alone took longer than inside the server: the machine was not equally fast twice
    """

    QUEUE = "queue"
    BATCH = "batch"
    MODEL = "model"
    UNEVEN = "uneven"


class Parts(Record, frozen=True, kw_only=True):
    """Milliseconds of the mean latency (see `loadtest.analysis.decomposition`); None where nobody can tell. Also by
    name: ``parts_ms["queue"]``. ``decoding``: of files; 0 where clients send tensors."""

    model: float | None = None
    decoding: float | None = 0.0
    queue: float | None = None
    runtime: float | None = None
    transport: float | None = None

    def __getitem__(self, name: str) -> float | None:
        value: float | None = getattr(self, name)
        return value


class Decomposition(Record, frozen=True, kw_only=True):
    """Where the mean latency of a measurement goes; ``batch_size_mean``: the server's mean batch, images."""

    target: str
    protocol: str
    scenario: str
    offered_rate: float
    parts_ms: Parts
    total_ms: float
    batch_size_mean: float | None
    cannot_report: tuple[Untold, ...] = ()
    model_problem: str | None = None
