"""What happened second by second: for each block of trials on one server, small panels over one time axis. What the
client saw stands above what Prometheus saw of the server; the warm-up and each trial's lead-in are shaded."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis import validity
from loadtest.analysis.records import Summary
from loadtest.analysis.saved_run import SavedRun, SavedTrial
from loadtest.report import wording
from loadtest.report.charts.figure import AXIS_FONT, Chart, Drawing, Table, color, log_ticks, note, plain

MOST_STARTS = 3  # of a target over a protocol: a long run has dozens, and they look alike
MOST_POINTS = 1200  # of one line in one trial; of more seconds, the largest of several stands for them
ROOM = 0.13  # that a rate above a figure takes, as a share of its width
GAP = 0.062  # between panels, as a share of the height
MIB = 2**20


@dataclass(frozen=True)
class _Series:
    """One line in a panel: ``column`` of timeline.csv (or, if ``of_server``, of server-timeline.csv) divided by
    ``scale``."""

    column: str
    name: str
    style: str = "solid"
    of_server: bool = False
    scale: float = 1.0
    muted: bool = False


@dataclass(frozen=True)
class _Panel:
    label: str
    series: tuple[_Series, ...]
    weight: float = 1.0
    log: bool = False
    bars: bool = False


PANELS = (
    _Panel("requests/s", (_Series("scheduled", "offered", "dot", muted=True), _Series("ok", "answered")), 1.3),
    _Panel("latency, ms (log)", (_Series("p50_ms", "p50", "dot"), _Series("p99_ms", "p99")), 1.5, log=True),
    _Panel("errors/s", (_Series("errors", "errors"),), 0.6, bars=True),
    _Panel("images in a batch", (_Series("batch_size", "batch", of_server=True),)),
    _Panel("server’s CPU, cores", (_Series("cpu_cores", "CPU", of_server=True),)),
    _Panel("server’s memory, MiB", (_Series("memory_bytes", "memory", of_server=True, scale=MIB),)),
)


@dataclass(frozen=True)
class Block:
    """The trials that followed one warm-up, in the order in which they ran."""

    target: str
    protocol: str
    repetition: int
    trials: list[SavedTrial]

    @property
    def warm_up_s(self) -> float:
        """Seconds of warm-up before the first trial; 0 where none was saved."""
        warm_up = self.trials[0].warm_up
        if warm_up is None:
            return 0.0
        return warm_up.seconds + (warm_up.settling.seconds if warm_up.settling else 0.0)

    @property
    def began(self) -> float:
        """Unix time at which the block's warm-up began (as if it ended with the first lead-in)."""
        first = self.trials[0].record
        return first.started_at - first.lead_in_s - self.warm_up_s


def blocks(run: SavedRun) -> list[Block]:
    """The run's trials by warm-up: a protocol's blocks together, by repetition, the targets in the run's order."""
    grouped: dict[tuple[int, int, int, str], list[SavedTrial]] = {}
    for trial in run.trials:
        record = trial.record
        places = run.protocols.index(record.protocol), record.repetition, run.target_names.index(record.target)
        grouped.setdefault((*places, record.warm_up or ""), []).append(trial)
    return [
        Block(
            target=grouped[key][0].record.target,
            protocol=grouped[key][0].record.protocol,
            repetition=key[1],
            trials=sorted(grouped[key], key=lambda trial: trial.record.started_at),
        )
        for key in sorted(grouped)
    ]


def timelines(run: SavedRun, figures: Summary) -> list[Chart]:
    """A chart for each of the first blocks that have a time line; those of one protocol share their axes."""
    names = [target.name for target in figures.targets]
    known = [(block, _points(block)) for block in _first(blocks(run))]
    charts = []
    for number, (block, points) in enumerate(known):
        if any(points.values()):
            shared = [other for peer, other in known if peer.protocol == block.protocol]
            identity = re.sub(r"[^a-z0-9-]", "", f"{block.protocol}-{block.repetition}")
            charts.append(
                _chart(f"timeline-{identity}-{number}", block, points, shared, names.index(block.target), figures)
            )
    return charts


def _first(every: Sequence[Block]) -> list[Block]:
    seen: Counter[tuple[str, str]] = Counter()
    found = []
    for block in every:
        seen[block.target, block.protocol] += 1
        if seen[block.target, block.protocol] <= MOST_STARTS:
            found.append(block)
    return found


Points = dict[str, list[tuple[float, float | None]]]  # a column's (second of the block, value); None parts two trials


def _points(block: Block) -> Points:
    found: Points = {series.column: [] for panel in PANELS for series in panel.series}
    for trial in block.trials:
        start = trial.record.started_at
        ours = [(float(row.get("second") or 0) + 0.5, row) for row in trial.timeline()]
        theirs = [(float(row["t"] or 0) - 0.5, row) for row in trial.server_timeline() if "t" in row]
        for panel in PANELS:
            for series in panel.series:
                rows = theirs if series.of_server else ours
                values = [
                    (start - block.began + at, value / series.scale)
                    for at, row in rows
                    if (value := row.get(series.column)) is not None
                ]
                if values:
                    thin = _largest_of(values, -(-len(values) // MOST_POINTS))
                    found[series.column] += [*thin, (values[-1][0], None)]
    return found


def _largest_of(values: list[tuple[float, float]], several: int) -> list[tuple[float, float]]:
    """Of every so many points, the one with the largest value."""
    return [max(values[at : at + several], key=lambda point: point[1]) for at in range(0, len(values), several)]


def _chart(
    identity: str, block: Block, points: Points, shared: Sequence[Points], index: int, figures: Summary
) -> Chart:
    panels = [panel for panel in PANELS if any(points[series.column] for series in panel.series)]
    target = figures.targets[index]
    over = wording.protocol(block.protocol)
    end = max(at for series in points.values() for at, _ in series)
    layout: Drawing = {
        "height": 70 + round(82 * sum(panel.weight for panel in panels)),
        "margin": {"l": 46, "r": 10, "t": 46, "b": 38},
        "showlegend": False,
        "bargap": 0,
        "shapes": _shades(block),
        "annotations": _rates(block, end),
    }
    data: list[Drawing] = []
    top = 1.0
    room = (1 - GAP * (len(panels) - 1)) / sum(panel.weight for panel in panels)
    for number, panel in enumerate(panels, start=1):
        bottom = max(0.0, top - room * panel.weight)
        suffix = "" if number == 1 else str(number)
        last = number == len(panels)
        layout[f"yaxis{suffix}"] = {"domain": [bottom, top], "anchor": f"x{suffix}", **_range(panel, shared)}
        layout[f"xaxis{suffix}"] = {
            "anchor": f"y{suffix}",
            "range": [0, end + 0.5],
            "tickfont": {"size": 10},
            "showticklabels": last,
            "title": {"text": "seconds since the warm-up began", "font": AXIS_FONT} if last else None,
        }
        layout["annotations"].append(
            note(panel.label, x=0, y=top, xref="paper", yref="paper", xanchor="left", yanchor="bottom", size=10)
        )
        data += [_trace(panel, series, points[series.column], index, suffix) for series in panel.series]
        top = bottom - GAP
    seen = {series.column for panel in panels for series in panel.series}
    missing = "" if "cpu_cores" in seen else " Of the server’s batches, CPU and memory this run saved no time line."
    return Chart(
        id=identity,
        title=f"{wording.shorten(wording.target_name(target.name), 30)}, {over}, repetition {block.repetition}",
        caption=f"Dotted: offered rate and p50. Solid: answered, p99 and the server’s own.{missing}",
        alternative=f"Time line of {wording.shorten(wording.target(target))} over {over}, repetition "
        f"{block.repetition}, by the second. {_spoken(block)}",
        table=Table(
            ("Trial", "Offered", "Answered", "p99 of its seconds, ms", "Errors", "Valid"),
            [_row(trial) for trial in block.trials],
        ),
        data=data,
        layout=layout,
        paper_height=480,
    )


def _row(trial: SavedTrial) -> tuple[str, ...]:
    """What a trial's seconds show, in short; all of them stand in its timeline.csv."""
    seconds = trial.timeline()
    answered = [value for row in seconds if (value := row.get("ok")) is not None]
    worst = [value for row in seconds if (value := row.get("p99_ms")) is not None]
    return (
        trial.folder.name,
        _load(trial),
        wording.rate(sum(answered) / len(answered)) if answered else wording.NOTHING,
        wording.interval([min(worst), max(worst)]) if worst else wording.NOTHING,
        wording.count(sum(row.get("errors") or 0 for row in seconds)),
        "no" if validity.faults(trial) else "yes",
    )


def _trace(
    panel: _Panel, series: _Series, points: list[tuple[float, float | None]], index: int, suffix: str
) -> Drawing:
    trace: Drawing = {
        "name": series.name,
        "x": [round(at, 2) for at, _ in points],
        "y": [None if value is None else round(value, 4) for _, value in points],
        "xaxis": f"x{suffix}",
        "yaxis": f"y{suffix}",
        "hovertemplate": f"{series.name} %{{y:.4~g}} at %{{x:.0f}} s<extra></extra>",
    }
    if panel.bars:
        return {**trace, "type": "bar", "marker": {"color": "var(--bad)"}}
    shade = "var(--muted)" if series.muted else color(index)
    return {
        **trace,
        "type": "scatter",
        "mode": "lines+markers" if len(points) < 120 else "lines",
        "line": {"color": shade, "dash": series.style, "width": 1.6},
        "marker": {"color": shade, "size": 3.5},
    }


def _range(panel: _Panel, shared: Sequence[Points]) -> Drawing:
    values = [
        value
        for points in shared
        for series in panel.series
        for _, value in points[series.column]
        if value is not None and (value > 0 or not panel.log)
    ]
    top = max(values, default=1.0)
    if panel.log:
        low, high = min(values, default=1.0) / 1.5, top * 1.5
        ticks = log_ticks(low, high)
        return {"type": "log", "range": [math.log10(low), math.log10(high)], **ticks, "tickfont": {"size": 10}}
    return {"range": [0, (top or 1) * 1.15], "nticks": 3, "tickfont": {"size": 10}}


def _shades(block: Block) -> list[Drawing]:
    shade = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "layer": "below", "line": {"width": 0}}
    spans = [(0.0, block.warm_up_s)]
    for trial in block.trials:
        start = trial.record.started_at - block.began
        spans.append((start - trial.record.lead_in_s, start))
    return [
        {**shade, "x0": round(start, 2), "x1": round(end, 2), "fillcolor": "var(--shade)"}
        for start, end in spans
        if end > start
    ]


def _rates(block: Block, end: float) -> list[Drawing]:
    """The offered rate above each trial that has room for it, one that is not valid crossed out, with room or without;
    ``end``: of the axis, seconds."""
    found: list[Drawing] = []
    free = 0.0
    for trial in block.trials:
        broken = bool(validity.faults(trial))
        at = trial.record.started_at - block.began + trial.seconds / 2
        roomy = at >= free
        if not roomy and not broken:
            continue
        text = f"{'✕ ' if broken else ''}{_load(trial)}" if roomy else "✕"
        free = at + ROOM * end if roomy else free
        shade = "var(--bad)" if broken else "var(--ink)"
        found.append(
            note(plain(text), x=round(at, 2), y=1, yref="paper", yanchor="bottom", color=shade, size=10, yshift=13)
        )
    if block.warm_up_s:
        found.append(note("warm-up", x=0, y=1.0, yref="paper", xanchor="left", yanchor="bottom", size=10, yshift=26))
    return found


def _load(trial: SavedTrial) -> str:
    """A trial's offered rate; a closed loop has none, so its scenario."""
    return wording.rate(trial.key[3]) if trial.key[3] else wording.shorten(trial.key[2], 14)


def _spoken(block: Block) -> str:
    told = []
    for trial in block.trials:
        rows = trial.timeline()
        worst = [value for row in rows if (value := row.get("p99_ms")) is not None]
        errors = sum(row.get("errors") or 0 for row in rows)
        span = f"p99 {wording.interval([min(worst), max(worst)])} ms" if worst else "no answer"
        told.append(f"at {_load(trial)}: {span}, {wording.plural(int(errors), 'error')}")
    return "; ".join(told) + "."
