"""Which rate a capacity search tries next, and what its trials say of one started server.

The capacity is the threshold of a psychometric function: how likely a trial meets the SLO falls from almost 1 to almost
0 around it. QUEST+ (Watson 2017, "QUEST+: A general multidimensional Bayesian adaptive psychometric method"), for one
threshold the Ψ method (Kontsevich & Tyler 1999): the next rate is the one whose answer is expected to leave the least
uncertainty (entropy), and the capacity is the mean of what is believed in the end, on a log scale. No single trial
decides: any of them may be spoiled by what the machine does at that moment (the lapse rate; Wichmann & Hill 2001), a
miss more often than a meet.

The belief before any trial is wide, and the same for every target of a run: centred, on a log scale, between the
throughputs that a probe found. Nothing is carried over from one start to the next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

LOWEST_RATE, HIGHEST_RATE = 0.1, 1e6

# A trial that should have met the SLO misses it so often, because the machine or a garbage collector stopped it for a
# moment, and one that should have missed meets it so often. Seen here: one miss in ten to fifteen.
FALSE_MISS = 0.1
FALSE_MEET = 0.05
# How gradually trials around the capacity go from meeting to missing, on a log scale: seen here, some 5 %.
WIDTH = 0.06
# Where the capacity is before any trial: a factor of 1.65 around the centre, or (1 in 50) anywhere within 64-fold.
PRIOR_SD = 0.5
PRIOR_ANYWHERE = 0.02
_REACH = math.log(64)
_STEP = 0.01

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Try:
    """One trial of a search: the offered rate (requests/s), and whether it met the SLO."""

    rate: float
    met: bool


@dataclass(frozen=True)
class Belief:
    """What a start's trials say of its capacity: mean and standard deviation of its logarithm (requests/s)."""

    log_rate: float
    sd: float

    @property
    def rate(self) -> float:
        """The capacity in requests/s."""
        return math.exp(self.log_rate)


def believe(tries: Iterable[Try], centre: float) -> Belief:
    """What trials, at whatever rates, say of the capacity of the server that they were made on.

    centre  requests/s around which it was expected
    """
    return _described(_posterior(tries, centre), centre)


def following(tries: Iterable[Try], centre: float) -> float:
    """The rate (requests/s) whose answer is expected to tell the most after these trials: the uncertainty about the
    answer, less what would be left of it if the capacity were known."""
    likely = _posterior(tries, centre)
    grid = _grid()
    tells = _entropy(grid.meets @ likely) - grid.by_chance @ likely
    return round_rate(centre * math.exp(grid.tried[int(np.argmax(tells))]))


def round_rate(rate: float) -> float:
    """A rate to four significant digits, within what can be offered."""
    return min(max(float(f"{rate:.4g}"), LOWEST_RATE), HIGHEST_RATE)


def meets(log_rate: Floats | float, log_capacity: Floats | float) -> Floats:
    """How likely a trial at a rate meets the SLO of a server with that capacity (see the constants above): a logistic
    function that is within 0.01 of the normal distribution's of standard deviation `WIDTH`."""
    steep = np.exp(-np.clip(1.702 * (np.asarray(log_capacity) - log_rate) / WIDTH, -50, 50))
    likely: Floats = FALSE_MEET + (1 - FALSE_MISS - FALSE_MEET) / (1 + steep)
    return likely


@dataclass(frozen=True)
class _Grid:
    """Relative to the centre, on a log scale: `capacities` [c] with their `prior`, and rates that may be `tried` [r].
    [r × c]: how likely each `meets`, and the entropy of that."""

    capacities: Floats
    prior: Floats
    tried: Floats
    meets: Floats
    by_chance: Floats


@cache
def _grid() -> _Grid:
    capacities = np.arange(-_REACH, _REACH + _STEP / 2, _STEP)
    near = np.exp(-0.5 * (capacities / PRIOR_SD) ** 2)
    prior = (1 - PRIOR_ANYWHERE) * near / near.sum() + PRIOR_ANYWHERE / len(capacities)
    tried = capacities[::2]
    likely = meets(tried[:, None], capacities[None, :])
    return _Grid(capacities, prior, tried, likely, _entropy(likely))


def _posterior(tries: Iterable[Try], centre: float) -> Floats:
    grid = _grid()
    weights = np.log(grid.prior)
    for one in tries:
        met = meets(math.log(one.rate / centre), grid.capacities)
        weights = weights + np.log(met if one.met else 1 - met)
    likely: Floats = np.exp(weights - weights.max())
    likely /= likely.sum()
    return likely


def _described(likely: Floats, centre: float) -> Belief:
    capacities = _grid().capacities
    mean = float(likely @ capacities)
    return Belief(math.log(centre) + mean, math.sqrt(float(likely @ (capacities - mean) ** 2)))


def _entropy(likely: Floats) -> Floats:
    """Of an answer that is yes so likely; nats."""
    found: Floats = -likely * np.log(likely) - (1 - likely) * np.log(1 - likely)
    return found
