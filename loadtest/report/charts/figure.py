"""What all charts share: a figure with its words, colours as CSS variables that the page resolves (so that one figure
serves light and dark), axes and marks. A figure's values are plain: what Plotly takes as JSON."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from loadtest.report import wording

Drawing: TypeAlias = dict[str, Any]
"""A trace, a layout or a part of them, as Plotly takes it in JSON."""

# Told apart without colour too: each target has its own marker and its own dash.
MARKERS = ("circle", "square", "diamond", "cross")
DASHES = ("solid", "dash", "dot", "dashdot")
STARS = ("star", "star-square", "star-diamond", "star-triangle-up")
CROSSES = ("circle-x-open", "square-x-open", "diamond-x-open", "asterisk-open")
ORIGINS = 4  # trials that a hover text names
AXIS_FONT = {"size": 12, "color": "var(--muted)"}
BREAK = "//"  # drawn where a bar is cut


@dataclass(frozen=True)
class Table:
    """What a chart shows as words and figures, for who cannot see it: headings, and rows of as many texts."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


@dataclass(frozen=True)
class Chart:
    """A figure with its words: ``caption`` says how to read it, ``alternative`` says what it shows, ``table`` holds its
    figures. ``paper_height``: its height in px where it is drawn for paper; None: the layout's."""

    id: str
    title: str
    caption: str
    alternative: str
    table: Table
    data: list[Drawing]
    layout: Drawing
    paper_height: int | None = None


def plain(text: str) -> str:
    """Text for Plotly, which reads a small HTML dialect and ``%{...}`` in it."""
    return html.escape(wording.shorten(text, 48), quote=False).replace("%", "&#37;").replace("$", "&#36;")


def origin(trials: Sequence[str]) -> str:
    """A line of hover text: the trials that a point is of."""
    named = ", ".join(plain(name) for name in trials[:ORIGINS])
    more = f" and {len(trials) - ORIGINS} more" if len(trials) > ORIGINS else ""
    return f"<br>trials: {named}{more}" if named else ""


def color(index: int, band: bool = False) -> str:
    """The CSS variable of a target's colour."""
    return f"var(--target-{index % len(MARKERS)}{'-band' if band else ''})"


def marker(index: int) -> str:
    """The shape of a target's points; of targets that share a colour each has another."""
    return MARKERS[(index + index // len(MARKERS)) % len(MARKERS)]


def star(index: int) -> str:
    """The star that marks a target's capacity."""
    return STARS[(index + index // len(STARS)) % len(STARS)]


def cross(index: int) -> str:
    """A target's marker, crossed out."""
    return CROSSES[(index + index // len(CROSSES)) % len(CROSSES)]


def dash(index: int) -> str:
    """The style of a target's line; of targets that share a colour each has another."""
    return DASHES[(index + index // len(DASHES)) % len(DASHES)]


def log_ticks(low: float, high: float) -> Drawing:
    """Ticks at round numbers, as many as a range has room for."""
    steps: tuple[float, ...] = (1, 2, 5) if high / low < 300 else (1,)
    if high / low < 4:
        steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    if high / low > 1e4:
        decades = range(decades.start + decades.start % 2, decades.stop, 2)
    ticks = [step * 10.0**decade for decade in decades for step in steps if low <= step * 10.0**decade <= high]
    return {"tickvals": ticks, "ticktext": [f"{tick:,.10g}" for tick in ticks]}


def line(*, color: str, dash: str = "solid", **where: Any) -> Drawing:
    """A straight line behind the data."""
    return {"type": "line", "line": {"color": color, "width": 1.4, "dash": dash}, "layer": "below", **where}


def note(text: str, *, color: str = "var(--muted)", size: int = 12, **where: Any) -> Drawing:
    """A short text inside the plot."""
    return {"text": text, "showarrow": False, "font": {"color": color, "size": size}, **where}
