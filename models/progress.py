"""What the user sees while a model is trained and exported: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

FIRST_LINE_S, LINE_EVERY_S = 1.0, 5.0


class Bar:
    """Counts units of work and shows rate, remark and time left."""

    def __init__(self, console: Console, title: str, total: int, unit: str) -> None:
        self._console, self._title, self._total, self._unit = console, title, total, unit
        self._done = 0
        self._started = time.monotonic()
        self._line_at = self._started - LINE_EVERY_S + FIRST_LINE_S
        self._live = RichProgress(
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=32),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[remark]}"),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._live.add_task(title, total=total, remark="")

    def advance(self, units: int, remark: str = "") -> None:
        """``units`` more are done; ``remark`` is shown behind the rate."""
        self._done += units
        now = time.monotonic()
        rate = self._done / max(now - self._started, 1e-9)
        text = f"{rate:,.0f} {self._unit}/s  {remark}".rstrip()
        self._live.update(self._task, completed=self._done, remark=text)
        if not self._console.is_terminal and now - self._line_at >= LINE_EVERY_S:
            self._line_at = now
            left = (self._total - self._done) / rate
            percent = 100 * self._done // max(self._total, 1)
            self._console.print(f"{self._title:>10} {percent:3d} %  {text}  {left:.0f} s left", markup=False)


class Progress:
    """Progress on stderr, so that stdout holds results only."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)

    def say(self, title: str, text: str) -> None:
        """A finished step, on one line."""
        self._console.print(f"{title:>10} {text}", markup=False)

    @contextmanager
    def bar(self, title: str, total: int, unit: str) -> Iterator[Bar]:
        """Show the work of a ``with`` block, ``total`` units of it."""
        bar = Bar(self._console, title, total, unit)
        with bar._live:
            yield bar
