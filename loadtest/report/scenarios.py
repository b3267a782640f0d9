"""What the scenarios other than ladder and capacity found, each by the figure that it is run for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loadtest.analysis.records import Measurement, Summary
from loadtest.report import wording


@dataclass(frozen=True)
class Finding:
    """A scenario on one target over a protocol: what it asks, and the answer with its interval."""

    scenario: str
    target: str
    protocol: str
    asks: str
    found: str
    valid: bool


def findings(figures: Summary) -> list[Finding]:
    """A finding for each measurement of a scenario known here; ``figures`` is the run's summary."""
    found = []
    for item in figures.measurements:
        if item.scenario in _KNOWN:
            asks, answer = _KNOWN[item.scenario]
            where = (item.scenario, item.target, item.protocol)
            found.append(Finding(*where, asks=asks, found=answer(item), valid=item.valid))
    return sorted(found, key=lambda item: list(_KNOWN).index(item.scenario))


def _percentile(name: str) -> Callable[[Measurement], str]:
    def say(item: Measurement) -> str:
        value, bounds = item.latency_ms[name], item.ci95[name]
        at = f" at {wording.rate(item.offered_rate)}" if item.offered_rate else ""
        return f"{name} {wording.milliseconds(value)} ({wording.interval(bounds)}){at}"

    return say


def _throughput(item: Measurement) -> str:
    bounds = item.ci95.achieved_rate
    ends = [end * item.batch for end in bounds] if bounds else None
    return f"{wording.images(item.images_per_s)} ({wording.interval(ends, True)})"


def _drift(item: Measurement) -> str:
    drift = f"p50 × {wording.number(item.drift_p50)}, p99 × {wording.number(item.drift_p99)}"
    return f"{drift} from the first quarter to the last of {wording.seconds(item.duration_s)}"


def _recovery(item: Measurement) -> str:
    told = ["not until the end" if one is None else f"{wording.count(one)} s" for one in item.recovery_s or ()]
    return f"p99 within the SLO again after {', '.join(told) or wording.NOTHING} (each repetition)"


_KNOWN: dict[str, tuple[str, Callable[[Measurement], str]]] = {
    "single-stream": ("How long does one request take with nothing else to do?", _percentile("p90")),
    "server": ("How long do requests take that come at random?", _percentile("p99")),
    "offline": ("How much does it compute when all the work is there?", _throughput),
    "spike": ("How soon does it recover from a burst?", _recovery),
    "soak": ("Does it get slower with time?", _drift),
}
