"""What each started server of a run says: one figure for each question, by the block that it was started in.

The run asks this at each of its looks, and the analysis when it is over, of the same files: so both decide the same.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass

from loadtest.experiment import slo as slo_of_trial
from loadtest.experiment import staircase
from loadtest.experiment.decision import Comparison, Figure, compare
from loadtest.experiment.enough import is_enough
from loadtest.experiment.questions import Metric, Question
from loadtest.experiment.records import SearchRecord, ServerDied, TrialRecord
from loadtest.experiment.settings import Slo
from loadtest.experiment.staircase import Try

# How far p99 of one trial is from that of endless ones on the same start, at least: what a histogram's buckets and a
# few thousand answers leave open (the standard deviation of its logarithm).
P99_SD = 0.03


@dataclass(frozen=True)
class Subject:
    """What a start has a figure of: the capacity, or p99 at a ``rate`` (requests/s; 0 for a capacity)."""

    metric: Metric
    target: str
    protocol: str
    rate: float = 0.0


Figures = dict[Subject, dict[int, Figure]]
"""Subject → block (a trial's repetition) → the figure of the server that was started in it."""


def figures(
    trials: Iterable[TrialRecord], searches: Iterable[SearchRecord], slo: Slo, unsteady: Container[str]
) -> Figures:
    """The figures of all valid starts.

    trials    of any scenario; those of capacity searches and of the ladder count
    unsteady  the ids of warm-ups that did not get steady: what follows one is not valid
    """
    found: Figures = {}
    tried: dict[tuple[Subject, int], list[Try]] = {}
    for trial in trials:
        if trial.scenario == "capacity" and says_something(trial, slo, unsteady):
            key = Subject(Metric.CAPACITY, trial.target, trial.protocol), trial.repetition
            tried.setdefault(key, []).append(Try(trial.offered_rate, meets(trial, slo)))
        elif trial.scenario == "ladder" and says_something(trial, slo, unsteady) and has_latency(trial):
            subject = Subject(Metric.P99, trial.target, trial.protocol, trial.offered_rate)
            value = Figure(math.log(trial.latency_ms.p99 or math.nan), P99_SD**2, trial.requests.ok)
            found.setdefault(subject, {})[trial.repetition] = value
    centres = {(one.target, one.protocol, one.repetition): one.centre for one in searches}
    for (subject, block), tries in tried.items():
        centre = centres.get((subject.target, subject.protocol, block)) or middle(tries)
        belief = staircase.believe(tries, centre)
        found.setdefault(subject, {})[block] = Figure(belief.log_rate, belief.sd**2)
    return found


def middle(tries: Iterable[Try]) -> float:
    """Where a search may have been expected to end, if no file says so: between its rates."""
    logs = [math.log(one.rate) for one in tries]
    return math.exp(math.fsum(logs) / len(logs))


def says_something(trial: TrialRecord, slo: Slo, unsteady: Container[str]) -> bool:
    """Whether a trial may be used: a warm server, a punctual generator, right answers."""
    died = any(isinstance(note, ServerDied) for note in trial.notes)
    silent = slo_of_trial.says_nothing(trial, slo.p99_ms) is not None
    return not (died or silent or trial.wrong or (trial.warm_up or "") in unsteady)


def meets(trial: TrialRecord, slo: Slo) -> bool:
    """Whether a trial meets the SLO."""
    return slo_of_trial.why_missed(trial, slo.p99_ms, slo.error_ratio) is None


def has_latency(trial: TrialRecord) -> bool:
    """Whether a trial's p99 is that of all arrivals: some were answered, and none was dropped."""
    return bool(trial.latency_ms.p99) and not trial.requests.dropped


def comparison(question: Question, found: Figures, up_to: int | None = None) -> Comparison | None:
    """The two targets of a question compared, by the starts of the first ``up_to`` blocks (None: of all); None where
    there are too few, or too few answers in them for a p99 (see `enough`)."""
    sides = []
    for target in question.compared:
        blocks = found.get(Subject(question.metric, target, question.protocol, question.rate), {})
        sides.append([blocks[block] for block in sorted(blocks)][:up_to])
    return None if question.metric is Metric.P99 and not all(map(are_enough, sides)) else compare(*sides)


def are_enough(figures: Iterable[Figure]) -> bool:
    """Whether the p99 latencies of so many starts rest on enough answers in all."""
    return is_enough(sum(one.answers for one in figures), 0.99)


def looked(question: Question, found: Figures, planned: Sequence[int], *, over: bool) -> list[Comparison | None]:
    """What the looks at a question showed, each after as many of its starts as were ``planned``. Where the run is
    ``over`` before the last of them, that one is at all the starts there are; what lies between was not taken."""
    number = count(question, found)
    taken = [comparison(question, found, one) for one in planned if one <= number]
    if over and len(taken) < len(planned):
        taken += [None] * (len(planned) - len(taken) - 1) + [comparison(question, found)]
    return taken


def count(question: Question, found: Figures) -> int:
    """On how many starts there is a figure of both targets of a question: the fewer of the two."""
    return min(
        len(found.get(Subject(question.metric, target, question.protocol, question.rate), ()))
        for target in question.compared
    )
