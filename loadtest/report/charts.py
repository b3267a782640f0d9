"""The report's charts as Plotly figures: plain values, with colours as CSS variables that the page resolves, so that
one figure serves light and dark."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.analysis import statistics, summary, wording
from loadtest.analysis.saved_run import SavedRun

# Told apart without colour too: each target has its own marker and its own dash.
MARKERS = ("circle", "square", "diamond", "cross")
CURVE_POINTS = 160
FAR = (1e-6, 1e6)  # stands for a ratio without a bound
DRAWN = (1e-3, 1e3)  # ratios beyond are drawn at the edge
AXIS_FONT = {"size": 12, "color": "var(--muted)"}


@dataclass(frozen=True)
class Chart:
    """A figure with its words: ``caption`` says how to read it, ``alternative`` says what it shows."""

    id: str
    title: str
    caption: str
    alternative: str
    data: list[dict[str, Any]]
    layout: dict[str, Any]


def plain(text: str) -> str:
    """Text for Plotly, which reads a small HTML dialect and ``%{...}`` in it."""
    return html.escape(wording.shorten(text, 48)).replace("%", "&#37;").replace("$", "&#36;")


def color(index: int, band: bool = False) -> str:
    """The CSS variable of a target's colour."""
    return f"var(--target-{index % len(MARKERS)}{'-band' if band else ''})"


def ratios(figures: dict[str, Any]) -> Chart | None:
    """How many times better the second target is than the first, with intervals, for each verdict that has a ratio."""
    verdicts = [verdict for verdict in figures["verdicts"] if verdict["ratio"] and verdict["ci95"]]
    if not verdicts:
        return None
    first, second = (wording.shorten(wording.stack(name), 24) for name in verdicts[0]["compared"])
    points, lows, highs, labels, hovers, colors, spoken = [], [], [], [], [], [], []
    for verdict in reversed(verdicts):
        ratio, (low, high) = verdict["ratio"], (verdict["ci95"][0] or FAR[0], verdict["ci95"][1] or FAR[1])
        if verdict["metric"] != "p99":  # more is better: turn it round, so that right always means "second is better"
            ratio, low, high = 1 / ratio, 1 / high, 1 / low
        shown = [low if low > FAR[0] else None, high if high < FAR[1] else None]
        text = f"{wording.number(ratio)} times ({wording.interval(shown)})"
        ratio, low, high = (min(max(end, DRAWN[0]), DRAWN[1]) for end in (ratio, low, high))
        over = wording.protocol(verdict["protocol"])
        at = wording.rate(verdict["offered_rate"]) if verdict["offered_rate"] else "the SLO"
        metric = {"p99": "p99 latency", "goodput": "within SLO", "capacity": "capacity"}[verdict["metric"]]
        points.append(ratio)
        lows.append(ratio - low)
        highs.append(high - ratio)
        labels.append(f"{plain(over)} · {metric}<br>at {at}")
        hovers.append(text)
        colors.append(
            color(list(verdict["compared"]).index(verdict["winner"])) if verdict["winner"] else "var(--muted)"
        )
        spoken.append(f"{over}, {metric} at {at}: {hovers[-1]}")
    reach = 1.15 * max(abs(math.log10(end)) for end in _ends(points, lows, highs))
    reach = max(reach, math.log10(1.5))
    return Chart(
        id="ratios",
        title="How much, and how sure",
        caption=f"Each dot is a ratio, each bar its 95 % interval. Right of 1: {second} is better by that factor; "
        f"left: {first} is. A bar that crosses 1 shows no difference.",
        alternative=f"Ratios above 1 favour {second}. " + "; ".join(reversed(spoken)) + ".",
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "x": points,
                "y": labels,
                "marker": {"size": 11, "color": colors},
                "error_x": {
                    "type": "data",
                    "array": highs,
                    "arrayminus": lows,
                    "color": "var(--ink)",
                    "thickness": 1.6,
                    "width": 6,
                },
                "text": hovers,
                "hovertemplate": "%{text}<extra></extra>",
                "showlegend": False,
            }
        ],
        layout={
            "height": 96 + 52 * len(points),
            "margin": {"l": 128, "r": 20, "t": 34, "b": 42},
            "xaxis": {
                "type": "log",
                "range": [-reach, reach],
                **_log_ticks(10**-reach, 10**reach),
                "tickangle": 0,
                "title": {"text": "times better (log scale)", "font": AXIS_FONT},
            },
            "yaxis": {"automargin": False, "fixedrange": True, "showgrid": False},
            "shapes": [_line(x0=1, x1=1, y0=0, y1=1, yref="paper", color="var(--ink)")],
            "annotations": [
                _note(f"◀ {plain(first)}", x=0, y=1, xanchor="left", xref="paper", yref="paper", yanchor="bottom"),
                _note(f"{plain(second)} ▶", x=1, y=1, xanchor="right", xref="paper", yref="paper", yanchor="bottom"),
            ],
        },
    )


def _ends(points: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Iterable[float]:
    for point, low, high in zip(points, lows, highs, strict=True):
        yield from (point - low, point + high)


def latency_by_rate(figures: dict[str, Any], protocol: str) -> Chart | None:
    """p99 and p50 against offered rate for each target over a protocol, the p99 with its interval, and the SLO."""
    data: list[dict[str, Any]] = []
    spoken: list[str] = []
    values: list[float] = []
    slo = _slo(figures)
    capacity = {item["target"]: item["max_rate"] for item in figures["capacity"] if item["protocol"] == protocol}
    for index, target in enumerate(figures["targets"]):
        items = _ladder(figures, target["name"], protocol)
        sound = [item for item in items if item["valid"]]
        name = wording.stack(target["name"])
        if not items:
            continue
        values += [item["latency_ms"][key] for item in items for key in ("p50", "p99")]
        values += [end for item in sound for end in item["ci95"]["p99"] or []]
        data += _band(sound, index) + _percentile_lines(sound, index, name)
        data += _marks([item for item in items if not item["valid"]], sound, capacity.get(target["name"]), index, name)
        told = ", ".join(
            f"{wording.milliseconds(item['latency_ms']['p99'])} at {wording.rate(item['offered_rate'])}"
            for item in sound
        )
        spoken.append(f"{wording.target(target)}: {told or 'no valid measurement'}")
    if not data:
        return None
    over = wording.protocol(protocol)
    low, high = min([*values, slo]) / 1.3, max([*values, slo]) * 1.4
    top = max(item["offered_rate"] for item in figures["measurements"] if item["protocol"] == protocol)
    return Chart(
        id=f"latency-{protocol}",
        title=f"Latency versus offered rate, {over}",
        caption="Solid: p99 with its 95 % interval as a band. Dotted: p50. Lower and further right is better. A star "
        "marks the highest tested rate that meets the SLO; a cross is a measurement that is not valid.",
        alternative=f"p99 latency against offered rate over {over}; the SLO is {wording.setting(slo, 'ms')}. "
        + "; ".join(spoken)
        + ".",
        data=data,
        layout={
            "height": 400,
            "xaxis": {
                "title": {"text": "offered rate, requests/s", "font": AXIS_FONT},
                "tickformat": ",d",
                "range": [0, top * 1.06],
            },
            "yaxis": {
                "title": {"text": "latency, ms (log scale)", "font": AXIS_FONT},
                "type": "log",
                "range": [math.log10(low), math.log10(high)],
                **_log_ticks(low, high),
            },
            "shapes": [_line(x0=0, x1=1, xref="paper", y0=slo, y1=slo, color="var(--slo)", dash="dash")],
            "annotations": [
                _note(
                    f"SLO {wording.setting(slo, 'ms')}",
                    x=0.01,
                    y=math.log10(slo),
                    xref="paper",
                    xanchor="left",
                    yanchor="bottom",
                    color="var(--slo)",
                )
            ],
        },
    )


def _ladder(figures: dict[str, Any], target: str, protocol: str) -> list[dict[str, Any]]:
    return sorted(
        (
            item
            for item in figures["measurements"]
            if (item["target"], item["protocol"], item["scenario"]) == (target, protocol, "ladder")
            and item["latency_ms"]["p99"] is not None
        ),
        key=lambda item: item["offered_rate"],
    )


def _slo(figures: dict[str, Any]) -> float:
    return float({**summary.DEFAULT_SLO, **figures["experiment"].get("slo", {})}["p99_ms"])


def _band(items: Sequence[dict[str, Any]], index: int) -> list[dict[str, Any]]:
    known = [item for item in items if item["ci95"]["p99"]]
    rates = [item["offered_rate"] for item in known]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": rates + rates[::-1],
            "y": [item["ci95"]["p99"][1] for item in known] + [item["ci95"]["p99"][0] for item in known][::-1],
            "fill": "toself",
            "fillcolor": color(index, band=True),
            "line": {"width": 0, "color": color(index, band=True)},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]


def _percentile_lines(items: Sequence[dict[str, Any]], index: int, name: str) -> list[dict[str, Any]]:
    lines = []
    for percentile, dash, width in (("p99", "solid", 2.4), ("p50", "dot", 1.6)):
        texts = [
            f"{wording.milliseconds(item['latency_ms'][percentile])} ({wording.interval(item['ci95'][percentile])})"
            f" at {wording.rate(item['offered_rate'])}"
            for item in items
        ]
        lines.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{plain(name)} {percentile}",
                "x": [item["offered_rate"] for item in items],
                "y": [item["latency_ms"][percentile] for item in items],
                "line": {"color": color(index), "dash": dash, "width": width},
                "marker": {
                    "symbol": MARKERS[index % len(MARKERS)] + ("" if percentile == "p99" else "-open"),
                    "size": 8,
                    "color": color(index),
                },
                "text": texts,
                "hovertemplate": f"{plain(name)} {percentile}: %{{text}}<extra></extra>",
            }
        )
    return lines


def _marks(
    broken: Sequence[dict[str, Any]], sound: Sequence[dict[str, Any]], capacity: float | None, index: int, name: str
) -> list[dict[str, Any]]:
    marks = []
    best = [item for item in sound if item["offered_rate"] == capacity]
    for items, symbol, size, outline, says in (
        (best, "star", 17, {"width": 1.5, "color": "var(--surface)"}, "highest tested rate within the SLO"),
        (broken, "x-thin-open", 10, {"width": 2.5, "color": color(index)}, "not valid"),
    ):
        if items:
            marks.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [item["offered_rate"] for item in items],
                    "y": [item["latency_ms"]["p99"] for item in items],
                    "marker": {"symbol": symbol, "size": size, "color": color(index), "line": outline},
                    "hovertemplate": f"{plain(name)}: {says}<extra></extra>",
                    "showlegend": False,
                }
            )
    return marks


def percentile_curves(run: SavedRun, figures: dict[str, Any], protocol: str) -> Chart | None:
    """Latency by percentile at one rate, HdrHistogram's way: the axis gives every further nine the same room."""
    rate = _common_rate(figures, protocol)
    if rate is None:
        return None
    data, spoken = [], []
    longest, lowest, highest = 1.0, math.inf, 0.0
    grouped = summary.repetitions(run)
    for index, target in enumerate(figures["targets"]):
        trials = grouped.get((target["name"], protocol, "ladder", rate))
        measured = statistics.combine([trial.intervals() for trial in trials]) if trials else None
        if measured is None or not measured.merged.any():
            continue
        answers = int(measured.merged.sum())
        nines = np.linspace(0, math.log10(answers), CURVE_POINTS)
        latencies = statistics.quantiles(measured.values_ms, measured.merged, list(1 - 10**-nines))
        longest, lowest = max(longest, float(nines[-1])), min(lowest, float(latencies[0]))
        highest = max(highest, float(latencies[-1]))
        name = wording.stack(target["name"])
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": plain(name),
                "x": [round(float(value), 4) for value in nines],
                "y": [round(float(value), 4) for value in latencies],
                "line": {"color": color(index), "width": 2.4, "dash": ("solid", "dash", "dot", "dashdot")[index % 4]},
                "text": [f"{100 - 100 * 10**-value:.4g} %" for value in nines],
                "hovertemplate": f"{plain(name)}: %{{text}} of answers within %{{y:.3~g}} ms<extra></extra>",
            }
        )
        item = next(item for item in _ladder(figures, target["name"], protocol) if item["offered_rate"] == rate)
        told = ", ".join(
            f"{wording.PERCENTILES[key]} {wording.milliseconds(item['latency_ms'][key])}" for key in SPOKEN
        )
        spoken.append(f"{wording.target(target)}: {told}")
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
        data=data,
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
                **_log_ticks(low, high),
            },
        },
    )


SPOKEN = ("p50", "p90", "p99", "p999", "max")


def _common_rate(figures: dict[str, Any], protocol: str) -> float | None:
    """The rate of the latency verdict; without one, the highest at which most targets were measured."""
    for verdict in figures["verdicts"]:
        if (verdict["protocol"], verdict["metric"]) == (protocol, "p99") and verdict["offered_rate"]:
            return float(verdict["offered_rate"])
    rates: dict[float, int] = {}
    for target in figures["targets"]:
        for item in _ladder(figures, target["name"], protocol):
            rates[item["offered_rate"]] = rates.get(item["offered_rate"], 0) + 1
    return max(rates, key=lambda rate: (rates[rate], rate), default=None)


def _log_ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks at round numbers, as many as a range has room for."""
    steps: tuple[float, ...] = (1, 2, 5) if high / low < 300 else (1,)
    if high / low < 4:
        steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if high / low > 1e4:
        decades = range(decades.start + decades.start % 2, decades.stop, 2)
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    return {"tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}


def _line(*, color: str, dash: str = "solid", **where: Any) -> dict[str, Any]:
    return {"type": "line", "line": {"color": color, "width": 1.4, "dash": dash}, "layer": "below", **where}


def _note(text: str, *, color: str = "var(--muted)", **where: Any) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"color": color, "size": 12}, **where}
