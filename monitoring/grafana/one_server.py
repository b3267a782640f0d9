"""The rows that both servers' dashboards begin with: the recorded metrics of one server, all that it can report."""

from __future__ import annotations

from collections.abc import Sequence

from monitoring import schema
from monitoring.grafana.board import Row
from monitoring.grafana.measures import Measure, recorded
from monitoring.grafana.panels import Panel, graph, heat_map, number, states
from monitoring.grafana.selection import Query, WatchedServer, legend, rate, select, series

UP = {"0": ("down", "red"), "1": ("up", "green")}


def rows(server: WatchedServer) -> Sequence[Row]:
    """State, traffic, latency, batching and resources of a server."""
    return (
        Row("State", _up(server), *(_number(server, *one) for one in _STATE)),
        Row("Traffic", *(_graph(server, *one, width=8) for one in _TRAFFIC)),
        Row("Latency", *(_graph(server, *one) for one in _LATENCY)),
        Row("Batching", *(_graph(server, *one, width=8) for one in _BATCHING)),
        Row("Resources", *(_graph(server, *one, width=6) for one in _RESOURCES)),
    )


_STATE = (
    ("Model version", "serving:model_version"),
    ("Requests", "serving:requests:rate1m"),
    ("p99", "serving:request_latency_seconds:p99"),
    ("Errors", "serving:errors:ratio"),
)
_TRAFFIC = (
    ("Requests and goodput", "serving:requests:rate1m", "serving:goodput:rate1m"),
    ("Errors a second", "serving:errors:rate1m"),
    ("Error ratio", "serving:errors:ratio"),
)
_LATENCY = (
    (
        "Latency inside the server",
        "serving:request_latency_seconds:p50",
        "serving:request_latency_seconds:p95",
        "serving:request_latency_seconds:p99",
        "serving:request_latency_seconds:mean",
    ),
    ("Computation", "serving:compute_seconds:mean", "serving:compute_seconds:p50", "serving:compute_seconds:p99"),
)
_BATCHING = (
    ("Batch size", "serving:batch_size:avg"),
    ("Batches a second", "serving:batches:rate1m"),
    ("Wait for a batch", "serving:queue_seconds:mean", "serving:queue_seconds:p99"),
)
_RESOURCES = (
    ("Saturation", "serving:saturation:ratio"),
    ("In flight", "serving:inflight"),
    ("CPU", "serving:cpu:cores"),
    ("Memory", "serving:memory_bytes"),
)


def native_heat_map(title: str, measure: Measure, server: WatchedServer, *matchers: str, width: int = 12) -> Panel:
    """The heat map of one of the server's own histograms."""
    buckets = select(measure, *matchers, server=server, suffix="_bucket")
    return heat_map(title, measure, Query(f"sum by (le) ({rate(buckets)})", "{{le}}"), width=width)


def native_rate(title: str, measure: Measure, server: WatchedServer, *labels: str, width: int = 12) -> Panel:
    """Lines of how fast one of the server's own counters grows, by labels."""
    grown = f"sum by ({', '.join(labels)}) ({rate(select(measure, server=server))})"
    return graph(title, measure, [Query(grown, legend(*labels))], width=width)


def _up(server: WatchedServer) -> Panel:
    up = recorded("serving:up")
    return states("Up", up, [series(up, "instance", server=server)], words=UP, width=8)


def _number(server: WatchedServer, title: str, name: str) -> Panel:
    return number(title, recorded(name), [series(recorded(name), server=server)], width=4)


def _graph(server: WatchedServer, title: str, *names: str, width: int = 12) -> Panel:
    """Lines of the metrics that this server can report."""
    told = [name for name in names if server.dialect in _dialects(name)]
    lines = [series(recorded(name), server=server, note=_part(name) if len(names) > 1 else "") for name in told]
    return graph(title, recorded(told[0]), lines, width=width)


def _dialects(name: str) -> Sequence[str]:
    """The server dialects that a metric has a source in; all, where it comes from elsewhere (such as the scrape)."""
    known = schema.load()
    own = [dialect for dialect in known.metrics[name].dialects if known.dialects[dialect].servers]
    return own or [name for name, dialect in known.dialects.items() if dialect.servers]


def _part(name: str) -> str:
    """What sets a metric apart from its neighbours: p99, mean, goodput."""
    _, subject, last = name.split(":")
    return subject if last.startswith("rate") else last
