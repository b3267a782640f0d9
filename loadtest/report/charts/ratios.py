"""How many times better one target is than the other, with intervals, for each verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from loadtest.analysis import wording
from loadtest.report.charts.figure import AXIS_FONT, Chart, color, line, log_ticks, note, plain

FAR = (1e-6, 1e6)  # stands for a ratio without a bound
METRICS = {"p99": "p99 latency", "goodput": "within SLO", "capacity": "capacity"}
DRAWN = (1e-3, 1e3)  # ratios beyond are drawn at the edge


def ratios(figures: dict[str, Any], identity: str = "ratios") -> Chart | None:
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
        at = f"at {wording.rate(verdict['offered_rate'])}" if verdict["offered_rate"] else "within the SLO"
        metric = METRICS.get(verdict["metric"], verdict["metric"])
        points.append(ratio)
        lows.append(ratio - low)
        highs.append(high - ratio)
        labels.append(f"{plain(over)} · {metric}<br>{at}")
        hovers.append(text)
        colors.append(
            color(list(verdict["compared"]).index(verdict["winner"])) if verdict["winner"] else "var(--muted)"
        )
        spoken.append(f"{over}, {metric} {at}: {hovers[-1]}")
    reach = 1.15 * max(abs(math.log10(end)) for end in _ends(points, lows, highs))
    reach = max(reach, math.log10(1.5))
    return Chart(
        id=identity,
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
                **log_ticks(10**-reach, 10**reach),
                "tickangle": 0,
                "title": {"text": "times better (log scale)", "font": AXIS_FONT},
            },
            "yaxis": {"automargin": False, "fixedrange": True, "showgrid": False},
            "shapes": [line(x0=1, x1=1, y0=0, y1=1, yref="paper", color="var(--ink)")],
            "annotations": [
                note(f"◀ {plain(first)}", x=0, y=1, xanchor="left", xref="paper", yref="paper", yanchor="bottom"),
                note(f"{plain(second)} ▶", x=1, y=1, xanchor="right", xref="paper", yref="paper", yanchor="bottom"),
            ],
        },
    )


def _ends(points: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Iterable[float]:
    for point, low, high in zip(points, lows, highs, strict=True):
        yield from (point - low, point + high)
