"""TorchServe: the recorded metrics, and what only it tells of itself."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana import board
from monitoring.grafana.board import Row
from monitoring.grafana.measures import native, recorded
from monitoring.grafana.one_server import native_heat_map, native_rate, rows
from monitoring.grafana.panels import graph
from monitoring.grafana.selection import TORCHSERVE, Query, legend, select, series


def build() -> Dashboard:
    """Why TorchServe is slow, full or failing."""
    return board.build(
        TORCHSERVE.uid,
        f"Tandem / {TORCHSERVE.title}",
        "One server in detail: the recorded metrics first, then what TorchServe and its handler tell of themselves.",
        [*rows(TORCHSERVE), _workers(), _where_time_goes(), _answers()],
    )


def _workers() -> Row:
    workers, restarts, load = (
        recorded("serving:workers"),
        recorded("serving:worker_restarts:increase"),
        native("WorkerLoadTime"),
    )
    seconds = load.scaled(f"max by (WorkerName) ({select(load, server=TORCHSERVE)})")
    return Row(
        "Workers",
        graph("Workers alive", workers, [series(workers, server=TORCHSERVE)], width=8),
        graph("Worker restarts", restarts, [series(restarts, server=TORCHSERVE)], width=8),
        graph("Time to load the model", load, [Query(seconds, legend("WorkerName"))], width=8),
    )


def _where_time_goes() -> Row:
    return Row(
        "Where the time goes",
        native_heat_map("Wait in the queue", native("QueueTime"), TORCHSERVE, width=8),
        native_heat_map("Handler's call", native("tandem_handler_seconds"), TORCHSERVE, width=8),
        native_heat_map("Computation of the model", native("tandem_compute_seconds"), TORCHSERVE, width=8),
    )


def _answers() -> Row:
    answers = [(code, native(f"Requests{code}")) for code in ("2XX", "4XX", "5XX")]
    return Row(
        "Answers",
        *(native_rate(f"REST answers {code}", one, TORCHSERVE, "server", width=6) for code, one in answers),
        native_rate("Inputs refused by the handler", native("tandem_bad_requests_total"), TORCHSERVE, "model", width=6),
        native_heat_map("Images in a batch", native("tandem_batch_images"), TORCHSERVE, width=24),
    )
