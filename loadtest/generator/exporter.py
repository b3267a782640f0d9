"""The generator's Prometheus exporter: counters and histograms kept per slice, rendered when scraped."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gevent
import numpy as np
from gevent.server import StreamServer
from numpy.typing import NDArray
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from loadtest.experiment.slip import allowed_ms
from loadtest.generator.live import Slice
from models.problem import Problem

_PREFIX = "tandem_loadtest"
_LABELS = ("target", "protocol", "phase")
_LATENCY_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_SLIP_S = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0)

# Environment variable: the address to listen on, where Prometheus is on another machine (a pod, say).
HOST = "TANDEM_EXPORTER_HOST"


class _Histogram:
    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds = np.asarray(bounds_s)
        self._counts = np.zeros(len(bounds_s) + 1, dtype=np.int64)
        self.sum = 0.0

    def add(self, values_ms: NDArray[np.float64]) -> None:
        seconds = values_ms / 1e3
        self._counts += np.bincount(np.searchsorted(self._bounds, seconds), minlength=len(self._counts))
        self.sum += float(seconds.sum())

    def buckets(self) -> list[tuple[str, float]]:
        bounds = [f"{bound:g}" for bound in self._bounds] + ["+Inf"]
        return list(zip(bounds, np.cumsum(self._counts).astype(float).tolist(), strict=True))


class Tally:
    """The sums of one (target, protocol, phase kind)."""

    def __init__(self) -> None:
        self.offered = self.sent = self.completed = self.dropped = self.in_flight = 0
        self.failed: dict[str, int] = {}
        self.latency = _Histogram(_LATENCY_S)
        self.slip = _Histogram(_SLIP_S)
        self.begin_trial()

    def begin_trial(self) -> None:
        """From here on, `valid` is about a new trial."""
        self.started_at = time.time()
        self._sent = self._late = self._dropped = 0

    @property
    def valid(self) -> bool:
        """Whether the trial under way keeps its schedule so far: no arrival dropped, at most 1 % sent too late."""
        return not self._dropped and self._late <= 0.01 * self._sent

    def add(self, piece: Slice) -> None:
        """Count a slice."""
        self.offered += piece.offered
        self.sent += piece.sent
        self.completed += piece.latency_ms.size
        self.dropped += piece.dropped
        self.in_flight = piece.in_flight
        self._sent += piece.sent
        self._dropped += piece.dropped
        p50 = float(np.median(piece.latency_ms)) if piece.latency_ms.size else None
        self._late += int(np.count_nonzero(piece.slip_ms > allowed_ms(p50)))
        for kind, count in piece.errors.items():
            self.failed[kind] = self.failed.get(kind, 0) + count
        self.latency.add(piece.latency_ms)
        self.slip.add(piece.slip_ms)


class Exporter:
    """A Prometheus collector of tallies, and the HTTP server in front of it.

    Labels: target, protocol, phase ("warm-up", "open-loop", "closed-loop") and kind of error; never a trial's
    name, so the number of series stays bounded. `between` is called between pieces of a scrape's work (milliseconds in
    all), so that no due request waits for the whole of it.
    """

    def __init__(self) -> None:
        self.between: Callable[[], None] = nothing_due
        self._tallies: dict[tuple[str, str, str], Tally] = {}
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        self._server: StreamServer | None = None

    def tally(self, target: str, protocol: str, phase: str) -> Tally:
        """The tally with these labels."""
        return self._tallies.setdefault((target, protocol, phase), Tally())

    def collect(self) -> Iterator[Metric]:
        """Prometheus client's collector interface."""
        for name, what in (
            ("offered", "Requests that were due"),
            ("sent", "Requests sent"),
            ("completed", "Requests answered with the right status"),
            ("dropped", "Requests not sent because too many were in flight"),
        ):
            counter = CounterMetricFamily(f"{_PREFIX}_{name}_requests", what, labels=_LABELS)
            for labels, tally in self._tallies.items():
                counter.add_metric(labels, getattr(tally, name))
            yield counter
            self.between()
        failed = CounterMetricFamily(
            f"{_PREFIX}_failed_requests", "Requests failed, by kind", labels=(*_LABELS, "kind")
        )
        in_flight = GaugeMetricFamily(f"{_PREFIX}_requests_in_flight", "Requests sent and not ended", labels=_LABELS)
        latency = HistogramMetricFamily(
            f"{_PREFIX}_latency_seconds", "From the time a request was due to its answer's last byte", labels=_LABELS
        )
        slip = HistogramMetricFamily(f"{_PREFIX}_schedule_slip_seconds", "Send time minus due time", labels=_LABELS)
        valid = GaugeMetricFamily(
            f"{_PREFIX}_valid", "1 while the trial under way keeps its schedule and drops nothing", labels=_LABELS
        )
        started = GaugeMetricFamily(
            f"{_PREFIX}_phase_start_time_seconds", "Unix time at which the latest phase began", labels=_LABELS
        )
        for labels, tally in self._tallies.items():
            for kind, count in tally.failed.items():
                failed.add_metric((*labels, kind), count)
            in_flight.add_metric(labels, tally.in_flight)
            valid.add_metric(labels, float(tally.valid))
            started.add_metric(labels, tally.started_at)
            latency.add_metric(labels, tally.latency.buckets(), tally.latency.sum)
            slip.add_metric(labels, tally.slip.buckets(), tally.slip.sum)
            self.between()
        for family in (failed, in_flight, valid, started, latency, slip):
            yield family
            self.between()

    def start(self, port: int) -> None:
        """Serve on loopback, or on `HOST` (in a container). Raises `Problem` where the port is taken."""
        self._server = StreamServer((os.environ.get(HOST, "127.0.0.1"), port), self._answer)
        try:
            self._server.start()
        except OSError as error:
            raise Problem(f"exporter_port = {port}: cannot listen there: {error.strerror}; use a free port") from error

    def stop(self) -> None:
        """Stop serving."""
        if self._server is not None:
            self._server.stop(timeout=1)
            self._server = None

    def _answer(self, connection: Any, _: Any) -> None:
        """One HTTP request, whatever it asks for. A web framework would take longer than the metrics do."""
        with gevent.Timeout(5, False):
            head = b""
            while b"\r\n\r\n" not in head and len(head) < 65_536:
                received = connection.recv(16_384)
                if not received:
                    return
                head += received
            body = generate_latest(self._registry)
            self.between()
            fields = f"Content-Type: {CONTENT_TYPE_LATEST}\r\nContent-Length: {len(body)}\r\nConnection: close"
            connection.sendall(f"HTTP/1.1 200 OK\r\n{fields}\r\n\r\n".encode("ascii") + body)


def nothing_due() -> None:
    """For loops that have nothing to send between two pieces of work."""
