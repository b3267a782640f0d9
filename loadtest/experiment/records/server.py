"""server.json: what a server says of a trial."""

from __future__ import annotations

from loadtest.experiment.records.record import Record
from loadtest.experiment.records.trial import MedianAndTail


class ModelLatency(Record, frozen=True, kw_only=True):
    """What a server says of one of several models' latency, in milliseconds."""

    p50: float | None = None
    p99: float | None = None
    mean: float | None = None


class ServerFigures(Record, frozen=True, kw_only=True):
    """What a server says of a trial; None where its engine does not tell.

    throughput       requests/s; batch sizes are images, times milliseconds
    latency_ms       of one model; of several, quantiles are in `by_model` alone: they do not add up
    latency_meaning  which part of a request's time the engine counts
    source           who was asked
    """

    throughput: float | None = None
    latency_ms: MedianAndTail = MedianAndTail()
    latency_ms_mean: float | None = None
    by_model: dict[str, ModelLatency] | None = None
    latency_meaning: str = ""
    batch_size_mean: float | None = None
    compute_ms_mean: float | None = None
    queue_ms_mean: float | None = None
    source: str = ""
