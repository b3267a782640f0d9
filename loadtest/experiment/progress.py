"""Progress of a run: a live bar with the time left on a terminal, plain lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from loadtest.experiment.steps import LASTING, Looked, Step, Words


class RunProgress:
    """Shows how much of a run is done, in seconds of planned work, and what happens right now.

    On a terminal one bar at the bottom is redrawn and finished steps scroll above it; elsewhere each finished step is
    one line with the time left.
    """

    def __init__(self, words: Words = str, console: Console | None = None) -> None:
        """`words`: makes a line of a step."""
        self._words = words
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.fields[left]:>12}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=self._console,
            disable=not self._console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, left="")
        self._planned = 0.0
        self._done = 0.0
        self._started = time.monotonic()

    def __enter__(self) -> RunProgress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def plan(self, seconds: float) -> None:
        """Say how many more seconds of work are planned from here."""
        self._planned, self._done, self._started = seconds, 0.0, time.monotonic()
        self._show()

    def advance(self, seconds: float) -> None:
        """That many seconds of the planned work are done."""
        self._done = min(self._planned, self._done + seconds)
        self._show()

    def tell(self, step: Step) -> None:
        """A step of the run: a line that stays, or what happens right now. After the last look nothing is planned."""
        if isinstance(step, Looked) and step.over:
            self._planned = 0.0
        (self.say if isinstance(step, LASTING) else self.now)(self._words(step))

    def now(self, text: str) -> None:
        """What happens right now (shown on a terminal only)."""
        self._bar.update(self._task, description=text)

    def say(self, text: str) -> None:
        """A finished step: one line, with the time left where there is no bar."""
        left = self.time_left()
        suffix = "" if self._console.is_terminal or not left else f"  [{left}]"
        self._console.print(text + suffix, markup=False)

    def time_left(self) -> str:
        """The time left in words, from the plan corrected by how fast it went so far; empty before any plan. A run may
        end before that."""
        if not self._planned:
            return ""
        pace = (time.monotonic() - self._started) / self._done if self._done > 5 else 1.0
        seconds = (self._planned - self._done) * min(max(pace, 0.5), 3.0)
        return f"at most {seconds / 60:.0f} min" if seconds >= 90 else f"at most {seconds:.0f} s"

    def _show(self) -> None:
        self._bar.update(self._task, total=self._planned, completed=self._done, left=self.time_left())
