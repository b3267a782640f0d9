"""What bounds a capacity, how it was found, and how far starts of one server lie apart."""

from __future__ import annotations

from loadtest.analysis.records import Capacity
from loadtest.experiment.boundary import Binding, Shape
from loadtest.experiment.settings import Slo
from loadtest.report import wording

SEARCHED = "capacity"


def bound(entry: Capacity) -> str:
    """What misses the SLO above a capacity: "beyond it p99 jumps over 50 ms at once (a cliff)"; empty where nothing was
    seen to."""
    what = _misses(entry.binding, entry.shape, entry.slo)
    return f"beyond it {what}" if what else ""


def _misses(binding: Binding, shape: Shape, slo: Slo) -> str:
    limit = wording.setting(slo.p99_ms, "ms")
    climbs = {
        Shape.CLIFF: f"p99 jumps over {limit} at once (a cliff)",
        Shape.SLOPE: f"p99 climbs past {limit} step by step (a slope)",
        Shape.UNKNOWN: f"p99 exceeds {limit}",
    }[shape]
    if binding is Binding.NONE:
        return ""
    if binding is Binding.P99:
        return climbs
    fails = (
        f"more than {wording.setting(slo.error_ratio * 100, '%')} of requests fail"
        if binding is Binding.ERRORS
        else "it falls ever further behind the requests"
    )
    return fails if shape is Shape.UNKNOWN else f"{fails}, and {climbs}"


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
    """All of it in a sentence: "TorchServe: 2,014/s (4 starts, some 6 % apart); beyond it …"."""
    starts = spread(entry)
    rate = "no rate that was tried met the SLO" if entry.max_rate is None else wording.rate(entry.max_rate)
    told = [f"{rate}{f' ({starts})' if starts else ''}", bound(entry) if entry.max_rate is not None else ""]
    return f"{name}: {'; '.join(part for part in told if part)}."
