"""TensorFlow Serving, and the embedded server that speaks its metrics: recorded metrics, and what only it tells."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana import board
from monitoring.grafana.board import Row
from monitoring.grafana.measures import native
from monitoring.grafana.one_server import native_heat_map, native_rate, rows
from monitoring.grafana.panels import graph
from monitoring.grafana.selection import TENSORFLOW, Query, legend, select

_PREDICTIONS = 'API!=""'  # it is empty for status and metadata calls


def build() -> Dashboard:
    """Why TensorFlow Serving is slow, full or failing."""
    return board.build(
        TENSORFLOW.uid,
        f"Tandem / {TENSORFLOW.title}",
        "One server in detail: the recorded metrics first, then what TensorFlow Serving tells of itself. The embedded "
        "server (embedded-tfserving) speaks the same metrics and is shown here too, under its own name.",
        [*rows(TENSORFLOW), _where_time_goes(), _batches(), _answers(), _models()],
    )


def _where_time_goes() -> Row:
    request = native(":tensorflow:serving:request_latency")
    return Row(
        "Where the time goes",
        native_heat_map("Requests over gRPC", request, TENSORFLOW, _PREDICTIONS, 'entrypoint="GRPC"'),
        native_heat_map("Requests over REST", request, TENSORFLOW, _PREDICTIONS, 'entrypoint="REST"'),
        native_heat_map(
            "Waits for a batch", native(":tensorflow:serving:batching_session:queuing_latency"), TENSORFLOW
        ),
        native_heat_map("TensorFlow's run", native(":tensorflow:serving:runtime_latency"), TENSORFLOW),
    )


def _batches() -> Row:
    session = ":tensorflow:serving:batching_session"
    return Row(
        "Batches",
        native_heat_map("Images in a batch", native(f"{session}:processed_batch_size"), TENSORFLOW),
        native_heat_map("Images in a request", native(f"{session}:input_batch_size"), TENSORFLOW),
    )


def _answers() -> Row:
    count = native(":tensorflow:serving:request_count")
    return Row("Answers", native_rate("Answers by status", count, TENSORFLOW, "model_name", "status", width=24))


def _models() -> Row:
    attempts = native(":tensorflow:cc:saved_model:load_attempt_count")
    loads = f"sum by (model_path, status) ({select(attempts, server=TENSORFLOW)})"
    return Row("Models", graph("Loads", attempts, [Query(loads, legend("model_path", "status"))], width=24))
