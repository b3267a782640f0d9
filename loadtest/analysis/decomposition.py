"""Where the time goes: a measurement's mean latency, taken apart into model, queue, rest of the server, and the way.

total      the client's mean latency, from the time a request was due
model      the model alone, in process, on the same cores with as many threads, at the server's mean batch
queue      the wait for the batch, as the server says
runtime    the rest of what the server says it took: decoding, encoding, copying, scheduling
transport  the rest of the total: network, HTTP or gRPC on both sides, whatever the server does not see, and the client

Means, because they add up; percentiles do not. A part that nobody can report is None, never guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from loadtest.analysis import wording

Values = Mapping[str, Any]
SCENARIOS = ("ladder", "server", "soak", "single-stream")


def of(
    figures: Sequence[Values], totals_ms: Sequence[float | None], model_times: Mapping[str, Values]
) -> list[dict[str, Any]]:
    """One entry for each measurement below saturation: valid, answered, in one of `SCENARIOS`, and on a server that
    says how long requests took inside it, without which nothing can be taken apart.

    `totals_ms`: the client's mean latency of each of `figures`; `model_times`: stack → model-time.json's entry.
    """
    return [
        _one(item, total, model_times.get(item["target"]) or {})
        for item, total in zip(figures, totals_ms, strict=True)
        if total is not None
        and item["valid"]
        and item["scenario"] in SCENARIOS
        and _mean(item["server"], "latency_ms_mean") is not None
    ]


def _one(item: Values, total: float, model_time: Values) -> dict[str, Any]:
    servers = item["server"]
    # The server's clock and its buckets are coarser than ours: it may seem to have taken longer than the client waited.
    inside, queue = min(_mean(servers, "latency_ms_mean") or 0.0, total), _mean(servers, "queue_ms_mean")
    batch = _mean(servers, "batch_size_mean")
    model = model_at(model_time, batch)
    cannot: list[str] = []
    name = wording.stack(item["target"])
    if queue is None:
        cannot.append(f"{name} does not report how long a request waits for its batch")
    if batch is None:
        cannot.append(f"{name} does not report how large its batches are, so the model's time is not known")
    if not model_time.get("ms"):
        cannot.append(str(model_time.get("problem") or "the model's own time was not measured in this run"))
    runtime: float | None = None
    if queue is not None:
        queue = min(queue, inside)
        if model is not None and model > inside - queue:
            cannot.append("the model alone took longer than inside the server: this machine was not equally fast twice")
            model = inside - queue
        runtime = None if model is None else inside - queue - model
    return {
        "target": item["target"],
        "protocol": item["protocol"],
        "scenario": item["scenario"],
        "offered_rate": item["offered_rate"],
        "parts_ms": {
            "model": model,
            "queue": queue,
            "runtime": runtime,
            "transport": total - inside,
        },
        "total_ms": total,
        "batch_size_mean": batch,
        "sources": {
            "model": f"in process, mean of one call at {wording.number(batch)} images, on the server's cores, unloaded",
            "queue": "the server's own metrics: mean wait for the batch",
            "runtime": "the server's own metrics: mean time inside the server, less queue and model",
            "transport": "the client's mean latency, less the server's mean time inside",
        },
        "cannot_report": cannot,
    }


def model_at(model_time: Values, batch: float | None) -> float | None:
    """The model's milliseconds at a mean batch size, linear between the sizes measured; None where nothing is known."""
    measured = model_time.get("ms")
    if not measured or batch is None:
        return None
    sizes = sorted(int(size) for size in measured)
    return float(np.interp(batch, sizes, [measured[str(size)] for size in sizes]))


def _mean(servers: Sequence[Values], key: str) -> float | None:
    """Over repetitions, which are equally long at one rate, so that their means weigh the same."""
    known = [server[key] for server in servers if server.get(key) is not None]
    return sum(known) / len(known) if known else None
