"""What the schema's metrics look like in a panel: Grafana's unit, a description, levels that change the colour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from monitoring import schema


@dataclass(frozen=True)
class Levels:
    """Where a value changes its colour: `base` below the first step, then (from this value on, colour). `line` draws
    the steps into graphs."""

    steps: tuple[tuple[float, str], ...]
    base: str = "green"
    line: bool = True


UNITS: Mapping[str, str] = {
    "requests/s": "reqps",
    "batches/s": "suffix: batches/s",
    "ratio": "percentunit",
    "seconds": "s",
    "milliseconds": "ms",
    "microseconds": "µs",
    "bytes": "bytes",
    "watts": "watt",
    "celsius": "celsius",
    "hertz": "hertz",
    "bool": "bool_yes_no",
    "version": "none",
    "code": "none",
    **{
        unit: f"suffix: {unit}"
        for unit in ("images", "batches", "requests", "processes", "restarts", "cores", "loads", "retries", "alerts")
    },
}

_ADD_UP = ("requests/s", "batches/s", "requests", "processes", "restarts", "cores", "bytes")

_SLO = schema.load().slo
_BUDGET = 1 - _SLO.objective
_TIME = Levels(((_SLO.latency_s / 2, "yellow"), (_SLO.latency_s, "red")))
_PART_OF_TIME = Levels(((_SLO.latency_s / 4, "yellow"), (_SLO.latency_s / 2, "red")))
_FAILURES = Levels(((1e-9, "red"),), line=False)
_BUSY = Levels(((0.7, "yellow"), (0.9, "red")))
_MUST_BE_ONE = Levels(((1, "green"),), base="red", line=False)
# Neither good nor bad by itself: grey while nothing happens.
ACTIVITY = Levels(((1e-9, "green"),), base="text", line=False)

_LEVELS: Mapping[str, Levels] = {
    "serving:up": _MUST_BE_ONE,
    "serving:workers": _MUST_BE_ONE,
    "serving:worker_restarts:increase": Levels(((0.5, "yellow"), (3, "red"))),
    "serving:errors:rate1m": _FAILURES,
    "serving:errors:ratio": Levels(((_BUDGET / 10, "yellow"), (_BUDGET, "red"))),
    "serving:request_latency_seconds": _TIME,
    "serving:compute_seconds": _PART_OF_TIME,
    "serving:queue_seconds": _PART_OF_TIME,
    "serving:inflight": Levels(((256, "yellow"), (1024, "red")), line=False),
    "serving:saturation:ratio": _BUSY,
    "serving:memory_bytes": Levels(((2 * 2**30, "yellow"), (4 * 2**30, "red")), line=False),
    "gpu:utilisation:ratio": Levels(((0.8, "yellow"), (0.95, "red"))),
    "gpu:memory:ratio": Levels(((0.8, "yellow"), (0.95, "red"))),
    "loadtest:failed:rate1m": _FAILURES,
    "loadtest:dropped:rate1m": _FAILURES,
    "loadtest:latency_seconds": _TIME,
    "loadtest:slip_seconds": Levels(((0.0005, "yellow"), (0.001, "red"))),
    "loadtest:valid": _MUST_BE_ONE,
    "tandem_handler_seconds": _TIME,
    "tandem_compute_seconds": _PART_OF_TIME,
    "QueueTime": Levels(((1e3 * _SLO.latency_s / 4, "yellow"), (1e3 * _SLO.latency_s / 2, "red"))),
    "Requests4XX": Levels(((1e-9, "yellow"),), line=False),
    "Requests5XX": _FAILURES,
    "tandem_bad_requests_total": Levels(((1e-9, "yellow"),), line=False),
    "WorkerLoadTime": Levels(((10, "yellow"), (60, "red"))),
    ":tensorflow:serving:request_latency": Levels(((5e5 * _SLO.latency_s, "yellow"), (1e6 * _SLO.latency_s, "red"))),
    "DCGM_FI_DEV_GPU_TEMP": Levels(((80, "yellow"), (90, "red"))),
    "DCGM_FI_DEV_PCIE_REPLAY_COUNTER": Levels(((1e-9, "yellow"),), line=False),
    "DCGM_FI_DEV_XID_ERRORS": Levels(((1, "red"),), line=False),
    "tandem_loadtest_latency_seconds": _TIME,
    "tandem_loadtest_schedule_slip_seconds": Levels(((0.0005, "yellow"), (0.001, "red"))),
    "tandem_loadtest_failed_requests_total": _FAILURES,
    "ALERTS": _FAILURES,
}


@dataclass(frozen=True)
class Measure:
    """A metric as panels show it. `labels`: those it has besides `namespace` and `instance`; `adds_up`: whether the sum
    of several replicas' values means something; `scale`: what turns its values into `unit`."""

    name: str
    labels: tuple[str, ...]
    unit: str
    description: str
    levels: Levels
    adds_up: bool = False
    scale: float = 1.0

    def has(self, *labels: str) -> tuple[str, ...]:
        """Those of `labels` that this metric has."""
        return tuple(label for label in labels if label in self.labels)

    def scaled(self, expression: str) -> str:
        """An expression of the metric's values, in `unit`."""
        return expression if self.scale == 1 else f"{expression} * {self.scale:g}"


def recorded(name: str) -> Measure:
    """A recorded metric. Raises KeyError for a name that is not in the schema."""
    metric = schema.load().metrics[name]
    particular = [
        f"{schema.load().dialects[dialect].title}: {text}."
        for dialect, text in (*metric.meaning.items(), *metric.cannot.items())
    ]
    description = "\n\n".join([metric.description, *particular])
    adds_up = metric.unit in _ADD_UP
    return Measure(name, metric.labels, UNITS[metric.unit], description, _levels(name), adds_up)


def native(name: str) -> Measure:
    """A series of an engine's own. Raises KeyError for a name that is not among the schema's natives."""
    one = schema.load().natives[name]
    return Measure(name, one.labels, UNITS[one.unit], one.description, _levels(name), scale=one.scale)


def _levels(name: str) -> Levels:
    """The metric's own levels, or those of the group that it is in: the name without its last part."""
    return _LEVELS.get(name) or _LEVELS.get(name.rsplit(":", 1)[0]) or ACTIVITY
