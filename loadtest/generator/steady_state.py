"""When a warm-up has become steady."""

from __future__ import annotations

from collections.abc import Sequence

_SHORTEST, _LONGEST = 4, 8


def agreeing(rates: Sequence[float], tolerance: float) -> int:
    """How many of the latest windows agree; 0: the series is not steady yet.

    The latest n windows (4, 6 or 8) agree when the mean rates of their older and newer halves differ by no more than
    `tolerance` of their common mean. Comparing halves makes a trend show (a drift of d per window differs by d·n/2)
    where neighbours would look alike, and lets a periodic dip, such as a garbage collection every few windows, cancel
    out once both halves hold as many. A series must agree with and without its latest window: a server that slows down
    by and by looks flat once in a while, seldom twice.
    """
    return _agreeing(rates, tolerance) if _agreeing(rates[:-1], tolerance) else 0


def _agreeing(rates: Sequence[float], tolerance: float) -> int:
    for count in range(_SHORTEST, min(_LONGEST, len(rates)) + 1, 2):
        older = sum(rates[-count : -count // 2]) / (count // 2)
        newer = sum(rates[-count // 2 :]) / (count // 2)
        if newer > 0 and abs(newer - older) <= tolerance * (newer + older) / 2:
            return count
    return 0
