"""What the user sees while something large is fetched: a live bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

FIRST_LINE_S, LINE_EVERY_S = 1.0, 5.0


class DownloadBar:
    """Counts bytes and shows their rate and the time left."""

    def __init__(self, console: Console, total: int, there: int) -> None:
        """``there``: bytes of an earlier attempt, which say nothing of the rate."""
        self._console, self._total = console, total
        self._done, self._there = 0, there
        self._started = time.monotonic()
        self._line_at = self._started - LINE_EVERY_S + FIRST_LINE_S
        self.live = Progress(
            TextColumn("{task.description:>10}"),
            BarColumn(bar_width=32),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("left"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self.live.add_task("fetch", total=total)

    def advance(self, size: int) -> None:
        """``size`` bytes more are there; fewer where it is negative."""
        self._done += size
        self.live.update(self._task, completed=self._done)
        now = time.monotonic()
        came = self._done - self._there
        if self._console.is_terminal or now - self._line_at < LINE_EVERY_S or came <= 0:
            return
        self._line_at = now
        rate = came / max(now - self._started, 1e-9)
        left = (self._total - self._done) / rate
        done = f"{100 * self._done // max(self._total, 1):3d} %  {self._done / 1e6:,.0f} of {self._total / 1e6:,.0f} MB"
        self._console.print(f"{'fetch':>10} {done}  {rate / 1e6:,.1f} MB/s  {left:.0f} s left", markup=False)


class DownloadProgress:
    """On stderr, so that stdout holds results only."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A step, on one line."""
        self._console.print(f"{'fetch':>10} {text}", markup=False)

    @contextmanager
    def bar(self, total: int, there: int) -> Iterator[DownloadBar]:
        """Show the download of a ``with`` block, of ``total`` bytes, of which ``there`` are there."""
        bar = DownloadBar(self._console, total, there)
        with bar.live:
            yield bar
