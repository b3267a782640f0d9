"""Whether a run is worse than a baseline by more than a tolerance: what a gate in CI asks.

The starts of two runs are independent, so each question compares them as two targets' (`decision.compare`: Welch 1947),
but with the degrees of freedom of the run that has fewer starts, which never errs too often (Mickey & Brown 1966,
"Bounds on the distribution functions of the Behrens-Fisher statistic"): beside a baseline of many starts, a few that
agree by chance would seem to be known as well as these.
How many times worse the run is has a lower and an upper bound, each one-sided at 95 %, as tests of equivalence have
(Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach").

- Worse: the lower bound lies beyond the tolerance. Besides it must not be chance among all questions of the gate: where
  nothing has changed, any of them is called worse in at most 1 of 100 runs (Bonferroni; most of it for the capacities).
- No worse: the upper bound lies below the tolerance. That all are needs no correction for their number, because the
  gate passes wrongly only where the very question that is worse does (intersection-union test: Berger 1982,
  "Multiparameter hypothesis testing and acceptance sampling").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from scipy.special import stdtrit

from loadtest.analysis import two_runs, verdicts
from loadtest.analysis.records import Gate, GateOutcome, GateQuestion, Outcome, Undecided
from loadtest.analysis.saved_run import SavedRun
from loadtest.analysis.two_runs import BASELINE, THIS, Sides
from loadtest.analysis.verdicts import Evidence
from loadtest.experiment import starts
from loadtest.experiment.decision import ERROR, Comparison
from loadtest.experiment.questions import Metric, Question
from loadtest.experiment.settings import Slo
from loadtest.experiment.starts import Subject
from models.problem import Problem

TOLERANCE = 1.05
# In how many runs any question may be called worse where nothing has changed, and which share of it each kind has.
FALSE_ALARMS = 0.01
SHARES = {Metric.CAPACITY: 0.8, Metric.P99: 0.2}
MOST_STARTS = 1000  # nobody makes more


@dataclass(frozen=True)
class Tolerances:
    """How many times worse a run may be, at least 1: in its capacities, and in its p99 latencies."""

    capacity: float = TOLERANCE
    p99: float = TOLERANCE

    def of(self, metric: Metric) -> float:
        """That of one kind of question."""
        return self.capacity if metric is Metric.CAPACITY else self.p99


def judge(run: SavedRun, baseline: SavedRun, tolerances: Tolerances) -> Gate:
    """``run`` judged against ``baseline``. Raises as `worse`, and `Problem` where there is nothing to ask."""
    compared = two_runs.sides(run, baseline)
    questions = _answers(run, baseline, compared, tolerances)
    if not questions:
        raise Problem(
            f"{run.folder} and {baseline.folder}: nothing to compare, no capacity that both searched for and no rate "
            "at which both measured p99; measure both with one experiment, at a rate of your own: make compare RATE=…"
        )
    return Gate(
        this=two_runs.describe(run),
        baseline=two_runs.describe(baseline),
        outcome=outcome(questions),
        questions=questions,
        warnings=two_runs.warnings(run, baseline, compared),
    )


def worse(run: SavedRun, baseline: SavedRun, tolerances: Tolerances) -> tuple[GateQuestion, ...]:
    """Of each target: the capacity over each protocol where both runs searched for it, and p99 at each rate that both
    measured, in the order of `two_runs.sides`; then what the baseline has and ``run`` was to measure as well but has
    not, which is not decided: a server that is too broken to be measured does not pass. Empty where there is none.

    Both runs are judged by the SLO of ``run``. Raises `Problem` where they have no measured target in common.
    """
    return _answers(run, baseline, two_runs.sides(run, baseline), tolerances)


def _answers(
    run: SavedRun, baseline: SavedRun, compared: Mapping[str, Sides], tolerances: Tolerances
) -> tuple[GateQuestion, ...]:
    asked = [
        (Subject(question.metric, name, question.protocol, question.rate), question, one.evidence)
        for name, one in compared.items()
        for question in one.asked
        if verdicts.why_not_compared(question, one.evidence)[0] is not Outcome.NO_COMMON_RATE
    ]
    subjects = [subject for subject, _, _ in asked]
    missing = [subject for subject in _expected(run, baseline) if subject not in subjects]
    chance = chances([subject.metric for subject in (*subjects, *missing)])
    found = [
        answer(subject.target, question, evidence, tolerances, chance[subject.metric], run.experiment.slo)
        for subject, question, evidence in asked
    ]
    return (*found, *(_not_measured(subject, tolerances) for subject in missing))


def chances(asked: Sequence[Metric]) -> dict[Metric, float]:
    """How often a question of each kind may be called worse by chance, of so many."""
    counts = {metric: asked.count(metric) for metric in Metric}
    whole = math.fsum(SHARES[metric] for metric, count in counts.items() if count)
    return {metric: FALSE_ALARMS * SHARES[metric] / whole / count for metric, count in counts.items() if count}


def _expected(run: SavedRun, baseline: SavedRun) -> Iterable[Subject]:
    """What the baseline measured and ``run`` was asked to measure."""
    asked = run.experiment
    rates = [verdicts.rates(one.ladder_asked, one.protocols) for one in (asked, baseline.experiment)]
    for target, protocol, scenario, rate in dict.fromkeys(trial.key for trial in baseline.trials):
        if target not in asked.targets or protocol not in asked.protocols or scenario not in asked.scenarios:
            continue
        if scenario == "capacity":
            yield Subject(Metric.CAPACITY, target, protocol)
        elif scenario == "ladder" and all(rate in one.get(protocol, ()) for one in rates):
            yield Subject(Metric.P99, target, protocol, rate)


def _not_measured(subject: Subject, tolerances: Tolerances) -> GateQuestion:
    return GateQuestion(
        target=subject.target,
        protocol=subject.protocol,
        metric=subject.metric,
        outcome=GateOutcome.NOT_DECIDED,
        tolerance=tolerances.of(subject.metric),
        offered_rate=subject.rate or None,
        why=Undecided.NO_VALID_RATE,
    )


def answer(
    target: str, question: Question, evidence: Evidence, tolerances: Tolerances, chance: float, slo: Slo
) -> GateQuestion:
    """The answer to a question between `two_runs.BASELINE` and `two_runs.THIS`; ``chance``: how often it may be called
    worse where nothing has changed (see `chances`)."""
    compared = starts.comparison(question, evidence.figures)
    why = _why_open(question, evidence, compared)
    found = GateQuestion(
        target=target,
        protocol=question.protocol,
        metric=question.metric,
        outcome=GateOutcome.NOT_DECIDED,
        tolerance=tolerances.of(question.metric),
        offered_rate=question.rate or None,
        starts=starts.count(question, evidence.figures),
        why=why,
    )
    if why is Undecided.NO_VALID_RATE:
        return found
    baseline, this = (one.value for one in verdicts.figures_of(question, evidence))
    found = msgspec.structs.replace(found, baseline=baseline, this=this)
    if why or compared is None:
        return found
    result, why = decide(compared, question.metric, found.tolerance, chance)
    if result is GateOutcome.NO_WORSE and (why := _why_not_passed(question, evidence, slo)):
        result = GateOutcome.NOT_DECIDED
    ratio, at_least, at_most = bounds(compared, question.metric)
    needed = _needed(compared, ratio, found.tolerance) if why is Undecided.TOLERANCE_WITHIN else None
    return msgspec.structs.replace(
        found, outcome=result, ratio=ratio, at_least=at_least, at_most=at_most, why=why, needed=needed
    )


def decide(
    compared: Comparison, metric: Metric, tolerance: float, chance: float
) -> tuple[GateOutcome, Undecided | None]:
    """What the starts of two runs, the baseline's first, say of a question; ``chance`` as in `answer`."""
    _, at_least, at_most = bounds(compared, metric)
    if at_most < tolerance:
        return GateOutcome.NO_WORSE, None
    if at_least <= tolerance:
        return GateOutcome.NOT_DECIDED, Undecided.TOLERANCE_WITHIN
    if bounds(compared, metric, chance)[1] <= 1:
        return GateOutcome.NOT_DECIDED, Undecided.MAY_BE_CHANCE
    return GateOutcome.WORSE, None


def bounds(compared: Comparison, metric: Metric, error: float = ERROR) -> tuple[float, float, float]:
    """(how many times worse the second is than the first, at least so many, at most so many); each of the bounds is
    wrong at most as often as ``error`` says."""
    worse_by = compared.difference if metric is Metric.CAPACITY else -compared.difference
    reach = float(stdtrit(compared.starts - 1, 1 - error)) * compared.error
    return math.exp(worse_by), math.exp(worse_by - reach), math.exp(worse_by + reach)


def _needed(compared: Comparison, ratio: float, tolerance: float) -> int | None:
    number = compared.starts_for(ratio / tolerance, 2 * ERROR)
    return number if compared.starts < number <= MOST_STARTS else None


def _why_open(question: Question, evidence: Evidence, compared: Comparison | None) -> Undecided | None:
    """Why the runs cannot be compared; None where they can."""
    broken, because_of = verdicts.why_not_compared(question, evidence)
    if broken is Outcome.NO_VALID_RATE or not starts.count(question, evidence.figures):
        return Undecided.NO_VALID_RATE
    if broken is Outcome.TOO_FEW_ANSWERS and starts.count(question, evidence.figures) > 1:
        return Undecided.TOO_FEW_ANSWERS
    if BASELINE in because_of:
        return Undecided.NO_RATE_MET_SLO
    return Undecided.TOO_FEW_STARTS if compared is None else None


def _why_not_passed(question: Question, evidence: Evidence, slo: Slo) -> Undecided | None:
    """Why this run's figures, which are no worse, do not say that it is no worse."""
    if THIS in verdicts.failing_of(question, evidence, slo):
        return Undecided.TOO_MANY_ERRORS
    return None if evidence.proven else Undecided.PARITY_NOT_PROVEN


def outcome(answers: Sequence[GateQuestion]) -> GateOutcome:
    """What a gate says in all: worse where any question is, no worse where all are, of at least one."""
    found = {one.outcome for one in answers}
    if GateOutcome.WORSE in found:
        return GateOutcome.WORSE
    return GateOutcome.NO_WORSE if found == {GateOutcome.NO_WORSE} else GateOutcome.NOT_DECIDED
