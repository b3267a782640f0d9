"""Which rate a capacity search tries next: a pure function of what it has tried so far."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

LOWEST_RATE, HIGHEST_RATE = 1.0, 1e6


@dataclass(frozen=True)
class Try:
    """One trial of a search: the offered rate (requests/s), and whether it met the SLO."""

    rate: float
    met: bool


@dataclass(frozen=True)
class Found:
    """Where a search stands.

    low, high  the highest rate that met the SLO and the lowest above it that did not; None: none has been tried
    next       the rate to try next; None: the search is over
    confirmed  both boundaries have been repeated and said the same
    """

    low: float | None
    high: float | None
    next: float | None
    confirmed: bool


def look(tries: Sequence[Try], start: float, growth: float, precision: float, repeats: int = 2) -> Found:
    """Where a search stands after `tries`, in the order in which they were made.

    A geometric ramp from `start` by factors of `growth` until a rate misses (down, where the first one does), then
    bisection (geometric) until the boundaries are within `precision` of one another, then each boundary until it has
    been tried `repeats` times. A rate on which two tries disagree is tried a third time, and the majority counts. A
    rate that misses bounds the capacity even where a higher one met the SLO by luck.
    """
    votes: dict[float, list[bool]] = {}
    for one in tries:
        votes.setdefault(one.rate, []).append(one.met)
    met = {rate: 2 * sum(seen) > len(seen) for rate, seen in votes.items()}
    high = min((rate for rate, ok in met.items() if not ok), default=None)
    low = max((rate for rate, ok in met.items() if ok and (high is None or rate < high)), default=None)

    def enough(rate: float | None) -> bool:
        return rate is not None and len(votes[rate]) >= repeats

    tied = next((rate for rate, seen in votes.items() if 2 * sum(seen) == len(seen)), None)
    if tied is not None:
        following: float | None = tied
    elif low is None and high is None:
        following = round_rate(start)
    elif low is None:
        assert high is not None
        following = round_rate(high / growth) if high > LOWEST_RATE else (None if enough(high) else high)
    elif high is None:
        following = round_rate(low * growth) if low < HIGHEST_RATE else (None if enough(low) else low)
    elif (middle := round_rate(math.sqrt(low * high))) not in (low, high) and high > low * (1 + precision):
        following = middle
    elif not enough(low):
        following = low
    else:
        following = None if enough(high) else high
    repeated = repeats > 1 and enough(low) and (enough(high) or high is None)
    return Found(low, high, following, confirmed=following is None and repeated)


def round_rate(rate: float) -> float:
    """A rate to four significant digits, within what can be offered."""
    return min(max(float(f"{rate:.4g}"), LOWEST_RATE), HIGHEST_RATE)
