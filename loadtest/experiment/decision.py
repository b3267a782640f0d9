"""When a run has decided which of two servers is better: what it asks, in which order, when it looks, and how sure.

The unit of replication is the freshly started server: a start gives one figure for each question, and two targets are
compared by Welch's t test on the logarithms of their starts' figures (Welch 1947), whatever their spreads. A start's
figure is itself uncertain, and few starts may agree by chance more closely than that allows, so a target's variance
counts at least as a share of what its figures' own uncertainty makes of it (`FLOOR`).

Looks are planned, and the error of each question is split between them (Bonferroni; group sequential tests: Pocock
1977, O'Brien & Fleming 1979), so that stopping early errs no more often than not looking. Questions stand in families
in a fixed sequence: the capacity over each protocol, the p99 latency at the main rate, the rest. Within a family the
error is Holm's (1979); once all of one are decided their error goes to the next (Maurer & Bretz 2013, "Multiple testing
in group sequential trials using graphical approaches"). All together name a wrong winner in at most 5 % of runs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy.special import chdtri, nctdtrinc, stdtr, stdtrit

from loadtest.experiment.questions import Family, Question

ERROR = 0.05
POWER = 0.8
LEVEL = 0.95
# What the first two families start with; the rest has what these leave over. In that order, since the capacity is the
# first question, and no one whose servers have the same capacity must go without a verdict on latency. These and the
# constants below are chosen by `make bench-decisions`.
SHARES = (0.6, 0.4, 0.0)
# Looks after so many starts of each target, as far as the budget allows. The last one has most of the error, because a
# run that comes so far has the small differences, and there is none fewer than `SPACING` starts before it. The first
# has most of the rest, because a large difference that it finds spares a run all further starts.
LOOKS = (3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
FIRST_SHARE = 0.25
LAST_SHARE = 0.6
SPACING = 2
FEWEST_STARTS = 2
# The share of the variance within starts below which the variance between starts is not believed.
FLOOR = 0.1
FAR = 100.0  # standard errors: so far out the noncentral t distribution takes long, and is not needed
LARGEST = 700.0  # the logarithm of a ratio that is still a number


@dataclass(frozen=True)
class Figure:
    """What one start says: the logarithm of its figure, the variance of that as far as its own trials tell, and how
    many answers a percentile is of."""

    log_value: float
    variance: float = 0.0
    answers: float = math.inf


@dataclass(frozen=True)
class Comparison:
    """Two targets compared by their starts' figures: the difference of the means of their logarithms (first less
    second), its standard error, and the degrees of freedom that this is known to (Satterthwaite 1946).

    starts  of the target that has fewer
    """

    difference: float
    error: float
    degrees: float
    starts: int

    @property
    def ratio(self) -> float:
        """First / second, of the geometric means."""
        return math.exp(self.difference)

    @property
    def p_value(self) -> float:
        """Two-sided, of no difference."""
        return float(2 * stdtr(self.degrees, -abs(self.difference) / self.error))

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The interval of the ratio."""
        reach = _quantile((1 + level) / 2, self.degrees) * self.error
        return math.exp(self.difference - reach), math.exp(self.difference + reach)

    def detectable(self, error: float) -> float:
        """The ratio, above 1, that a run like this finds in `POWER` of all cases at such an error."""
        return math.exp(min(_needed(error, self.degrees) * self.error, LARGEST))

    def starts_for(self, effect: float, error: float) -> int:
        """How many starts of each target find a ratio of ``effect`` in `POWER` of all cases at such an error, if starts
        lie as far apart as here; at least as many as the first look is after, at most a million."""
        size = abs(math.log(effect))
        fewest, most = LOOKS[0], 1_000_000
        while fewest < most:
            middle = (fewest + most) // 2
            degrees = self.degrees * (middle - 1) / (self.starts - 1)
            if _needed(error, degrees) * self.error * math.sqrt(self.starts / middle) <= size:
                most = middle
            else:
                fewest = middle + 1
        return most


def compare(first: Sequence[Figure], second: Sequence[Figure]) -> Comparison | None:
    """Welch's comparison of two targets' starts; None where either has fewer than two, or none of them differ."""
    if min(len(first), len(second)) < FEWEST_STARTS:
        return None
    (one, its), (other, others) = _mean(first), _mean(second)
    error = its + others
    if not error > 0:
        return None
    degrees = 1 / ((its / error) ** 2 / (len(first) - 1) + (others / error) ** 2 / (len(second) - 1))
    return Comparison(one - other, math.sqrt(error), degrees, min(len(first), len(second)))


def starts_for(effect: float, spread: float, error: float) -> int:
    """How many starts of each of two targets find a ratio of ``effect`` in `POWER` of all cases at such an error, where
    starts lie ``spread`` apart (the standard deviation of their logarithms); at most a million."""
    return _planned(2, spread).starts_for(effect, error)


def detectable(starts: int, spread: float, error: float) -> float:
    """The ratio, above 1, that so many starts of each of two targets find, likewise."""
    return _planned(starts, spread).detectable(error)


def _planned(starts: int, spread: float) -> Comparison:
    return Comparison(0.0, spread * math.sqrt(2 / starts), 2.0 * (starts - 1), starts)


def spread(figures: Sequence[Figure]) -> float | None:
    """The standard deviation of starts' figures on a log scale, at least what `FLOOR` allows; None for fewer than two
    starts."""
    if len(figures) < FEWEST_STARTS:
        return None
    return math.sqrt(_mean(figures)[1] * len(figures))


def looks(most: int) -> tuple[int, ...]:
    """After how many starts a run looks that has at most so many: not shortly before the last time, which has most of
    the error."""
    return (*(one for one in LOOKS if one <= most - SPACING), most)


def split(count: int) -> tuple[float, ...]:
    """Which share of a question's error each of so many looks has; they add up to 1."""
    if count == 1:
        return (1.0,)
    if count == 2:
        return (1 - LAST_SHARE, LAST_SHARE)
    between = count - 2
    return (FIRST_SHARE, *[(1 - FIRST_SHARE - LAST_SHARE) / between] * between, LAST_SHARE)


@dataclass(frozen=True)
class Decision:
    """How a question stands: whether it is decided, the p-value that is as small only by chance once in so many runs of
    all questions together, and the error that its test may have now (of `ERROR`)."""

    decided: bool
    p_adjusted: float
    error: float


def decide(p_values: Mapping[Question, Sequence[float | None]], count: int) -> dict[Question, Decision]:
    """How questions stand after the looks that there were: the surest is decided first, and passes its error on
    (Bretz et al. 2009, "A graphical approach to sequentially rejective multiple test procedures").

    p_values  of each question at each of its looks so far; None where there was nothing to compare
    count     how many looks a question has at most
    """
    shares = split(count)
    best = {
        question: min((p / share for p, share in zip(values, shares, strict=False) if p is not None), default=math.inf)
        for question, values in p_values.items()
    }
    undecided = list(best)
    left = dict.fromkeys(best, 0.0)
    for family, share in zip(Family, SHARES, strict=True):
        _pass_on(share, family, undecided, left)

    def demands(question: Question) -> float:
        return best[question] / left[question] if left[question] else math.inf

    adjusted: dict[Question, float] = {}
    errors: dict[Question, float] = {}
    largest = 0.0
    while undecided:
        if largest <= ERROR:  # so all before are decided, and what they had is passed on
            errors.update((question, left[question] * ERROR) for question in undecided)
        surest = min(undecided, key=demands)
        largest = max(largest, demands(surest))
        adjusted[surest] = min(1.0, largest)
        undecided.remove(surest)
        _pass_on(left[surest], surest.family, undecided, left)
    return {question: Decision(adjusted[question] <= ERROR, adjusted[question], errors[question]) for question in best}


def _pass_on(share: float, family: Family, undecided: Iterable[Question], left: dict[Question, float]) -> None:
    """Give error to the open questions of a family, in equal parts; where there are none, to the first family's that
    has some."""
    for one in (family, *Family):
        heirs = [question for question in undecided if question.family is one]
        if heirs:
            for question in heirs:
                left[question] += share / len(heirs)
            return


def _mean(figures: Sequence[Figure]) -> tuple[float, float]:
    """(the mean, its variance)."""
    count = len(figures)
    mean = math.fsum(one.log_value for one in figures) / count
    between = math.fsum((one.log_value - mean) ** 2 for one in figures) / (count - 1)
    within = math.fsum(one.variance for one in figures) / count
    return mean, max(between, FLOOR * within) / count


def _needed(error: float, degrees: float) -> float:
    """How many standard errors a difference must measure to be found in `POWER` of all cases, by the noncentral t
    distribution."""
    reach = _quantile(1 - error / 2, degrees)
    if reach < FAR:
        return float(nctdtrinc(degrees, 1 - POWER, reach))
    return reach * math.sqrt(float(chdtri(degrees, 1 - POWER)) / degrees)  # only the spread is uncertain


def _quantile(share: float, degrees: float) -> float:
    return float(stdtrit(degrees, share))


def open_questions(decisions: Mapping[Question, Decision]) -> list[Question]:
    """Those that are not decided."""
    return [question for question, one in decisions.items() if not one.decided]
