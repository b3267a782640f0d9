"""Which rate a capacity search tries next: a pure function of what it has tried so far.

A trial near a server's limit, or on a machine with other guests, is a noisy answer, so no single one decides. The
capacity is the threshold that contradicts the fewest trials: of all thresholds, the one below which meets, and above
which misses, are most in the majority (the maximum likelihood where every trial errs equally often; Burnashev &
Zigangirov 1974, "An interval estimation problem for controlled observations"). A threshold is ruled out by its lag, the
trials by which it explains fewer than the best one: Wald's sequential test (1945), in which a lag of two leaves 1.2 %
for error, and of three 0.1 %, where one trial in ten errs. Repeating what the search ends with, and opening the search
again where the repeat disagrees, is binary search with loss verification (ETSI GS NFV-TST 009, §12.3.3; RFC 9004);
short trials on the way and longer ones at its end are those of MLRsearch (draft-ietf-bmwg-mlrsearch).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LOWEST_RATE, HIGHEST_RATE = 1.0, 1e6

# A first miss does not bound a search from above: so many more misses than meets do.
BOUNDS = 2
# A rate that has been tried so often is not tried again: it is where the server meets the SLO by chance.
MOST_TRIES = 5
# A trial that decides on a boundary of the result lasts so many times as long as one on the way there, so that what the
# machine does for a moment weighs less.
CLOSING = 2


@dataclass(frozen=True)
class Try:
    """One trial of a search: the offered rate (requests/s), and whether it met the SLO."""

    rate: float
    met: bool


@dataclass(frozen=True)
class Found:
    """Where a search stands.

    low, high  the capacity's bracket: the rate that meets the SLO and the one that does not; None: no rate says so yet
    next       the rate to try next; None: the bracket is as narrow as was asked, and the search over
    closing    the next trial decides on a boundary of the result, and should be a long one
    confirmed  both boundaries have been repeated, and rule out what lies beyond them
    """

    low: float | None
    high: float | None
    next: float | None
    closing: bool
    confirmed: bool


class Thresholds:
    """Every threshold between tried rates, and how well it explains the trials.

    rates  [n] tried rates, ascending
    tried  [n] how often
    score  [n + 1] of a capacity in [rates[i - 1], rates[i]): the trials that it explains, less those that a capacity
           below all rates does
    best   the index of the highest score; the lowest of equals, because a rate in dispute is not promised
    """

    def __init__(self, tries: Iterable[Try]) -> None:
        votes: dict[float, list[bool]] = {}
        for one in tries:
            votes.setdefault(one.rate, []).append(one.met)
        self.rates = sorted(votes)
        self.tried = [len(votes[rate]) for rate in self.rates]
        self.score = [0]
        for rate in self.rates:
            self.score.append(self.score[-1] + 2 * sum(votes[rate]) - len(votes[rate]))
        self.most = max(self.score)
        self.best = self.score.index(self.most)

    def met_by(self, index: int) -> int:
        """By how much the trials rule out that the capacity lies below a rate."""
        return self.most - max(self.score[: index + 1])

    def missed_by(self, index: int) -> int:
        """By how much the trials rule out that the capacity is a rate or above."""
        return self.most - max(self.score[index + 1 :])

    def first_to_try(self, indexes: Iterable[int]) -> float | None:
        """The first of these rates that has not been tried too often."""
        return next((self.rates[index] for index in indexes if self.tried[index] < MOST_TRIES), None)

    def bracket(self, met_by: int, missed_by: int) -> tuple[float | None, float | None]:
        """(the highest rate below the best threshold that is met by so much, the lowest above it that is missed by so
        much); None where none is."""
        low = next((i for i in range(self.best - 1, -1, -1) if self.met_by(i) >= met_by), None)
        high = next((i for i in range(self.best, len(self.rates)) if self.missed_by(i) >= missed_by), None)
        return (None if low is None else self.rates[low]), (None if high is None else self.rates[high])


def look(tries: Sequence[Try], start: float, growth: float, precision: float, repeats: int = 2) -> Found:
    """Where a search stands after `tries`, whatever their order.

    A geometric ramp from `start` by factors of `growth`, up until a rate misses, down until one meets; then bisection
    (geometric) until the boundaries are within `precision` of one another; then each boundary, until the lower one is
    met by `repeats` and the upper one missed by one more (false misses are more frequent than false meets, and cost
    more). A first miss is repeated before anything bounds the search from above, and once a miss has been contradicted
    every one is. Rates that contradict one another, also a lower one that missed and a higher one that met, are tried
    again from the lowest. A boundary that `MOST_TRIES` trials could not settle leaves the bracket wider instead, and so
    does a `precision` of infinity, which asks for any bracket that is confirmed by as few trials as can be.
    """
    seen = Thresholds(tries)
    following, closing = _next(seen, growth, precision, repeats) if tries else (round_rate(start), False)
    low, high = seen.bracket(repeats, repeats + 1)
    settled = low is not None and (high is not None or low >= HIGHEST_RATE)
    if following is not None and not settled:
        low, high = seen.bracket(1, 1)
    return Found(low, high, following, closing, confirmed=settled and repeats > 1)


def _next(seen: Thresholds, growth: float, precision: float, repeats: int) -> tuple[float | None, bool]:
    """(the rate to try next, whether it decides on a boundary)."""
    if math.isinf(precision):
        return _nearly_settled(seen, growth, repeats), True
    if (rate := _disputed(seen)) is not None:
        return rate, True
    for rate in (_doubtful_miss(seen), _ramp(seen, growth), _bisect(seen, precision)):
        if rate is not None:
            return rate, False
    return _unsettled(seen, 1 + precision, repeats), True


def _disputed(seen: Thresholds) -> float | None:
    """The lowest rate between thresholds that explain the trials equally well."""
    highest = len(seen.rates) - seen.score[::-1].index(seen.most)
    return seen.first_to_try(range(seen.best, highest))


def _doubtful_miss(seen: Thresholds) -> float | None:
    """The rate above the best threshold, where its miss may be a chance that would lead the search astray."""
    contradicted = any(seen.score[i + 1] - seen.score[i] < seen.tried[i] for i in range(seen.best))
    bound = seen.best if contradicted else len(seen.rates) - 1
    if seen.best == len(seen.rates) or seen.missed_by(bound) >= BOUNDS:
        return None
    return seen.first_to_try([seen.best])


def _ramp(seen: Thresholds, growth: float) -> float | None:
    if seen.best == len(seen.rates) and seen.rates[-1] < HIGHEST_RATE:
        return round_rate(seen.rates[-1] * growth)
    if seen.best == 0 and seen.rates[0] > LOWEST_RATE:
        return round_rate(seen.rates[0] / growth)
    return None


def _bisect(seen: Thresholds, precision: float) -> float | None:
    if not 0 < seen.best < len(seen.rates):
        return None
    low, high = seen.rates[seen.best - 1], seen.rates[seen.best]
    middle = round_rate(math.sqrt(low * high))
    return None if high <= low * (1 + precision) or middle in (low, high) else middle


def _unsettled(seen: Thresholds, step: float, repeats: int) -> float | None:
    """A boundary of the result, the lower one first, that has not been repeated enough; where not even the outermost
    rate could be settled, one beyond it."""
    below = list(itertools.takewhile(lambda i: seen.met_by(i) < repeats, reversed(range(seen.best))))
    above = list(itertools.takewhile(lambda i: seen.missed_by(i) <= repeats, range(seen.best, len(seen.rates))))
    if (rate := seen.first_to_try(below + above)) is not None:
        return rate
    if below and below[-1] == 0 and seen.rates[0] > LOWEST_RATE:
        return round_rate(seen.rates[0] / step)
    if above and above[-1] == len(seen.rates) - 1 and seen.rates[-1] < HIGHEST_RATE:
        return round_rate(seen.rates[-1] * step)
    return None


def _nearly_settled(seen: Thresholds, growth: float, repeats: int) -> float | None:
    """The boundary that lacks the fewest trials, the lower one first, of those the nearest to the best threshold."""
    low, high = seen.bracket(repeats, repeats + 1)
    if low is None and seen.best:
        return seen.rates[max(range(seen.best), key=lambda i: (seen.met_by(i), i))]
    if high is None and seen.best < len(seen.rates):
        return seen.rates[max(range(seen.best, len(seen.rates)), key=lambda i: (seen.missed_by(i), -i))]
    return _ramp(seen, growth)


def round_rate(rate: float) -> float:
    """A rate to four significant digits, within what can be offered."""
    return min(max(float(f"{rate:.4g}"), LOWEST_RATE), HIGHEST_RATE)
