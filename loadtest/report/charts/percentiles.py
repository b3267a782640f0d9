"""Latency by percentile, HdrHistogram's way."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np

from loadtest.analysis import measurements, statistics
from loadtest.analysis.records import Summary
from loadtest.analysis.saved_run import SavedRun
from loadtest.experiment.questions import Family
from loadtest.report import wording
from loadtest.report.charts.figure import AXIS_FONT, Chart, Drawing, Table, color, dash, log_ticks, origin, plain
from loadtest.report.charts.latency import ladder

CURVE_POINTS = 160


def percentile_curves(run: SavedRun, figures: Summary, protocol: str) -> Chart | None:
    """Latency by percentile at one rate, HdrHistogram's way: the axis gives every further nine the same room."""
    rate = _common_rate(figures, protocol)
    if rate is None:
        return None
    data: list[Drawing] = []
    spoken = []
    rows: list[tuple[str, ...]] = []
    longest, lowest, highest = 1.0, math.inf, 0.0
    grouped = measurements.repetitions(run)
    for index, target in enumerate(figures.targets):
        trials = grouped.get((target.name, protocol, "ladder", rate))
        measured = statistics.combine([trial.intervals() for trial in trials]) if trials else None
        if measured is None or not measured.merged.any():
            continue
        answers = int(measured.merged.sum())
        nines = np.linspace(0, math.log10(answers), CURVE_POINTS)
        latencies = statistics.quantiles(measured.values_ms, measured.merged, list(1 - 10**-nines))
        longest, lowest = max(longest, float(nines[-1])), min(lowest, float(latencies[0]))
        highest = max(highest, float(latencies[-1]))
        name = wording.target_name(target.name)
        item = next(item for item in ladder(figures, target.name, protocol) if item.offered_rate == rate)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plain(name),
                "x": [round(float(value), 4) for value in nines],
                "y": [round(float(value), 4) for value in latencies],
                "line": {"color": color(index), "width": 2.4, "dash": dash(index)},
                "text": [f"{100 - 100 * 10**-value:.4g} %" for value in nines],
                "hovertemplate": f"{plain(name)}: %{{text}} of answers within %{{y:.3~g}} ms"
                f"{origin(item.trials)}<extra></extra>",
            }
        )
        told = ", ".join(f"{wording.PERCENTILES[key]} {wording.milliseconds(item.latency_ms[key])}" for key in SPOKEN)
        spoken.append(f"{wording.target(target)}: {told}")
        figures_of = [wording.number(item.latency_ms[key]) for key in wording.PERCENTILES]
        rows.append((name, *figures_of, wording.count(answers), ", ".join(item.trials)))
    if not data:
        return None
    over, low, high = wording.protocol(protocol), lowest / 1.2, highest * 1.2
    ticks = [math.log10(2), *range(1, math.ceil(longest) + 1)]
    return Chart(
        id=f"percentiles-{protocol}",
        title=f"Percentiles at {wording.rate(rate)}, {over}",
        caption="How slow the slowest are: each step to the right is ten times rarer. The right end of a curve rests "
        "on a handful of answers.",
        alternative=f"Latency by percentile over {over} at {wording.rate(rate)} offered. " + "; ".join(spoken) + ".",
        table=Table(("Target", *(f"{label}, ms" for label in wording.PERCENTILES.values()), "Answers", "Trials"), rows),
        data=data,
        paper_height=310,
        layout={
            "height": 360,
            "xaxis": {
                "title": {"text": "percentile", "font": AXIS_FONT},
                "range": [0, longest],
                "tickvals": ticks,
                "tickangle": 0,
                "ticktext": [f"{100 - 100 * 10.0**-tick:.10g} %" for tick in ticks],
            },
            "yaxis": {
                "title": {"text": "latency, ms (log scale)", "font": AXIS_FONT},
                "type": "log",
                "range": [math.log10(low), math.log10(high)],
                **log_ticks(low, high),
            },
        },
    )


SPOKEN = ("p50", "p90", "p99", "p999", "max")


def _common_rate(figures: Summary, protocol: str) -> float | None:
    """The rate of the first latency verdicts; without one, the highest at which most targets were measured."""
    rates = Counter(
        verdict.offered_rate
        for verdict in figures.verdicts
        if verdict.protocol == protocol and verdict.family is Family.LATENCY and verdict.offered_rate
    ) or Counter(item.offered_rate for target in figures.targets for item in ladder(figures, target.name, protocol))
    return max(rates, key=lambda rate: (rates[rate], rate), default=None)
