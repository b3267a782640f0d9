"""What follows of two targets, and of all."""

from __future__ import annotations

import enum

from loadtest.analysis.records.record import Estimate, Record
from loadtest.experiment.questions import Family, Metric


class Outcome(enum.Enum):
    """How a verdict came out. Only WINNER names one.

    no ratio:
    NO_COMMON_RATE       the two were not both measured at that rate
    NO_VALID_RATE        no start of one of them is valid there
    NO_RATE_MET_SLO      `because_of` met the SLO at no rate that was tried
    TOO_FEW_ANSWERS      fewer than ten answers of `because_of` lie beyond the percentile

    a ratio, but:
    NO_DIFFERENCE_SHOWN  its interval includes 1
    NOT_AFTER_CORRECTION its interval excludes 1, but not after correction for the run's questions and looks
    ONE_START_ONLY       one of the two was measured on one start, so nothing tells how far starts lie apart
    TOO_MANY_ERRORS      `because_of` failed more requests than the SLO allows (`error_ratios`)
    PARITY_NOT_PROVEN    the servers are not proven to serve the same model
    """

    WINNER = "winner"
    NO_COMMON_RATE = "no-common-rate"
    NO_VALID_RATE = "no-valid-rate"
    NO_RATE_MET_SLO = "no-rate-met-slo"
    TOO_FEW_ANSWERS = "too-few-answers"
    NO_DIFFERENCE_SHOWN = "no-difference-shown"
    NOT_AFTER_CORRECTION = "not-after-correction"
    ONE_START_ONLY = "one-start-only"
    TOO_MANY_ERRORS = "too-many-errors"
    PARITY_NOT_PROVEN = "parity-not-proven"


class Needed(Record, frozen=True, kw_only=True):
    """What would decide a question that is open: so many ``starts`` more of each target, some ``seconds`` in all (None
    where the run does not tell), would find a difference of ``effect`` (a ratio above 1) four times in five."""

    effect: float
    starts: int
    seconds: float | None


class Verdict(Record, frozen=True, kw_only=True):
    """The answer to one question about two targets over a protocol.

    family        its place in the sequence of questions (see `loadtest.experiment.decision`)
    compared      (first, second)
    offered_rate  requests/s at which they are compared; None for a capacity
    figures       of the first and of the second, each the geometric mean of its starts: capacity (requests/s), or p99
                  (ms) of a start; None without a verdict
    ratio         first / second, with ``ci95`` of it; None where there is no verdict
    starts        of the target that has fewer
    p_value       None where there is nothing to base one on; `p_adjusted`: after correction for all questions and looks
    error         the share of wrong winners that its test may have, after what other questions leave to it
    detectable    without a winner: the ratio (above 1) that this run would have found four times in five; None where it
                  would have found none up to 100
    needed        without a winner: what would decide it
    because_of    the targets that keep a winner from being named (see `Outcome`); `error_ratios`: their failed requests
    """

    family: Family
    protocol: str
    metric: Metric
    compared: tuple[str, str]
    outcome: Outcome
    winner: str | None = None
    offered_rate: float | None = None
    figures: tuple[Estimate, Estimate] | None = None
    ratio: float | None = None
    ci95: tuple[float, float] | None = None
    starts: int = 0
    p_value: float | None = None
    p_adjusted: float | None = None
    error: float | None = None
    detectable: float | None = None
    needed: Needed | None = None
    because_of: tuple[str, ...] = ()
    error_ratios: dict[str, float] = {}

    @property
    def has_ratio(self) -> bool:
        """Whether the two were compared at all."""
        return self.figures is not None

    @property
    def shows_no_difference(self) -> bool:
        """Whether they were compared fairly and no difference was shown."""
        return self.outcome in (Outcome.NO_DIFFERENCE_SHOWN, Outcome.NOT_AFTER_CORRECTION)

    @property
    def loser(self) -> str | None:
        """The other one, where there is a winner."""
        return None if self.winner is None else self.compared[self.compared[0] == self.winner]


class Standing(Record, frozen=True, kw_only=True):
    """A target's place in a `Ranking`: 1 + how many targets a verdict names the winner over it (``behind``); None where
    it was compared with none. Targets that were not told apart share a place."""

    target: str
    place: int | None
    behind: tuple[str, ...]


class Ranking(Record, frozen=True, kw_only=True):
    """All targets over a protocol by one metric, the best first; of one place in the run's order."""

    protocol: str
    metric: Metric
    standings: tuple[Standing, ...]
