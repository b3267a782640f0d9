"""Where the time goes: a measurement's mean latency, taken apart into model, queue, rest of the server, and the way.

total      the client's mean latency, from the time a request was due
model      the model alone, in process, on the same cores with as many threads, at the server's mean batch
decoding   of a JPEG or PNG file, likewise alone; 0 where clients send tensors
queue      the wait for the batch, as the server says
runtime    the rest of what the server says it took: reading, writing, copying, scheduling
transport  the rest of the total: network, HTTP or gRPC on both sides, whatever the server does not see, and the client

Means, because they add up; percentiles do not. A part that nobody can report is None, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from loadtest.analysis.records import Decomposition, Measurement, Parts, Untold
from loadtest.analysis.run_files import ModelTime

SCENARIOS = ("ladder", "server", "soak", "single-stream")


def of(
    measurements: Sequence[Measurement],
    totals_ms: Sequence[float | None],
    model_times: Mapping[str, ModelTime],
    *,
    encoded: bool = False,
) -> tuple[Decomposition, ...]:
    """One entry for each measurement below saturation: valid, answered, in one of `SCENARIOS`, and on a server that
    says how long requests took inside it, without which nothing can be taken apart.

    `totals_ms`: the client's mean latency of each of `measurements`; `model_times`: target → the model's own time;
    `encoded`: clients sent files.
    """
    found = []
    for item, total in zip(measurements, totals_ms, strict=True):
        inside = _mean(server.latency_ms_mean for server in item.server)
        if total is not None and inside is not None and item.valid and item.scenario in SCENARIOS:
            found.append(_one(item, total, inside, model_times.get(item.target) or ModelTime(), encoded))
    return tuple(found)


def _one(item: Measurement, total: float, inside: float, model_time: ModelTime, encoded: bool) -> Decomposition:
    # The server's clock and its buckets are coarser than ours: it may seem to have taken longer than the client waited.
    inside = min(inside, total)
    queue = _mean(server.queue_ms_mean for server in item.server)
    batch = _mean(server.batch_size_mean for server in item.server)
    model = _at(model_time.ms, batch)
    decoding = _at(model_time.decoding_ms, batch) if encoded else 0.0
    cannot: list[Untold] = []
    if queue is None:
        cannot.append(Untold.QUEUE)
    if batch is None:
        cannot.append(Untold.BATCH)
    if not model_time.ms:
        cannot.append(Untold.MODEL)
    runtime: float | None = None
    if queue is not None:
        queue = min(queue, inside)
        if model is not None and decoding is not None:
            known, room = model + decoding, inside - queue
            if known > room:
                cannot.append(Untold.UNEVEN)
                model, decoding = model * room / known, decoding * room / known
            runtime = max(0.0, room - model - decoding)
    return Decomposition(
        target=item.target,
        protocol=item.protocol,
        scenario=item.scenario,
        offered_rate=item.offered_rate,
        parts_ms=Parts(model=model, decoding=decoding, queue=queue, runtime=runtime, transport=total - inside),
        total_ms=total,
        batch_size_mean=batch,
        cannot_report=tuple(cannot),
        model_problem=None if model_time.ms else model_time.problem,
    )


def _at(ms: Mapping[str, float], batch: float | None) -> float | None:
    """Milliseconds at a mean batch size, linear between the sizes measured; None where nothing is known."""
    if not ms or batch is None:
        return None
    sizes = sorted(int(size) for size in ms)
    return float(np.interp(batch, sizes, [ms[str(size)] for size in sizes]))


def _mean(values: Iterable[float | None]) -> float | None:
    """Over repetitions, which are equally long at one rate, so that their means weigh the same."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
