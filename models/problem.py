"""Errors that the user can mend, and how a command line shows them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

# What would break a line, or command the terminal: names in a user's file may hold anything.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Problem(Exception):
    """Something the user can mend.

    ``str(problem)`` is the whole message: one line that names the file, key or value at fault and the fix; control
    characters in it are escaped.
    ``details`` are lines of evidence shown above it, such as the last log lines of a server that died.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(_CONTROL.sub(lambda found: repr(found[0])[1:-1], message))
        self.details = tuple(details)


def run(main: Callable[[], int | None], status: int = 1) -> int:
    """Call ``main`` and return its exit status, turning a `Problem` into one line on stderr (exit status ``status``)
    and Ctrl-C into a clean stop (130)."""
    try:
        return main() or 0
    except Problem as problem:
        for line in problem.details:
            print(f"    {line}", file=sys.stderr)
        print(f"error: {problem}", file=sys.stderr)
        return status
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 141
