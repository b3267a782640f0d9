"""What bounds a capacity, how it was found, and how far starts of one server lie apart."""

from __future__ import annotations

from loadtest.analysis.records import Capacity
from loadtest.experiment.boundary import Binding, Shape
from loadtest.report import wording
from loadtest.report.names import opening

SEARCHED = "capacity"


def bound(entry: Capacity) -> str:
    """What misses the SLO above a capacity: "beyond that p99 exceeds 50 ms, at once: …"; empty where nothing was seen
    to."""
    limit, errors = wording.setting(entry.slo.p99_ms, "ms"), wording.setting(entry.slo.error_ratio * 100, "%")
    what = {
        Binding.P99: f"beyond that p99 exceeds {limit}",
        Binding.ERRORS: f"beyond that more than {errors} of requests fail",
        Binding.LAG: "beyond that it falls ever further behind what arrives",
        Binding.NONE: "",
    }[entry.binding]
    how = {
        Shape.CLIFF: ", all at once: twice the latency would hardly allow more (a cliff)",
        Shape.SLOPE: ", bit by bit: with a looser SLO it could do more (a slope)",
        Shape.UNKNOWN: "",
    }[entry.shape]
    return f"{what}{how}" if what else ""


def spread(entry: Capacity) -> str:
    """How far starts lie apart: "4 starts, some 6 % apart"; empty where there was none."""
    if not entry.starts:
        return ""
    starts = wording.plural(len(entry.starts), "start")
    return starts if entry.spread is None else f"{starts}, some {max(1, round(entry.spread * 100))} % apart"


def found(entry: Capacity) -> str:
    """How it was found: the capacity of each start, or the rates that were tried."""
    if entry.scenario == SEARCHED and entry.starts:
        each = ", ".join(wording.rate(start.rate) for start in entry.starts)
        return f"{spread(entry)}: {each}"
    return ", ".join(wording.rate(rate) for rate in entry.tested_rates)


def sentence(entry: Capacity, name: str) -> str:
    """All of it in a sentence: "TorchServe: 2,014/s (4 starts, some 6 % apart); beyond that …"."""
    starts = spread(entry)
    rate = "no rate that was tried met the SLO" if entry.max_rate is None else wording.rate(entry.max_rate)
    told = [f"{rate}{f' ({starts})' if starts else ''}", bound(entry) if entry.max_rate is not None else ""]
    return opening(f"{name}: {'; '.join(part for part in told if part)}.")
