"""Prometheus page with TensorFlow Serving's metric families, labels and buckets, and this server's own name.

Like the real page, bucket bounds are exclusive: a value of 1 lands in `le="2"`. All times are microseconds.
Everything is recorded and read on the event loop's thread, so nothing is locked.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from serving.engines.embedded_tfserving.identity import NAME, VERSION

LATENCY_BOUNDS = tuple(10 * 1.8**n for n in range(33))
QUEUING_BOUNDS = tuple(100 * 1.2**n for n in range(52))
SIZE_BOUNDS = tuple(float(2**n) for n in range(14))

# Clients choose the model names that they ask for; names that are not configured share this label value, so that
# nobody can grow the page without bound.
UNKNOWN_MODEL = "(unknown)"


class Counter:
    """A value that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def add(self, amount: int = 1) -> None:
        """Count `amount` more events."""
        self.value += amount

    def lines(self, family: str, labels: str) -> list[str]:
        """This series in the exposition format."""
        return [f"{family}{{{labels}}} {self.value}"]


class Histogram:
    """Counts of values in buckets, and their sum."""

    __slots__ = ("bounds", "buckets", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Record one value."""
        self.buckets[bisect_right(self.bounds, value)] += 1
        self.sum += value

    def lines(self, family: str, labels: str) -> list[str]:
        """This series in the exposition format; buckets are cumulative."""
        comma = "," if labels else ""
        lines, total = [], 0
        for bound, count in zip([f"{bound:g}" for bound in self.bounds] + ["+Inf"], self.buckets, strict=True):
            total += count
            lines.append(f'{family}_bucket{{{labels}{comma}le="{bound}"}} {total}')
        return [*lines, f"{family}_sum{{{labels}}} {self.sum:.0f}", f"{family}_count{{{labels}}} {total}"]


class Family:
    """One metric with its series, by label values."""

    def __init__(self, name: str, labels: Sequence[str] = (), bounds: Sequence[float] | None = None) -> None:
        self.name = name
        self.labels = labels
        self.bounds = bounds
        self.series: dict[tuple[str, ...], Counter | Histogram] = {}

    def lines(self) -> list[str]:
        """The family in the exposition format."""
        lines = [f"# TYPE {self.name} {'counter' if self.bounds is None else 'histogram'}"]
        for values, series in sorted(self.series.items(), key=lambda item: item[0]):
            pairs = zip(self.labels, values, strict=True)
            lines += series.lines(self.name, ",".join(f'{name}="{_escape(value)}"' for name, value in pairs))
        return lines


class CounterFamily(Family):
    """Counters of one name."""

    def of(self, *values: str) -> Counter:
        """The series with these label values, made when it is new."""
        series = self.series.get(values) or self.series.setdefault(values, Counter())
        assert isinstance(series, Counter)
        return series


class HistogramFamily(Family):
    """Histograms of one name and one set of bounds."""

    def of(self, *values: str) -> Histogram:
        """The series with these label values, made when it is new."""
        series = self.series.get(values) or self.series.setdefault(values, Histogram(self.bounds or ()))
        assert isinstance(series, Histogram)
        return series


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Metrics:
    """Every family that the real server promises (those whose names begin `:tensorflow:serving:`)."""

    def __init__(self, tensorflow_version: str) -> None:
        serving = ":tensorflow:serving:"
        batching = serving + "batching_session:"
        self.build = (
            f'embedded_tfserving_build_info{{name="{NAME}",version="{VERSION}",tensorflow="{tensorflow_version}"}} 1'
        )
        self.input_batch_size = HistogramFamily(batching + "input_batch_size", (), SIZE_BOUNDS)
        self.padding_size = HistogramFamily(batching + "padding_size", ("execution_batch_size",), SIZE_BOUNDS)
        self.processed_batch_size = HistogramFamily(batching + "processed_batch_size", (), SIZE_BOUNDS)
        self.queuing_latency = HistogramFamily(batching + "queuing_latency", ("thread_pool_name",), QUEUING_BOUNDS)
        self.wrapped_run_count = CounterFamily(batching + "wrapped_run_count")
        self.request_count = CounterFamily(serving + "request_count", ("model_name", "status"))
        self.request_latency = HistogramFamily(
            serving + "request_latency", ("model_name", "API", "entrypoint"), LATENCY_BOUNDS
        )
        self.runtime_latency = HistogramFamily(
            serving + "runtime_latency", ("model_name", "API", "runtime"), LATENCY_BOUNDS
        )
        self.load_attempts = CounterFamily(":tensorflow:cc:saved_model:load_attempt_count", ("model_path", "status"))
        self.load_latency = CounterFamily(":tensorflow:cc:saved_model:load_latency", ("model_path",))
        self.families: list[Family] = [
            self.load_attempts,
            self.load_latency,
            self.input_batch_size,
            self.padding_size,
            self.processed_batch_size,
            self.queuing_latency,
            self.wrapped_run_count,
            HistogramFamily(serving + "model_warmup_latency", ("model_path", "status"), LATENCY_BOUNDS),
            CounterFamily(serving + "model_warmup_records_read", ("model_path", "status")),
            self.request_count,
            CounterFamily(serving + "request_example_count_total", ("model_name",)),
            HistogramFamily(serving + "request_example_counts", ("model_name",), SIZE_BOUNDS),
            self.request_latency,
            CounterFamily(serving + "request_log_count", ("model_name", "status_code")),
            self.runtime_latency,
        ]

    def page(self) -> bytes:
        """The page in Prometheus' text exposition format."""
        lines = ["# TYPE embedded_tfserving_build_info gauge", self.build]
        for family in self.families:
            lines += family.lines()
        return ("\n".join(lines) + "\n").encode()
