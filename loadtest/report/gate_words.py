"""What the gate says of a run beside its baseline, in sentences."""

from __future__ import annotations

from loadtest.analysis.records import Gate, GateOutcome, GateQuestion, Undecided
from loadtest.experiment.questions import Metric
from loadtest.report import wording

OUTCOMES = {
    GateOutcome.WORSE: "worse",
    GateOutcome.NO_WORSE: "no worse",
    GateOutcome.NOT_DECIDED: "not decided",
}
RATIO = (
    "Ratio: how many times worse than the baseline (above 1: fewer requests per second, or a longer p99), with its "
    "lower and upper bound, each one-sided at 95 %. Worse: the lower bound lies above what is tolerated. No worse: the "
    "upper bound lies below it. Not decided: neither."
)
WHY = {
    Undecided.MAY_BE_CHANCE: "as many questions as are asked here may show that by chance",
    Undecided.TOO_FEW_STARTS: "too few starts to tell how far starts lie apart",
    Undecided.TOO_FEW_ANSWERS: "too few answers for such a percentile",
    Undecided.NO_VALID_RATE: "not measured validly in both runs",
    Undecided.NO_RATE_MET_SLO: "the baseline met the SLO at no rate that was tried",
    Undecided.TOO_MANY_ERRORS: "but this run fails more requests than the SLO allows",
    Undecided.PARITY_NOT_PROVEN: "but not both runs are proven to have served their model",
}


def line(question: GateQuestion) -> str:
    """A question with its answer, for a terminal."""
    return f"{OUTCOMES[question.outcome]:<11}  {asked(question)}: {answer(question)}"


def asked(question: GateQuestion) -> str:
    """What is asked, and of which target: "PyTorch, p99 at 300/s over gRPC"."""
    return f"{target(question)}, {what(question)}"


def target(question: GateQuestion) -> str:
    """Whom it is about."""
    return wording.shorten(wording.target_name(question.target), 40)


def what(question: GateQuestion) -> str:
    """What is asked: "capacity over gRPC"."""
    over = wording.protocol(question.protocol)
    if question.metric is Metric.CAPACITY:
        return f"capacity over {over}"
    return f"p99 at {wording.rate(question.offered_rate)} over {over}"


def answer(question: GateQuestion) -> str:
    """The figures and their ratio, and what keeps it from being decided."""
    if question.ratio is None:
        return because(question)
    before, after = figures(question)
    told = f"{before} before, {after} now, ratio {ratio(question)}, {wording.effect(question.tolerance)} is tolerated"
    return "; ".join(part for part in (told, because(question)) if part)


def figures(question: GateQuestion) -> tuple[str, str]:
    """The figures of the baseline and of this run."""
    show = wording.rate if question.metric is Metric.CAPACITY else wording.milliseconds
    return show(question.baseline), show(question.this)


def ratio(question: GateQuestion) -> str:
    """The ratio with its bounds: "1.11 (1.06–1.16)"."""
    if question.ratio is None:
        return wording.NOTHING
    return f"{wording.number(question.ratio)} ({wording.interval((question.at_least, question.at_most))})"


def because(question: GateQuestion) -> str:
    """Why a question is open, and what would decide it; empty where it is decided, or no thousand starts would."""
    if question.needed is not None:
        return f"about {question.needed} starts of each run would decide it, not {question.starts}"
    return WHY.get(question.why, "") if question.why else ""


def conclusion(found: Gate) -> str:
    """What is said of the whole run: "Worse than before: 1 of 4 questions worse, 2 no worse, 1 not decided."""
    counts = {outcome: sum(one.outcome is outcome for one in found.questions) for outcome in GateOutcome}
    told = ", ".join(f"{count} {OUTCOMES[outcome]}" for outcome, count in counts.items() if count)
    opening = {
        GateOutcome.WORSE: "Worse than",
        GateOutcome.NO_WORSE: "No worse than",
        GateOutcome.NOT_DECIDED: "Not decided whether worse than",
    }[found.outcome]
    asked_in_all = wording.plural(len(found.questions), "question")
    return f"{opening} the baseline {wording.isolated(found.baseline.folder)}: of {asked_in_all} {told}."
