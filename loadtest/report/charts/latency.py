"""Latency against offered rate, with intervals, the SLO, and the highest rates that meet it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from loadtest.analysis.records import Measurement, Summary
from loadtest.report import sizing, wording
from loadtest.report.charts.figure import (
    AXIS_FONT,
    Chart,
    Drawing,
    Table,
    color,
    cross,
    line,
    log_ticks,
    marker,
    note,
    origin,
    plain,
    star,
)

BAND_REACH = 20.0


def latency_by_rate(figures: Summary, protocol: str, identity: str = "latency") -> Chart | None:
    """p99 and p50 against offered rate for each target over a protocol, the p99 with its interval, and the SLO."""
    data: list[Drawing] = []
    spoken: list[str] = []
    rows: list[tuple[str, ...]] = []
    points: list[float] = []
    values: list[float] = []  # ends of bands
    slo = figures.experiment.slo.p99_ms
    furthest: list[float] = []
    for index, target in enumerate(figures.targets):
        items = ladder(figures, target.name, protocol)
        sound = [item for item in items if item.valid]
        name = wording.target_name(target.name)
        if not items:
            continue
        points += [value for item in items for value in (item.latency_ms.p50, item.latency_ms.p99) if value is not None]
        values += [end for item in sound for end in item.ci95.p99 or []]
        data += _band(sound, index) + _percentile_lines(sound, index, name)
        data += _crosses([item for item in items if not item.valid], index, name)
        if best := _star(figures, target.name, protocol, index, slo):
            data.append(best)
            points += best["y"]
            furthest += best["x"]
        told = ", ".join(
            f"{wording.milliseconds(item.latency_ms.p99)} at {wording.rate(item.offered_rate)}" for item in sound
        )
        most = f"; its highest rate within the SLO: {best['text'][0]}" if best else ""
        spoken.append(f"{wording.target(target)}: {told or 'no valid measurement'}{most}")
        rows += [_row(name, item) for item in items]
    if not data:
        return None
    over = wording.protocol(protocol)
    low, high = min([*points, *values, slo]) / 1.3, max([*points, *values, slo]) * 1.4
    # A band may reach far beyond every point; it is cut rather than flattening them.
    low, high = max(low, min([*points, slo]) / BAND_REACH), min(high, max([*points, slo]) * BAND_REACH)
    top = max([item.offered_rate for item in figures.measurements if _on(item, protocol)] + furthest)
    return Chart(
        id=f"{identity}-{protocol}",
        title=f"Latency versus offered rate, {over}",
        caption="Solid: p99 with its 95 % interval as a band. Dotted: p50. Lower and further right is better. A star "
        "marks the highest tested rate that meets the SLO, its bar the 95 % interval; a crossed point is a measurement "
        "that is not valid.",
        alternative=f"p99 latency against offered rate over {over}; the SLO is {wording.setting(slo, 'ms')}. "
        + "; ".join(spoken)
        + ".",
        table=Table(("Target", "Offered", "p50, ms", "p99, ms", "p99, 95 % interval", "Valid", "Trials"), rows),
        data=data,
        paper_height=330,
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
                **log_ticks(low, high),
            },
            "shapes": [line(x0=0, x1=1, xref="paper", y0=slo, y1=slo, color="var(--slo)", dash="dash")],
            "annotations": [
                note(
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


def ladder(figures: Summary, target: str, protocol: str) -> list[Measurement]:
    """A target's answered rungs of the ladder over a protocol, by rate."""
    return sorted(
        (
            item
            for item in figures.measurements
            if (item.target, item.protocol, item.scenario) == (target, protocol, "ladder")
            and item.latency_ms.p99 is not None
        ),
        key=lambda item: item.offered_rate,
    )


def _row(name: str, item: Measurement) -> tuple[str, ...]:
    return (
        name,
        wording.rate(item.offered_rate),
        wording.number(item.latency_ms.p50),
        wording.number(item.latency_ms.p99),
        wording.interval(item.ci95.p99),
        "yes" if item.valid else "no",
        ", ".join(item.trials),
    )


def _band(items: Sequence[Measurement], index: int) -> list[Drawing]:
    known = [(item.offered_rate, item.ci95.p99) for item in items if item.ci95.p99]
    rates = [rate for rate, _ in known]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "x": rates + rates[::-1],
            "y": [high for _, (_, high) in known] + [low for _, (low, _) in known][::-1],
            "fill": "toself",
            "fillcolor": color(index, band=True),
            "line": {"width": 0, "color": color(index, band=True)},
            "hoverinfo": "skip",
            "showlegend": False,
        }
    ]


def _percentile_lines(items: Sequence[Measurement], index: int, name: str) -> list[Drawing]:
    lines = []
    for percentile, dash, width in (("p99", "solid", 2.4), ("p50", "dot", 1.6)):
        texts = [
            f"{wording.milliseconds(item.latency_ms[percentile])} ({wording.interval(item.ci95[percentile])})"
            f" at {wording.rate(item.offered_rate)}{origin(item.trials)}"
            for item in items
        ]
        lines.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"{plain(name)} {percentile}",
                "x": [item.offered_rate for item in items],
                "y": [item.latency_ms[percentile] for item in items],
                "line": {"color": color(index), "dash": dash, "width": width},
                "marker": {
                    "symbol": marker(index) + ("" if percentile == "p99" else "-open"),
                    "size": 8,
                    "color": color(index),
                },
                "text": texts,
                "hovertemplate": f"{plain(name)} {percentile}: %{{text}}<extra></extra>",
            }
        )
    return lines


def _on(item: Measurement, protocol: str) -> bool:
    return (item.protocol, item.scenario) == (protocol, "ladder")


def _crosses(broken: Sequence[Measurement], index: int, name: str) -> list[Drawing]:
    if not broken:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [item.offered_rate for item in broken],
            "y": [item.latency_ms.p99 for item in broken],
            "marker": {"symbol": cross(index), "size": 10, "color": color(index), "line": _outline(index)},
            "hovertemplate": f"{plain(name)}: not valid<extra></extra>",
            "showlegend": False,
        }
    ]


def _outline(index: int) -> Drawing:
    return {"width": 2.5, "color": color(index)}


def _star(figures: Summary, target: str, protocol: str, index: int, slo: float) -> Drawing | None:
    """The capacity: at the p99 measured there, else on the line of the SLO; with its interval along the axis."""
    found = sizing.capacity(figures, target, protocol)
    if not found or found.max_rate is None:
        return None
    top, (low, high) = found.max_rate, found.ci95
    measured = [
        item.latency_ms.p99
        for item in figures.measurements
        if (item.target, item.protocol, item.offered_rate) == (target, protocol, top)
        and item.scenario == found.scenario
    ]
    says = f"{wording.rate(top)} ({wording.interval([low, high], plain_rate=True)})"
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [top],
        "y": [measured[0] if measured and measured[0] else slo],
        "error_x": {
            "type": "data",
            "array": [max(0.0, (high or top) - top)],
            "arrayminus": [max(0.0, top - (low or top))],
            "color": color(index),
            "thickness": 1.6,
            "width": 5,
        },
        "marker": {
            "symbol": star(index),
            "size": 17,
            "color": color(index),
            "line": {"width": 1.5, "color": "var(--surface)"},
        },
        "text": [says],
        "hovertemplate": f"{plain(wording.target_name(target))}: %{{text}} within the SLO<extra></extra>",
        "showlegend": False,
    }
