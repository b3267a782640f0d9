"""Comparison: the servers side by side on every row, and on one scale."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana import board
from monitoring.grafana.board import Row
from monitoring.grafana.measures import native, recorded
from monitoring.grafana.one_server import UP
from monitoring.grafana.panels import graph, number, states
from monitoring.grafana.selection import SERVERS, Query, select, series


def build() -> Dashboard:
    """The dashboard to start from: which server is faster, fuller, or in trouble."""
    return board.build(
        "tandem-comparison",
        "Tandem / Comparison",
        "The servers in one vocabulary, side by side: TorchServe, TensorFlow Serving, and NVIDIA Triton where it takes "
        "part. A click on a value or a line leads to that server's own dashboard.",
        [
            _servers(),
            _row("Request rate", "serving:requests:rate1m"),
            _row("Goodput", "serving:goodput:rate1m"),
            _row("Latency p50", "serving:request_latency_seconds:p50"),
            _row("Latency p95", "serving:request_latency_seconds:p95"),
            _row("Latency p99", "serving:request_latency_seconds:p99"),
            _row("Errors", "serving:errors:ratio"),
            _row("Batch size", "serving:batch_size:avg"),
            _row("Queue", "serving:queue_seconds:mean", "serving:queue_seconds:p99"),
            _row("Saturation", "serving:saturation:ratio"),
            _row("In flight", "serving:inflight"),
            _row("CPU", "serving:cpu:cores"),
            _row("Memory", "serving:memory_bytes"),
            _gpu(),
        ],
    )


def _servers() -> Row:
    up, version, alerts = recorded("serving:up"), recorded("serving:model_version"), native("ALERTS")
    firing = select(alerts, 'alertstate="firing"')
    return Row(
        "Servers",
        states("Up", up, [series(up, "instance")], words=UP),
        number("Model version", version, [series(version)]),
        number("Alerts firing", alerts, [Query(f"sum ({firing}) or vector(0)", "alerts")]),
    )


def _row(title: str, name: str, *more: str) -> Row:
    """Each server's value beside the others', and all as lines on one scale; `more` are lines of further metrics."""
    measure = recorded(name)
    lines = [series(recorded(one), note=one.rsplit(":", 1)[1] if more else "") for one in (name, *more)]
    return Row(
        title,
        number(f"{title}: each", measure, [series(measure)], width=12, servers=SERVERS),
        graph(f"{title}: together", measure, lines, servers=SERVERS),
    )


def _gpu() -> Row:
    utilisation, memory = recorded("gpu:utilisation:ratio"), recorded("gpu:memory:ratio")
    return Row(
        "GPU",
        graph("GPU utilisation", utilisation, [series(utilisation, "Hostname", "gpu")], maximum=1),
        graph("GPU memory", memory, [series(memory, "Hostname", "gpu")], maximum=1),
    )
