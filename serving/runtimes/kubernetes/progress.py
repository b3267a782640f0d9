"""What the user sees of a deployment: on a terminal one line that changes, in a log a line a step."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console


class Steps:
    """Finished steps scroll; what happens right now stands below them. A context manager."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self._status = self._console.status("")

    def __enter__(self) -> Steps:
        if self._console.is_terminal:
            self._status.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._status.stop()

    def say(self, text: str) -> None:
        """A finished step."""
        self._console.print(text, markup=False)

    def now(self, text: str) -> None:
        """What happens right now; in a log a line of its own."""
        if self._console.is_terminal:
            self._status.update(text)
        else:
            self._console.print(text, markup=False)
