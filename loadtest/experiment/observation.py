"""What Prometheus knows of a trial: the server's own figures of it, by monitoring's schema."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

from loadtest.experiment.records import MedianAndTail, ModelLatency, ModelShare, ServerFigures, TrialRecord
from monitoring import schema
from monitoring.prometheus_api import Series
from serving.runtimes.process.prometheus import Prometheus, start

__all__ = ["SETTLE_S", "Prometheus", "server_figures", "server_timeline", "start"]

# After this many seconds the servers' pages show a trial's last request, and Prometheus has scraped them.
SETTLE_S = 1.3
# A row of the timeline looks back this far: two scrapes at least, also where one is late. The first row looks back to
# the trial's start only: before it lies other load.
ROW_WINDOW, FIRST_ROW_WINDOW = "2s", "1s"
TIMELINE = ("t", "rate", "p50_ms", "p99_ms", "batch_size", "cpu_cores", "memory_bytes")


def server_figures(prometheus: Prometheus, trial: TrialRecord) -> ServerFigures:
    """What the server under test says of a trial.

    Throughput in requests/s, times in milliseconds, batch size in images; None where the engine does not tell. Of
    several models the mean latency is that of all requests, and quantiles are in `by_model` alone: they do not add up.
    """
    known = schema.load()
    dialect = _dialect(known, trial.engine)
    if dialect is None:
        return ServerFigures(source=f"prometheus {prometheus.version}")
    # No longer than the trial: before it lies other load.
    seconds = max(1, round(trial.ended_at - trial.started_at))
    window, quantiles = f"{seconds}s", _quantiles(dialect, seconds)
    at = trial.ended_at + dialect.lag_s

    def milliseconds(name: str) -> float | None:
        value = _value(prometheus, known, name, dialect.name, window, at)
        return None if value is None else 1e3 * value

    by_model = _models(prometheus, known, dialect.name, window, at, quantiles) if trial.by_model else None
    if trial.by_model and by_model is not None:
        latency, mean = MedianAndTail(), _mean_of(by_model, trial.by_model)
    else:
        told = {figure: milliseconds(f"serving:request_latency_seconds:{figure}") for figure in quantiles}
        latency, mean = MedianAndTail(**told), milliseconds("serving:request_latency_seconds:mean")
    return ServerFigures(
        throughput=_throughput(prometheus.series(f"{dialect.answered}[{window}]", at)),
        latency_ms=latency,
        latency_ms_mean=mean,
        by_model=by_model,
        latency_meaning=known.metrics["serving:request_latency_seconds:p99"].meaning[dialect.name],
        batch_size_mean=_value(prometheus, known, "serving:batch_size:avg", dialect.name, window, at),
        compute_ms_mean=milliseconds("serving:compute_seconds:mean"),
        queue_ms_mean=milliseconds("serving:queue_seconds:mean"),
        source=f"prometheus {prometheus.version}",
    )


def server_timeline(prometheus: Prometheus, trial: TrialRecord) -> str:
    """server-timeline.csv of a trial: a row a second with the columns of `TIMELINE`.

    `t` is seconds since the trial's start; rate in requests/s, latencies in milliseconds, batch size in images, CPU in
    cores, memory in bytes. A cell is empty where nothing is known.
    """
    known = schema.load()
    dialect = _dialect(known, trial.engine)
    started = trial.started_at
    seconds = math.ceil(trial.ended_at - started)
    columns = [
        ("cpu_cores", "sum", "serving:cpu:cores", "process", 0.0, 1.0),
        ("memory_bytes", "sum", "serving:memory_bytes", "process", 0.0, 1.0),
    ]
    if dialect:
        columns += [
            ("rate", "sum", "serving:requests:rate1m", dialect.name, dialect.lag_s, 1.0),
            *(
                (f"{figure}_ms", "max", f"serving:request_latency_seconds:{figure}", dialect.name, dialect.lag_s, 1e3)
                for figure in _quantiles(dialect, 1)
            ),
            ("batch_size", "max", "serving:batch_size:avg", dialect.name, dialect.lag_s, 1.0),
        ]
    cells: dict[str, dict[int, float]] = {column: {} for column in TIMELINE[1:]}
    for column, over, name, source, lag_s, factor in columns:
        first = started + 1 + lag_s
        for window, begin, end in (
            (FIRST_ROW_WINDOW, first, first),
            (ROW_WINDOW, first + 1, first + seconds - 1),
        ):
            expression = f"{over}({known.metrics[name].expression(source, window)})"
            for one in prometheus.range(expression, begin, end, 1) if begin <= end else ():
                cells[column] |= {round(at - first) + 1: factor * value for at, value in one.samples}
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(TIMELINE)
    for t in range(1, seconds + 1):
        rows.writerow([t, *(_cell(cells[column].get(t)) for column in TIMELINE[1:])])
    return text.getvalue()


def _quantiles(dialect: schema.Dialect, seconds: float) -> tuple[str, ...]:
    """Those of latency that the engine's page tells of so short a time; none where they would be of load before it."""
    return ("p50", "p99") if seconds >= dialect.quantiles_of_s else ()


def _dialect(known: schema.Schema, engine: str) -> schema.Dialect | None:
    """What the engine's metrics are in; None where it has none."""
    try:
        return known.dialects[known.dialect_of(engine)]
    except KeyError:
        return None


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _value(
    prometheus: Prometheus, known: schema.Schema, name: str, dialect: str, window: str, at: float
) -> float | None:
    """The metric over the trial. Series of protocols that were not in use are not numbers there, and fall out."""
    metric = known.metrics[name]
    if dialect not in metric.dialects:
        return None
    return prometheus.query(f"max({metric.expression(dialect, window)} >= 0)", at)


def _models(
    prometheus: Prometheus,
    known: schema.Schema,
    dialect: str,
    window: str,
    at: float,
    quantiles: Sequence[str],
) -> dict[str, ModelLatency]:
    """What the server says of each model's latency."""
    found: dict[str, dict[str, float]] = {}
    for figure in (*quantiles, "mean"):
        expression = known.metrics[f"serving:request_latency_seconds:{figure}"].expression(dialect, window)
        for one in prometheus.series(f"max by (model) ({expression} >= 0)", at):
            found.setdefault(one.labels["model"], {})[figure] = 1e3 * one.samples[-1][1]
    return {model: ModelLatency(**figures) for model, figures in found.items()}


def _mean_of(models: Mapping[str, ModelLatency], answered: Mapping[str, ModelShare]) -> float | None:
    """The mean over all requests, by how many of each model were answered; None where a model's is not known."""
    weights = {model: one.requests.ok for model, one in answered.items() if one.requests.ok}
    means = {model: one.mean for model, one in models.items() if one.mean is not None}
    if not weights or any(model not in means for model in weights):
        return None
    return sum(weight * means[model] for model, weight in weights.items()) / sum(weights.values())


def _throughput(counters: list[Series]) -> float | None:
    """How fast counters grew between their first and last sample, by those samples' own times.

    PromQL's rate() would be too low where a busy machine misses a scrape; a server that is gone may still be seen,
    without growth.
    """
    grown = sum(one.samples[-1][1] - one.samples[0][1] for one in counters)
    took = max((one.samples[-1][0] - one.samples[0][0] for one in counters), default=0.0)
    return grown / took if took > 0 else None
