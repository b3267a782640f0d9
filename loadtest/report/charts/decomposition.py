"""Where the time goes: a request's mean latency split into what the server and the client can tell apart."""

from __future__ import annotations

from typing import Any

from loadtest.analysis import wording
from loadtest.report.charts.figure import AXIS_FONT, Chart, plain

# Inside out. Told apart without colour by their pattern.
PARTS = {
    "model": ("model computes", "var(--part-0)", ""),
    "queue": ("waits in the server’s queue", "var(--part-1)", "/"),
    "runtime": ("server’s own work", "var(--part-2)", "."),
    "transport": ("transport and client", "var(--part-3)", "\\"),
}
REST = ("not told apart", "var(--part-4)", "x")


def decomposition(figures: dict[str, Any], protocol: str) -> Chart | None:
    """A stacked bar for each measurement over a protocol; None where nobody could tell any part apart."""
    names = [target["name"] for target in figures["targets"]]
    entries = sorted(
        (item for item in figures.get("decomposition") or [] if item["protocol"] == protocol and item.get("total_ms")),
        key=lambda item: (item["scenario"], item["offered_rate"] or 0, names.index(item["target"])),
        reverse=True,
    )
    if not any(value is not None for item in entries for value in item["parts_ms"].values()):
        return None
    labels = [f"{plain(wording.shorten(wording.stack(item['target']), 16))}<br>{load(item)}" for item in entries]
    data = []
    for part, (name, shade, pattern) in PARTS.items():
        values = [item["parts_ms"].get(part) for item in entries]
        if any(value is not None for value in values):
            data.append(_bars(name, shade, pattern, labels, values))
    left = [remainder(item) for item in entries]
    if any(left):
        data.append(_bars(*REST, labels, left))
    over = wording.protocol(protocol)
    return Chart(
        id=f"decomposition-{protocol}",
        title=f"Where the time goes, {over}",
        caption="Mean latency of a request, from its scheduled time to its answer, by part. What a server does not "
        f"report is not guessed: it stays in “{REST[0]}”.",
        alternative=f"Mean latency by part over {over}. "
        + "; ".join(_spoken(item) for item in reversed(entries))
        + ".",
        data=data,
        layout={
            "height": 110 + 44 * len(entries),
            "barmode": "stack",
            "margin": {"l": 92, "r": 14, "t": 66, "b": 46},
            "xaxis": {"title": {"text": "mean milliseconds", "font": AXIS_FONT}, "rangemode": "tozero"},
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


def remainder(item: dict[str, Any]) -> float:
    """Milliseconds of an entry's total that no part explains; never negative."""
    known = sum(value for value in item["parts_ms"].values() if value is not None)
    left = float(item["total_ms"]) - known
    return left if left > 0.005 * float(item["total_ms"]) else 0.0


def load(item: dict[str, Any]) -> str:
    """What an entry was measured under: its rate, and its scenario where that is not the ladder."""
    rate = wording.rate(item["offered_rate"]) if item["offered_rate"] else ""
    scenario = "" if item["scenario"] == "ladder" else wording.shorten(str(item["scenario"]), 16)
    return f"{scenario} {rate}".strip()


def reasons(figures: dict[str, Any], target: str) -> list[str]:
    """What a target cannot report, each reason once."""
    entries = [item for item in figures.get("decomposition") or [] if item["target"] == target]
    return list(dict.fromkeys(str(why) for item in entries for why in item.get("cannot_report") or []))


def _bars(name: str, shade: str, pattern: str, labels: list[str], values: list[Any]) -> dict[str, Any]:
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "y": labels,
        "x": [None if value is None else round(value, 5) for value in values],
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
        "hovertemplate": f"{name}: %{{x:.3~g}} ms<extra></extra>",
    }


def _spoken(item: dict[str, Any]) -> str:
    parts = [
        f"{PARTS[part][0]} {wording.milliseconds(value)}"
        for part, value in item["parts_ms"].items()
        if part in PARTS and value is not None
    ]
    return (
        f"{wording.shorten(wording.stack(item['target']), 30)} at {load(item)}: {', '.join(parts) or 'nothing'} of "
        f"{wording.milliseconds(item['total_ms'])}"
    )
