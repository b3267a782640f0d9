"""How many times better one target is than the other, with intervals, for each verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from loadtest.analysis.records import Summary, Verdict
from loadtest.experiment.questions import Metric
from loadtest.report import origins, verdict_words, wording
from loadtest.report.charts.figure import AXIS_FONT, Chart, Table, color, line, log_ticks, marker, note, origin, plain

FAR = (1e-6, 1e6)  # stands for a ratio without a bound
METRICS = {Metric.P99: "p99 latency", Metric.CAPACITY: "capacity"}
DRAWN = (1e-3, 1e3)  # ratios beyond are drawn at the edge


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
    points, lows, highs, hovers, colors, spoken, sources = [], [], [], [], [], [], []
    labels: list[str] = []
    symbols: list[str] = []
    rows: list[tuple[str, ...]] = []
    for verdict in reversed(verdicts):
        ratio, low, high = _times_better(verdict)
        shown = (low if low > FAR[0] else None, high if high < FAR[1] else None)
        hovers.append(f"{wording.number(ratio)} times ({wording.interval(shown)})")
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
    reach = 1.15 * max(abs(math.log10(end)) for end in _ends(points, lows, highs))
    reach = max(reach, math.log10(1.5))
    return Chart(
        id=identity,
        title="How much, and how sure",
        caption=f"Each mark is a ratio, each bar its 95 % interval. Right of 1: {second} is better by that factor; "
        f"left: {first} is. A filled mark has a winner; a bar that crosses 1 shows no difference.",
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


def _ends(points: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Iterable[float]:
    for point, low, high in zip(points, lows, highs, strict=True):
        yield from (point - low, point + high)
