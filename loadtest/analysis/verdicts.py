"""What the figures decide: who wins, where anyone does.

The questions, the looks at the figures and the error of each are those of `loadtest.experiment.decision`, and a start's
figures those of `loadtest.experiment.starts`: the same by which the run decided that it had measured enough.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from loadtest.analysis import start_means, validity
from loadtest.analysis.records import Capacity, Estimate, LadderInfo, Measurement, Needed, Outcome, Verdict, WhyOpen
from loadtest.analysis.saved_run import Key
from loadtest.experiment import decision, starts
from loadtest.experiment.decision import Comparison, Decision, Figure
from loadtest.experiment.questions import Metric, Question, ask
from loadtest.experiment.settings import Slo
from loadtest.experiment.starts import Figures, Subject

# Without a winner, what would be needed to find what was seen; but a difference below this is not worth finding.
SMALLEST_EFFECT = 1.05
# Two starts may leave so much open that a run would have found nothing: not a difference of a million, either.
LARGEST_EFFECT = 100.0

# What each look at a question showed; None where there was nothing to compare.
Looks = Sequence[Comparison | None]


@dataclass(frozen=True)
class Evidence:
    """What a run measured, as far as verdicts rest on it.

    figures       of each start
    measurements  by their keys; ``limits``: capacities by (target, protocol)
    proven        whether all targets serve the same model
    looks         after how many starts a question was looked at (see `decision.looks`)
    start_s       how long one start of one target took, with all that was measured on it; None where nobody knows
    """

    figures: Figures
    measurements: Mapping[Key, Measurement]
    limits: Mapping[tuple[str, str], Capacity]
    proven: bool
    looks: Sequence[int]
    start_s: float | None


def questions(
    targets: Sequence[str],
    rates: Mapping[str, Sequence[float]],
    main: Mapping[str, float],
    searched: Collection[tuple[str, str]],
) -> list[Question]:
    """What is asked over each protocol, as in `experiment.questions`; the capacity only of two targets that were both
    ``searched`` for it (target, protocol).

    rates  protocol → the rates (requests/s) at which p99 is compared, and the ``main`` one of them
    """
    found = ask(targets, rates, rates, main, capacity=True)
    return [
        one
        for one in found
        if one.metric is Metric.P99 or all((name, one.protocol) in searched for name in one.compared)
    ]


def rates(ladder: LadderInfo, protocols: Iterable[str]) -> dict[str, list[float]]:
    """Protocol → the rates (requests/s) at which latencies are compared, ascending: the ladder's and the user's own."""
    found = {}
    for protocol in protocols:
        given = {*ladder.rates.get(protocol, ()), *([ladder.rate] if ladder.rate else [])}
        found[protocol] = sorted(given - {ladder.overload_rates.get(protocol, 0.0)})
    return found


def main_rates(ladder: LadderInfo, protocols: Iterable[str]) -> dict[str, float]:
    """Protocol → the rate at which they are compared first: the user's own, else the middle one of the ladder."""
    middle = {name: sorted(values)[len(values) // 2] for name, values in ladder.rates.items() if values}
    return {name: ladder.rate or middle[name] for name in protocols if ladder.rate or name in middle}


def most_starts(asked: Sequence[Question], found: Figures) -> int:
    """The most starts that any question has."""
    return max((starts.count(one, found) for one in asked), default=0)


def decide(asked: Sequence[Question], evidence: Evidence, slo: Slo) -> tuple[Verdict, ...]:
    """A verdict on each question, in their order.

    A winner is named only where the question is decided (`decision.decide`) and the interval of the ratio excludes 1 by
    all starts there are, on the side that it was decided for; where no start of either target is broken by more than
    chance; where errors are within the SLO; and where both servers are proven to serve the same model. Else `Outcome`
    says what is missing. Targets that change places have the same winner, and ratio and interval turned round.
    """
    looked = {
        one: starts.looked(one, evidence.figures, evidence.looks, over=True)
        for one in asked
        if starts.count(one, evidence.figures)
    }
    p_values = {one: [look.p_value if look else None for look in looks] for one, looks in looked.items()}
    decided = decision.decide(p_values, len(evidence.looks))
    return tuple(_verdict(one, evidence, looked.get(one, []), decided.get(one), slo) for one in asked)


def _sides(question: Question, found: Figures) -> list[dict[int, Figure]]:
    subjects = (Subject(question.metric, name, question.protocol, question.rate) for name in question.compared)
    return [found.get(subject, {}) for subject in subjects]


def _verdict(
    question: Question,
    evidence: Evidence,
    looks: Looks,
    standing: Decision | None,
    slo: Slo,
) -> Verdict:
    bare = Verdict(
        family=question.family,
        protocol=question.protocol,
        metric=question.metric,
        compared=question.compared,
        outcome=Outcome.NO_DIFFERENCE_SHOWN,
        offered_rate=question.rate or None,
        starts=starts.count(question, evidence.figures),
    )
    outcome, because_of = why_not_compared(question, evidence)
    if outcome or standing is None:
        return msgspec.structs.replace(bare, outcome=outcome or Outcome.NO_VALID_RATE, because_of=because_of)
    first, second = (list(side.values()) for side in _sides(question, evidence.figures))
    found = msgspec.structs.replace(
        bare,
        figures=figures_of(question, evidence),
        ratio=math.exp(start_means.mean_log(first) - start_means.mean_log(second)),
        error=standing.error,
    )
    compared = starts.comparison(question, evidence.figures)
    if compared is None:
        return msgspec.structs.replace(found, outcome=Outcome.ONE_START_ONLY)
    share = decision.split(len(evidence.looks))
    found = msgspec.structs.replace(
        found, ci95=compared.interval(), p_value=compared.p_value, p_adjusted=standing.p_adjusted
    )
    failing = failing_of(question, evidence, slo)
    if failing:
        outcome = Outcome.TOO_MANY_ERRORS
    elif not _excludes_one(compared):
        outcome = Outcome.NO_DIFFERENCE_SHOWN
    elif not (standing.decided and _agrees(compared, looks, share)):
        outcome = Outcome.NOT_AFTER_CORRECTION
    elif not evidence.proven:
        outcome = Outcome.PARITY_NOT_PROVEN
    else:
        better = (compared.difference > 0) == (question.metric is Metric.CAPACITY)
        return msgspec.structs.replace(found, outcome=Outcome.WINNER, winner=question.compared[not better])
    found = msgspec.structs.replace(
        found,
        outcome=outcome,
        because_of=tuple(failing),
        error_ratios=failing,
        detectable=_detectable(compared, standing.error * share[-1]),
    )
    if not found.shows_no_difference or not standing.error:
        return found
    return msgspec.structs.replace(found, needed=_needed(compared, standing.error * share[-1], evidence.start_s))


def why_not_compared(question: Question, evidence: Evidence) -> tuple[Outcome | None, tuple[str, ...]]:
    """What keeps two targets from being compared at all, and which of them."""
    if question.metric is Metric.P99:
        measured = [
            evidence.measurements.get((name, question.protocol, "ladder", question.rate)) for name in question.compared
        ]
        if not all(measured):
            return Outcome.NO_COMMON_RATE, ()
        faults = [fault.reason for one in measured if one for fault in one.why_not_valid]
        if any(map(validity.disqualifying, faults)):
            return Outcome.NO_VALID_RATE, ()
        sides = zip(question.compared, _sides(question, evidence.figures), strict=True)
        few = tuple(name for name, side in sides if side and not starts.are_enough(side.values()))
        return (Outcome.TOO_FEW_ANSWERS if few else None), few
    limits = [evidence.limits[name, question.protocol] for name in question.compared]
    if any(one.open_ends and one.open_ends[0].why is WhyOpen.NOTHING_VALID for one in limits):
        return Outcome.NO_VALID_RATE, ()
    if any(_broken_within(one, evidence) for one in limits):
        return Outcome.NO_VALID_RATE, ()
    missed = tuple(one.target for one in limits if one.max_rate is None)
    return (Outcome.NO_RATE_MET_SLO if missed else None), missed


def _broken_within(limit: Capacity, evidence: Evidence) -> bool:
    """Whether a target broke a rule at a rate that it is said to stand."""
    return any(
        validity.disqualifying(fault.reason, overload=False)
        for (target, protocol, scenario, rate), one in evidence.measurements.items()
        if (target, protocol, scenario) == (limit.target, limit.protocol, "capacity") and rate <= (limit.max_rate or 0)
        for fault in one.why_not_valid
    )


def figures_of(question: Question, evidence: Evidence) -> tuple[Estimate, Estimate]:
    """The figures of both targets of a question, each the mean of its starts."""
    if question.metric is Metric.CAPACITY:
        first, second = (evidence.limits[name, question.protocol] for name in question.compared)
        return Estimate(first.max_rate, first.ci95), Estimate(second.max_rate, second.ci95)
    one, other = (_p99([side[block] for block in sorted(side)]) for side in _sides(question, evidence.figures))
    return one, other


def _p99(figures: Sequence[Figure]) -> Estimate:
    mean = start_means.estimate(figures)
    return Estimate(mean.value, mean.ci95 if len(figures) > 1 else None)


def failing_of(question: Question, evidence: Evidence, slo: Slo) -> dict[str, float]:
    """The targets that fail more requests than the SLO allows at a question's rate, and their share. Trials of a
    capacity search are judged one by one."""
    if question.metric is Metric.CAPACITY:
        return {}
    measured = (evidence.measurements[name, question.protocol, "ladder", question.rate] for name in question.compared)
    return {one.target: one.error_ratio for one in measured if one.error_ratio > slo.error_ratio}


def _excludes_one(compared: Comparison) -> bool:
    low, high = compared.interval()
    return low > 1 or high < 1


def _agrees(compared: Comparison, looks: Looks, shares: Sequence[float]) -> bool:
    """Whether all starts say the same as those of the look that decided."""
    seen = [(look.p_value / share, look.difference) for look, share in zip(looks, shares, strict=False) if look]
    return bool(seen) and (min(seen)[1] > 0) == (compared.difference > 0)


def _detectable(compared: Comparison, error: float) -> float | None:
    found = compared.detectable(error) if error else math.inf
    return found if found <= LARGEST_EFFECT else None


def _needed(compared: Comparison, error: float, start_s: float | None) -> Needed | None:
    """What would decide an open question; None where the run would have found any difference that is worth it."""
    effect = max(math.exp(abs(compared.difference)), SMALLEST_EFFECT)
    more = compared.starts_for(effect, error) - compared.starts
    if more <= 0:
        return None
    return Needed(effect=effect, starts=more, seconds=None if start_s is None else more * 2 * start_s)
