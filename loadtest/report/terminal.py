"""The end of a run on the terminal: every measurement in a table, then the first screen, and where the report is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from loadtest.analysis.records import Measurement, Summary
from loadtest.report import conditions, first_screen, parity_words, reasons, warning_words, wording
from loadtest.report.verdict_words import WIDE

WIDTH = 100
SHOWN_REASONS = 4


def show(summary: Summary, report: Path | None = None, console: Console | None = None) -> None:
    """Print a summary. Without a terminal (a pipe, a log) it is plain text of at most 100 columns."""
    if console is None:
        console = Console(highlight=False)
        if not console.is_terminal:
            console = Console(highlight=False, width=WIDTH)
    console.print()
    table = _table(summary)
    console.print(table)
    if any(" (wide)" in str(cell) for column in table.columns for cell in column.cells):
        console.print(Text(f"wide: the ends of the interval lie more than {WIDE}-fold apart", style="dim"))
    if any("†" in str(cell) for column in table.columns for cell in column.cells):
        console.print(Text(f"†: {reasons.FEW_SAMPLES}", style="dim"))
    for line in _errors(summary):
        console.print(Text(line), soft_wrap=True)
    broken = _not_valid(summary)
    for line in broken[:SHOWN_REASONS]:
        console.print(Text(f"not valid: {line}", style="red"))
    if (more := len(broken) - SHOWN_REASONS) > 0:
        console.print(Text(f"not valid: {more} more reasons stand in the report", style="red"))
    for warning in summary.warnings:
        console.print(Text(f"warning: {warning_words.warning(warning)}", style="yellow"))
    console.print(Text(conditions.holds(summary)))
    console.print()
    _first_screen(summary, console)
    parity = summary.parity
    if parity.proven:
        console.print(Text(parity_words.line(parity, len(summary.targets))))
    if report:
        console.print(Text(f"Report: {os.path.relpath(report)}"), soft_wrap=True)


def _first_screen(summary: Summary, console: Console) -> None:
    screen = first_screen.build(summary)
    console.print(Text(screen.sentence, style="bold"))
    rows = Table.grid(padding=(0, 2, 0, 0))
    rows.add_column(no_wrap=True)
    rows.add_column(overflow="fold")
    for row in screen.rows:
        for place, line in enumerate(row.lines):
            style = "green" if line.winner else ""
            rows.add_row(Text("" if place else f"  {row.title}", style="bold"), Text(line.text, style=style))
    if screen.rows:
        console.print(rows)
    console.print(Text(screen.host.says))
    for said in filter(None, (screen.weights, screen.precision)):
        console.print(Text(said))


def show_comparison(headlines: Sequence[str], report: Path) -> None:
    """Print what the comparison of two runs found, a line for each target, and where its report is."""
    console = Console(highlight=False)
    for line in headlines:
        console.print(Text(line, style="bold"), soft_wrap=True)
    console.print(Text(f"Report: {os.path.relpath(report)}"), soft_wrap=True)


def _table(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, caption_justify="left")
    table.add_column("target", overflow="fold", min_width=12, max_width=26)
    table.add_column("over")
    for heading in ("offered", "achieved", "p50 ms (95 %)", "p99 ms (95 %)", "errors"):
        table.add_column(heading, justify="right", no_wrap=True)
    before, label = None, [""]
    # The steps of a capacity search stand in the report; here its result is a verdict.
    shown = [item for item in summary.measurements if item.scenario != "capacity"]
    for item in shown:
        group = (item.target, item.protocol)
        rows = sum((other.target, other.protocol) == group for other in shown)
        if group != before:
            if before:
                table.add_section()
            stack = wording.shorten(wording.target_name(item.target), 26)
            label = [stack, wording.shorten(wording.engine(summary.target(item.target)), 26)]
            label = ["\n".join(label)] if rows == 1 else label
        before = group
        cells = [
            wording.rate(item.offered_rate) if item.offered_rate else item.scenario,
            wording.rate(item.achieved_rate),
            *(_percentile(item, name) for name in ("p50", "p99")),
            wording.share(item.error_ratio),
        ]
        style = "" if item.valid else "strike dim"
        mark = "" if item.valid else " ✗"
        table.add_row(
            Text(label.pop(0) if label else ""),
            Text(wording.protocol(item.protocol) + mark),
            *(Text(cell, style=style) for cell in cells),
        )
    return table


def _percentile(item: Measurement, name: str) -> str:
    bounds, value = item.ci95[name], wording.number(item.latency_ms[name])
    value += "†" if name in item.few_samples and item.latency_ms[name] is not None else ""
    if not bounds:
        return value
    return f"{value} ({'wide' if bounds[1] > WIDE * bounds[0] else wording.interval(bounds)})"


def _which(item: Measurement) -> str:
    rate = wording.rate(item.offered_rate) if item.offered_rate else item.scenario
    return f"{wording.target_name(item.target)} over {wording.protocol(item.protocol)} at {rate}"


def _errors(summary: Summary) -> list[str]:
    """What each server said first of what it refused."""
    return [
        f"errors: {_which(item)}: {reasons.errors(item)}"
        for item in summary.measurements
        if item.first_error and item.scenario != "capacity"
    ]


def _not_valid(summary: Summary) -> list[str]:
    return [
        f"{_which(item)}: {reasons.of_repetitions(why)}" for item in summary.measurements for why in item.why_not_valid
    ]
