"""A gate: is a run worse than a baseline by more than a tolerance?"""

from __future__ import annotations

import enum

from loadtest.analysis.records.record import Record
from loadtest.analysis.records.two_runs import ComparisonWarning, RunInfo
from loadtest.experiment.questions import Metric


class GateOutcome(enum.Enum):
    """Whether a run is worse than a baseline by more than a tolerance.

    WORSE        its interval is wholly beyond the tolerance, and not by chance among all that the gate asks
    NO_WORSE     its interval is wholly below the tolerance
    NOT_DECIDED  neither, or it may not be said: `Undecided` says why
    """

    WORSE = "worse"
    NO_WORSE = "no-worse"
    NOT_DECIDED = "not-decided"


class Undecided(enum.Enum):
    """Why a gate's question is open.

    TOLERANCE_WITHIN  the interval holds the tolerance: more starts would tell
    MAY_BE_CHANCE     it lies beyond the tolerance, but as many questions as the gate asks may show that by chance
    TOO_FEW_STARTS    one of the runs has fewer than two valid starts
    TOO_FEW_ANSWERS   fewer than ten answers of one of the runs lie beyond the percentile
    NO_VALID_RATE     one of the measurements broke a rule of measurement, or this run has none any more
    NO_RATE_MET_SLO   the baseline met the SLO at no rate, so there is nothing to be worse than
    TOO_MANY_ERRORS   it is no worse, but fails more requests than the SLO allows
    PARITY_NOT_PROVEN it is no worse, but is not proven to serve the right model
    """

    TOLERANCE_WITHIN = "tolerance-within"
    MAY_BE_CHANCE = "may-be-chance"
    TOO_FEW_STARTS = "too-few-starts"
    TOO_FEW_ANSWERS = "too-few-answers"
    NO_VALID_RATE = "no-valid-rate"
    NO_RATE_MET_SLO = "no-rate-met-slo"
    TOO_MANY_ERRORS = "too-many-errors"
    PARITY_NOT_PROVEN = "parity-not-proven"


class GateQuestion(Record, frozen=True, kw_only=True):
    """Whether a target's run is worse than its baseline's, in its capacity over a protocol or in p99 at one rate.

    offered_rate    requests/s; None for a capacity
    baseline, this  the geometric means of the starts: requests/s, or milliseconds; None where there is none
    ratio           how many times worse this run is: baseline / this of capacities, this / baseline of p99. 1 is equal
    at_least        with 95 % confidence; so `at_most` (see `loadtest.analysis.regression`)
    tolerance       how many times worse it may be
    starts          of the run that has fewer
    why             where it is not decided
    needed          where the tolerance is within: on how many starts of each run such a ratio would be decided four
                    times in five; None where a thousand would not do
    """

    target: str
    protocol: str
    metric: Metric
    outcome: GateOutcome
    tolerance: float
    offered_rate: float | None = None
    baseline: float | None = None
    this: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    starts: int = 0
    why: Undecided | None = None
    needed: int | None = None


class Gate(Record, frozen=True, kw_only=True):
    """A run judged against a baseline, question by question; ``warnings``: what a reader must know of the two."""

    this: RunInfo
    baseline: RunInfo
    outcome: GateOutcome
    questions: tuple[GateQuestion, ...]
    warnings: tuple[ComparisonWarning, ...] = ()
