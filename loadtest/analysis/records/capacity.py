"""The highest rate of a target that meets the SLO."""

from __future__ import annotations

import enum

from loadtest.analysis.records.record import Interval, Record
from loadtest.experiment.boundary import Binding, Shape
from loadtest.experiment.settings import Slo


class WhyOpen(enum.Enum):
    """Why an end of a capacity's interval is open, and which: an end's `OpenEnd.rate` is the rate that is meant.

    NOTHING_VALID     both: no trial is valid (no rate)
    NO_RATE_MET       the lower: no rate from this one on met the SLO
    NO_RATE_MISSED    the upper: no rate up to this one missed the SLO
    """

    NOTHING_VALID = "nothing-valid"
    NO_RATE_MET = "no-rate-met"
    NO_RATE_MISSED = "no-rate-missed"


class OpenEnd(Record, frozen=True):
    """An open end of a capacity's interval (see `WhyOpen`)."""

    why: WhyOpen
    rate: float | None = None


class StartCapacity(Record, frozen=True, kw_only=True):
    """What one start of a server (its `repetition`) says of the capacity: requests/s, its own interval, and the folders
    of the trials that say it."""

    repetition: int
    rate: float
    ci95: tuple[float, float]
    trials: tuple[str, ...]


class Capacity(Record, frozen=True, kw_only=True):
    """The highest rate of a target over a protocol that meets the SLO, requests/s.

    scenario     "capacity" where it was searched for, else "ladder": then it is one of the ladder's rates
    max_rate     of a search the geometric mean of the starts; of a ladder its highest rate that meets the SLO. None
                 where no tested rate does
    ci95         of all starts that there could be; of a ladder between its rates. An end is None where no tested rate
                 sets a bound; `open_ends` says why
    starts       each start's own figure; empty for a ladder
    spread       the standard deviation of starts on a log scale (0.1: some 10 %); None for fewer than two
    binding      what misses the SLO above it; `shape`: whether latency climbs to the SLO or jumps over it
    """

    target: str
    protocol: str
    scenario: str
    slo: Slo
    max_rate: float | None
    ci95: Interval
    starts: tuple[StartCapacity, ...] = ()
    spread: float | None = None
    binding: Binding = Binding.NONE
    shape: Shape = Shape.UNKNOWN
    open_ends: tuple[OpenEnd, ...] = ()
    tested_rates: tuple[float, ...] = ()
