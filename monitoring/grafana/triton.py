"""NVIDIA Triton: the recorded metrics, and what only it tells of itself."""

from __future__ import annotations

from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring.grafana import board
from monitoring.grafana.board import Row
from monitoring.grafana.measures import native
from monitoring.grafana.one_server import native_rate, rows
from monitoring.grafana.panels import graph
from monitoring.grafana.selection import TRITON, Query, legend, rate, select

# A request's way through Triton, in its order.
_STAGES = (
    ("queue", "waits for a batch"),
    ("compute_input", "its input taken in"),
    ("compute_infer", "the model"),
    ("compute_output", "its output given out"),
)


def build() -> Dashboard:
    """Why Triton is slow, full or failing."""
    return board.build(
        TRITON.uid,
        f"Tandem / {TRITON.title}",
        "One server in detail: the recorded metrics first, then what Triton tells of itself. Empty where no run and no "
        "stack names Triton.",
        [*rows(TRITON), _where_time_goes(), _batches(), _answers()],
    )


def _where_time_goes() -> Row:
    """Mean times: Triton adds microseconds up, and has no histograms."""
    return Row(
        "Where the time goes",
        graph(
            "A request's time, by stage",
            native("nv_inference_queue_duration_us"),
            [_stage(*one) for one in _STAGES],
            width=24,
        ),
    )


def _stage(name: str, words: str) -> Query:
    time, answers = native(f"nv_inference_{name}_duration_us"), native("nv_inference_request_success")
    spent, answered = (f"sum by (server) ({rate(select(one, server=TRITON))})" for one in (time, answers))
    return Query(f"{spent} / ({answered} > 0)", legend("server", note=words))


def _batches() -> Row:
    images, batches = native("nv_inference_count"), native("nv_inference_exec_count")
    waiting = native("nv_inference_pending_request_count")
    queued = f"sum by (server) ({select(waiting, server=TRITON)})"
    return Row(
        "Batches",
        native_rate("Images computed", images, TRITON, "server", width=8),
        native_rate("Batches computed", batches, TRITON, "server", width=8),
        graph("Requests that wait", waiting, [Query(queued, legend("server"))], width=8),
    )


def _answers() -> Row:
    return Row(
        "Answers",
        native_rate("Answered", native("nv_inference_request_success"), TRITON, "model", "version"),
        native_rate("Failed, by reason", native("nv_inference_request_failure"), TRITON, "model", "reason"),
    )
