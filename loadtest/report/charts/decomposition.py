"""Where the time goes: a request's mean latency split into what the server and the client can tell apart."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from loadtest.analysis.records import Decomposition, Summary
from loadtest.report import origins, reasons, wording
from loadtest.report.charts.figure import AXIS_FONT, BREAK, Chart, Drawing, Table, note, plain

# Inside out. Told apart without colour by their pattern.
PARTS = {
    "model": ("model computes", "var(--part-0)", ""),
    "decoding": ("decodes the file", "var(--part-5)", "+"),
    "queue": ("waits in the server’s queue", "var(--part-1)", "/"),
    "runtime": ("server’s own work", "var(--part-2)", "."),
    "transport": ("transport and client", "var(--part-3)", "\\"),
}
REST = ("not told apart", "var(--part-4)", "x")
CUT = 6.0  # a bar this many times as long as the usual one is cut


def parts(figures: Summary) -> dict[str, tuple[str, str, str]]:
    """Those of a run's latency: nothing is decoded where clients send tensors."""
    return {name: part for name, part in PARTS.items() if name != "decoding" or figures.encoded}


def decomposition(figures: Summary, protocol: str) -> Chart | None:
    """A stacked bar for each measurement over a protocol; None where nobody could tell any part apart."""
    names = [target.name for target in figures.targets]
    entries = sorted(
        (item for item in figures.decomposition if item.protocol == protocol and item.total_ms),
        key=lambda item: (item.scenario, item.offered_rate, names.index(item.target)),
        reverse=True,
    )
    known = parts(figures)
    if not any(item.parts_ms[part] is not None for item in entries for part in known):
        return None
    labels = [f"{plain(wording.shorten(wording.target_name(item.target), 16))}<br>{load(item)}" for item in entries]
    over = wording.protocol(protocol)
    end = axis_end([item.total_ms for item in entries], figures.experiment.slo.p99_ms)
    cut = {label: item for label, item in zip(labels, entries, strict=True) if end and item.total_ms > end}
    scales = [end / item.total_ms if end and label in cut else 1.0 for label, item in zip(labels, entries, strict=True)]
    data = []
    for part, (name, shade, pattern) in known.items():
        values = [item.parts_ms[part] for item in entries]
        if any(value is not None for value in values):
            data.append(_bars(name, shade, pattern, labels, values, scales))
    left: list[float | None] = [remainder(item) for item in entries]
    if any(left):
        data.append(_bars(*REST, labels, left, scales))
    cut_words = (
        f" A bar with {BREAK} is longer than the axis: its parts are drawn as shares of its length, which stands there."
        if cut
        else ""
    )
    return Chart(
        id=f"decomposition-{protocol}",
        title=f"Where the time goes, {over}",
        caption="Mean latency of a request, from its scheduled time to its answer, by part. What a server does not "
        f"report is not guessed: it stays in “{REST[0]}”.{cut_words}",
        alternative=f"Mean latency by part over {over}. "
        + "; ".join(_spoken(known, item, item in cut.values()) for item in reversed(entries))
        + ".",
        table=Table(
            ("Target", "Offered", *(f"{name}, ms" for name, _, _ in (*known.values(), REST)), "total, ms", "Trials"),
            [_row(figures, item) for item in reversed(entries)],
        ),
        data=data,
        layout={
            "height": 110 + 44 * len(entries),
            "barmode": "stack",
            "margin": {"l": 92, "r": 14, "t": 66, "b": 46},
            "xaxis": {
                "title": {
                    "text": f"mean milliseconds{f', cut at {wording.number(end)}' if cut else ''}",
                    "font": AXIS_FONT,
                },
                **({"range": [0, end]} if end else {"rangemode": "tozero"}),
            },
            "annotations": [
                note(
                    f"{BREAK} {wording.milliseconds(item.total_ms)} ▸",
                    x=end,
                    y=label,
                    xanchor="right",
                    color="var(--ink)",
                    bgcolor="var(--surface)",
                    borderpad=1,
                )
                for label, item in cut.items()
            ],
            "yaxis": {"fixedrange": True, "showgrid": False, "type": "category"},
            "legend": {
                "orientation": "h",
                "x": 0,
                "xanchor": "left",
                "y": 1.01,
                "yanchor": "bottom",
                "traceorder": "normal",
            },
        },
    )


def axis_end(totals: Sequence[float], slo_ms: float) -> float | None:
    """Where to cut an axis of ``totals`` (ms) so that overloaded servers don't flatten the others: beyond the longest
    of those that are at most `CUT` times the median of what is within the SLO. None: no bar is longer."""
    reach = CUT * statistics.median([total for total in totals if total <= slo_ms] or totals)
    longest = max((total for total in totals if total <= reach), default=reach)
    return 1.3 * longest if max(totals) > reach else None


def remainder(item: Decomposition) -> float:
    """Milliseconds of an entry's total that no part explains; never negative."""
    left = item.total_ms - sum(item.parts_ms[part] or 0.0 for part in PARTS)
    return left if left > 0.005 * item.total_ms else 0.0


def load(item: Decomposition) -> str:
    """What an entry was measured under: its rate, and its scenario where that is not the ladder."""
    rate = wording.rate(item.offered_rate) if item.offered_rate else ""
    scenario = "" if item.scenario == "ladder" else wording.shorten(item.scenario, 16)
    return f"{scenario} {rate}".strip()


def sources(item: Decomposition) -> dict[str, str]:
    """Where each part of an entry comes from."""
    batch = wording.number(item.batch_size_mean)
    decodes = item.parts_ms.decoding != 0.0
    rest = "queue, model and decoding" if decodes else "queue and model"
    decoding = f"in process, by the side's own decoder, mean of {batch} files, on the server's cores, unloaded"
    return {
        "model": f"in process, mean of one call at {batch} images, on the server's cores, unloaded",
        **({"decoding": decoding} if decodes else {}),
        "queue": "the server's own metrics: mean wait for the batch",
        "runtime": f"the server's own metrics: mean time inside the server, less {rest}",
        "transport": "the client's mean latency, less the server's mean time inside",
    }


def unknown(figures: Summary, target: str) -> list[str]:
    """What a target cannot report, each reason once."""
    told = [why for item in figures.decomposition if item.target == target for why in reasons.untold(item)]
    return list(dict.fromkeys(told))


def _bars(
    name: str,
    shade: str,
    pattern: str,
    labels: list[str],
    values: Sequence[float | None],
    scales: Sequence[float],
) -> Drawing:
    """A part's segment of every bar, as long as its milliseconds times the bar's scale; ``customdata`` holds those."""
    exact = [None if value is None else round(value, 5) for value in values]
    drawn = [None if value is None else value * scale for value, scale in zip(exact, scales, strict=True)]
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": labels,
        "x": drawn,
        "customdata": exact,
        "marker": {
            "color": shade,
            "line": {"color": "var(--surface)", "width": 1},
            "pattern": {
                "shape": pattern,
                "fgcolor": "var(--surface)",
                "fgopacity": 0.55,
                "size": 6,
                "fillmode": "overlay",
            },
        },
        "hovertemplate": f"{name}: %{{customdata:.3~g}} ms<extra></extra>",
    }


def _row(figures: Summary, item: Decomposition) -> tuple[str, ...]:
    known = [wording.number(item.parts_ms[part]) for part in parts(figures)]
    left, total = wording.number(remainder(item)), wording.number(item.total_ms)
    trials = origins.trials_under(figures, item.target, item.protocol, item.scenario, item.offered_rate)
    return (wording.target_name(item.target), load(item), *known, left, total, ", ".join(trials))


def _spoken(known: Mapping[str, tuple[str, str, str]], item: Decomposition, cut: bool) -> str:
    said = [
        f"{name} {wording.milliseconds(item.parts_ms[part])}"
        for part, (name, _, _) in known.items()
        if item.parts_ms[part] is not None
    ]
    return (
        f"{wording.shorten(wording.target_name(item.target), 30)} at {load(item)}: {', '.join(said) or 'nothing'} of "
        f"{wording.milliseconds(item.total_ms)}{' (its bar is cut short)' if cut else ''}"
    )
