"""The line of a container's log that says which version the server's own program gave when it was asked what it is.
Imports the standard library only."""

from __future__ import annotations

import re

_SAYS = "the server's program is what it should be: version "
_LINE = re.compile(rf"^{re.escape(_SAYS)}(.+)$", re.MULTILINE)


def line(version: str) -> str:
    """What the entry point prints."""
    return _SAYS + version


def version(log: str) -> str:
    """What it printed at the newest start; empty where nobody was asked, or the log does not reach back so far."""
    said = _LINE.findall(log)
    return said[-1].strip() if said else ""
