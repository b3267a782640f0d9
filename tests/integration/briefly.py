"""How tests that follow the way up to a report have it measured: once, and for a second. Verdicts need more."""

from __future__ import annotations

_SETTINGS = ("ladder.repetitions=1", "ladder.duration_s=1.0", "warm_up.min_s=0.5", "warm_up.tolerance=1.0")

BRIEFLY = tuple(word for setting in _SETTINGS for word in ("--set", setting))
"""Arguments of `python -m loadtest compare`."""
