"""How many answers a percentile of latency needs before it is more than chance."""

from __future__ import annotations

FEWEST_BEYOND = 10


def is_enough(answers: float, level: float) -> bool:
    """Whether some ten of so many answers lie beyond a percentile (``level``: 0.99 of p99): with fewer it is one of the
    few slowest, whichever these were. 1,000 answers are enough for p99."""
    return answers * (1 - level) >= FEWEST_BEYOND - 1e-6
