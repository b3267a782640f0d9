"""How many times better one target is than the other, with intervals, for each verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from loadtest.analysis.records import Summary, Verdict
from loadtest.experiment.questions import Metric
from loadtest.report import origins, verdict_words, wording
from loadtest.report.charts.figure import (
    AXIS_FONT,
    BREAK,
    Chart,
    Drawing,
    Table,
    color,
    line,
    log_ticks,
    marker,
    note,
    origin,
    plain,
)

FAR = (1e-6, 1e6)  # stands for a ratio without a bound
METRICS = {Metric.P99: "p99 latency", Metric.CAPACITY: "capacity"}
DRAWN = (1e-3, 1e3)  # ratios beyond are drawn at the edge
CUT = 3.0  # a bar that reaches so many times as far from 1 as the usual one, on the log scale, is cut
LEAST = math.log10(1.5)  # the axis reaches so far at least
ROOM = 0.45  # a cut bar's words take so much of the way to the axis' end, on a telephone
ABOVE_PX = 15  # from a bar to words above it


def ratios(figures: Summary, identity: str = "ratios") -> Chart | None:
    """How many times better the second of two targets is than the first, with intervals, for each verdict that has a
    ratio. Of more than two targets each row names its two."""
    verdicts = [verdict for verdict in figures.verdicts if verdict.ratio and verdict.ci95]
    if not verdicts:
        return None
    names = [target.name for target in figures.targets]
    several = len(names) > 2
    if several:
        first, second = "the first named", "the second named"
    else:
        first, second = (wording.shorten(wording.target_name(name), 24) for name in verdicts[0].compared)
    points, lows, highs, hovers, colors, spoken, sources, ends = [], [], [], [], [], [], [], []
    labels: list[str] = []
    symbols: list[str] = []
    rows: list[tuple[str, ...]] = []
    for verdict in reversed(verdicts):
        ratio, low, high = _times_better(verdict)
        shown = (low if low > FAR[0] else None, high if high < FAR[1] else None)
        hovers.append(f"{wording.number(ratio)} times ({wording.interval(shown)})")
        ends.append(shown)
        ratio, low, high = (min(max(end, DRAWN[0]), DRAWN[1]) for end in (ratio, low, high))
        points.append(ratio)
        lows.append(ratio - low)
        highs.append(high - ratio)
        label = _label(verdict, several)
        labels.append(label if label not in labels else f"{label} ({len(labels)})")
        colors.append(color(names.index(verdict.winner)) if verdict.winner else "var(--muted)")
        symbols.append(marker(names.index(verdict.winner)) if verdict.winner else "circle-open")
        trials = origins.trials_of_verdict(figures, verdict)
        sources.append(origin(trials))
        better = wording.target_name(verdict.winner) if verdict.winner else "no difference shown"
        spoken.append(f"{_spoken(verdict, several)}: {hovers[-1]}")
        exact = wording.number(_times_better(verdict)[0])
        rows.append((_spoken(verdict, several), exact, wording.interval(shown), better, ", ".join(trials)))
    bars = [(point - low, point + high) for point, low, high in zip(points, lows, highs, strict=True)]
    reach = axis_reach(points, bars)
    cut = [mark for row in zip(labels, points, bars, ends, strict=True) for mark in _cut(*row, reach)]
    where_cut = f", cut at {wording.number(10**reach)}" if cut else ""
    cut_words = f" A bar with {BREAK} is longer than the axis; how far it goes stands there." if cut else ""
    return Chart(
        id=identity,
        title="How much, and how sure",
        caption=f"Each mark is a ratio, each bar its 95 % interval. Right of 1: {second} is better by that factor; "
        f"left: {first} is. A filled mark has a winner; a bar that crosses 1 shows no difference.{cut_words}",
        alternative=f"Ratios above 1 favour {second}. " + "; ".join(reversed(spoken)) + ".",
        table=Table(("Question", f"Times better: {second}", "95 % interval", "Winner", "Trials"), rows[::-1]),
        data=[
            {
                "type": "scatter",
                "mode": "markers",
                "x": points,
                "y": labels,
                "marker": {"size": 11, "color": colors, "symbol": symbols, "line": {"width": 2, "color": colors}},
                "error_x": {
                    "type": "data",
                    "array": highs,
                    "arrayminus": lows,
                    "color": "var(--ink)",
                    "thickness": 1.6,
                    "width": 6,
                },
                "text": [hover + source for hover, source in zip(hovers, sources, strict=True)],
                "hovertemplate": "%{text}<extra></extra>",
                "showlegend": False,
            }
        ],
        layout={
            "height": 96 + 42 * len(points),
            "margin": {"l": 196 if several else 128, "r": 20, "t": 34, "b": 42},
            "xaxis": {
                "type": "log",
                "range": [-reach, reach],
                **log_ticks(10**-reach, 10**reach),
                "tickangle": 0,
                "title": {"text": f"times better (log scale{where_cut})", "font": AXIS_FONT},
            },
            "yaxis": {"automargin": False, "fixedrange": True, "showgrid": False},
            "shapes": [line(x0=1, x1=1, y0=0, y1=1, yref="paper", color="var(--ink)")],
            "annotations": [
                note(f"◀ {plain(first)}", x=0, y=1, xanchor="left", xref="paper", yref="paper", yanchor="bottom"),
                note(f"{plain(second)} ▶", x=1, y=1, xanchor="right", xref="paper", yref="paper", yanchor="bottom"),
                *cut,
            ],
        },
    )


def _times_better(verdict: Verdict) -> tuple[float, float, float]:
    """How many times better the second is than the first: ratio and ends of its interval."""
    low, high = verdict.ci95 or (None, None)
    ratio, low, high = verdict.ratio or 1.0, low or FAR[0], high or FAR[1]
    # Where more is better the ratio is turned round, so that right always means "second is better".
    return (ratio, low, high) if verdict.metric is Metric.P99 else (1 / ratio, 1 / high, 1 / low)


def _where(verdict: Verdict) -> str:
    return f"at {wording.rate(verdict.offered_rate)}" if verdict.offered_rate else "within the SLO"


def _label(verdict: Verdict, several: bool) -> str:
    over, metric = plain(wording.protocol(verdict.protocol)), METRICS[verdict.metric]
    if not several:
        return f"{over} · {metric}<br>{_where(verdict)}"
    pair = " or ".join(wording.shorten(wording.target_name(name), 14) for name in verdict.compared)
    return f"{plain(pair)}<br>{over} · {metric} {_where(verdict)}"


def _spoken(verdict: Verdict, several: bool) -> str:
    whose = f"{verdict_words.pair(verdict)}, " if several else ""
    return f"{whose}{wording.protocol(verdict.protocol)}, {METRICS[verdict.metric]} {_where(verdict)}"


def axis_reach(points: Sequence[float], bars: Sequence[tuple[float, float]]) -> float:
    """How far the axis reaches to both sides of 1, in powers of ten: to the end of the longest of ``bars`` (lower and
    upper ends) that is not `CUT` times as long as the usual one, so that such a one doesn't flatten the others; to
    every point in any case."""
    far = [max(abs(math.log10(end)) for end in bar) for bar in bars]
    most = CUT * max(statistics.median_low(far), LEAST)
    reach = 1.15 * max(one for one in far if one <= most)
    if max(far) > most:
        reach = max(reach, 1.35 * max(abs(math.log10(point)) for point in points))  # with room beside it for the words
    return max(reach, LEAST)


def _cut(
    label: str, point: float, bar: tuple[float, float], shown: tuple[float | None, float | None], reach: float
) -> Sequence[Drawing]:
    """The marks of a row's bar where it is longer than the axis; ``shown``: its ends, None where it has none. Where
    they would cover the row's ``point``, they stand above the bar."""
    marks = []
    for end, value, side in zip(bar, shown, (-1, 1), strict=True):
        if side * math.log10(end) > reach:
            words = wording.number(value) if value else ""
            covers = side * math.log10(point) > (1 - ROOM) * reach
            text = f"{BREAK} {words} ▸" if side > 0 else f"◂ {words} {BREAK}"
            marks.append(
                note(
                    " ".join(text.split()),
                    x=side * reach,
                    y=label,
                    xanchor="right" if side > 0 else "left",
                    color="var(--ink)",
                    bgcolor="var(--surface)",
                    borderpad=1,
                    **({"yshift": ABOVE_PX} if covers else {}),
                )
            )
    return marks
