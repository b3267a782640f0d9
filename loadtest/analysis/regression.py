"""Whether a run is worse than a baseline by more than a tolerance: what a gate in CI asks.

The starts of two runs are independent, so each question compares them as two targets' (`decision.compare`: Welch 1947),
by a one-sided interval. That any question is worse is said at 95 % confidence over all of them together (Bonferroni):
one that is wrongly worse fails the whole gate. That all are no worse needs no correction, because the gate passes
wrongly only where the very question that is worse does (intersection-union test: Berger 1982, "Multiparameter
hypothesis testing and acceptance sampling").
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from scipy.special import stdtrit

from loadtest.analysis import two_runs, verdicts
from loadtest.analysis.records import GateOutcome, GateQuestion, Outcome, Undecided
from loadtest.analysis.saved_run import SavedRun
from loadtest.analysis.two_runs import BASELINE, THIS
from loadtest.analysis.verdicts import Evidence
from loadtest.experiment import starts
from loadtest.experiment.decision import ERROR, Comparison, Metric, Question
from loadtest.experiment.settings import Slo


def worse(run: SavedRun, baseline: SavedRun, tolerance: float) -> tuple[GateQuestion, ...]:
    """Of each target that both runs measured: the capacity over each protocol where both searched for it, and p99 at
    each rate that both measured, in the order of `two_runs.sides`. Empty where they have none of these in common.

    tolerance  how many times worse a run may be, at least 1: 1.05
    Both runs are judged by the SLO of ``run``. Raises `Problem` where they have no measured target in common.
    """
    compared = two_runs.sides(run, baseline)
    asked = [
        (name, question, one.evidence)
        for name, one in compared.items()
        for question in one.asked
        if verdicts.why_not_compared(question, one.evidence)[0] is not Outcome.NO_COMMON_RATE
    ]
    slo = run.experiment.slo
    return tuple(answer(name, question, evidence, tolerance, len(asked), slo) for name, question, evidence in asked)


def answer(target: str, question: Question, evidence: Evidence, tolerance: float, among: int, slo: Slo) -> GateQuestion:
    """The answer to a question between `two_runs.BASELINE` and `two_runs.THIS`, ``among`` so many of a gate."""
    compared = starts.comparison(question, evidence.figures)
    why = _why_open(question, evidence, compared)
    found = GateQuestion(
        target=target,
        protocol=question.protocol,
        metric=question.metric,
        outcome=GateOutcome.NOT_DECIDED,
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
    ratio, at_least, at_most = bounds(compared, question.metric, among)
    if at_least > tolerance:
        result = GateOutcome.WORSE
    elif at_most < tolerance:
        why = _why_not_passed(question, evidence, slo)
        result = GateOutcome.NOT_DECIDED if why else GateOutcome.NO_WORSE
    else:
        result, why = GateOutcome.NOT_DECIDED, Undecided.TOLERANCE_WITHIN
    return msgspec.structs.replace(found, outcome=result, ratio=ratio, at_least=at_least, at_most=at_most, why=why)


def _why_open(question: Question, evidence: Evidence, compared: Comparison | None) -> Undecided | None:
    """Why the runs cannot be compared; None where they can."""
    broken, because_of = verdicts.why_not_compared(question, evidence)
    if broken is Outcome.NO_VALID_RATE or not starts.count(question, evidence.figures):
        return Undecided.NO_VALID_RATE
    if BASELINE in because_of:
        return Undecided.NO_RATE_MET_SLO
    return Undecided.TOO_FEW_STARTS if compared is None else None


def _why_not_passed(question: Question, evidence: Evidence, slo: Slo) -> Undecided | None:
    """Why this run's figures, which are no worse, do not say that it is no worse."""
    if THIS in verdicts.failing_of(question, evidence, slo):
        return Undecided.TOO_MANY_ERRORS
    return None if evidence.proven else Undecided.PARITY_NOT_PROVEN


def bounds(compared: Comparison, metric: Metric, among: int) -> tuple[float, float, float]:
    """(how many times worse the second is than the first, at least so many with 95 % confidence over so many questions
    together, at most so many with 95 % confidence)."""
    worse_by = compared.difference if metric is Metric.CAPACITY else -compared.difference
    down = float(stdtrit(compared.degrees, 1 - ERROR / among)) * compared.error
    up = float(stdtrit(compared.degrees, 1 - ERROR)) * compared.error
    return math.exp(worse_by), math.exp(worse_by - down), math.exp(worse_by + up)


def outcome(answers: Sequence[GateQuestion]) -> GateOutcome:
    """What a gate says in all: worse where any question is, no worse where all are, of at least one."""
    found = {one.outcome for one in answers}
    if GateOutcome.WORSE in found:
        return GateOutcome.WORSE
    return GateOutcome.NO_WORSE if found == {GateOutcome.NO_WORSE} else GateOutcome.NOT_DECIDED
