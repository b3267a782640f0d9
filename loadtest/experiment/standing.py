"""How a run stands: which of its questions are decided by the starts that it has, and whether it goes on.

Pure functions of the experiment and of what its trials say, so that a run that is resumed, and the analysis of one that
is over, come to the same. What a run saw at each look stands in its decisions.json.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from loadtest.experiment import decision, phase_plan, plan, starts
from loadtest.experiment.decision import Decision
from loadtest.experiment.file import Experiment
from loadtest.experiment.plan import FEWEST, Start, Trial
from loadtest.experiment.questions import Family, Metric, Question
from loadtest.experiment.records import TrialRecord
from loadtest.experiment.starts import Figures

# Scenarios whose trials decide something.
ASKING = ("ladder", "capacity")
# In the first so much of the budget blocks are made for latency alone.
ALONE = 2 / 3


@dataclass(frozen=True)
class Standing:
    """A question as it stands: on how many starts of each target, and what is decided."""

    question: Question
    starts: int
    decision: Decision


def looks(experiment: Experiment) -> tuple[int, ...]:
    """After how many starts the run looks. A fixed design looks once, when it is over."""
    asked = [experiment.scenario(name).repetitions for name in ASKING if name in experiment.scenarios]
    return (max(asked),) if asked and all(asked) else decision.looks(most_starts(experiment))


def most_starts(experiment: Experiment) -> int:
    """How many starts of each target the budget allows if nothing is decided before: what plans the looks."""
    once = 0.0
    for protocol in experiment.protocols:
        if "capacity" in experiment.scenarios:
            (centre,) = experiment.capacity.rates[protocol]
            once += _seconds(experiment, Trial("", protocol, centre, 1, 0, "capacity"))
        if "ladder" in experiment.scenarios:
            once += experiment.ladder.lead_in_s + experiment.ladder.duration_s
    return max(FEWEST, round(experiment.decision.budget_s / (len(experiment.targets) * once))) if once else FEWEST


def stand(
    questions: Iterable[Question], found: Figures, planned: Sequence[int], *, over: bool = False
) -> list[Standing]:
    """How questions stand after the looks that there were.

    planned  after how many starts there is a look; ``over``: the run has ended, and the starts that there are get the
             last look, wherever it was planned
    """
    asked = list(questions)
    p_values: dict[Question, list[float | None]] = {}
    counts = {question: starts.count(question, found) for question in asked}
    for question in asked:
        looked = starts.looked(question, found, planned, over=over)
        p_values[question] = [one.p_value if one else None for one in looked]
    decided = decision.decide(p_values, len(planned))
    return [Standing(question, counts[question], decided[question]) for question in asked]


def following(
    experiment: Experiment, number: int, standings: Sequence[Standing], trials: Iterable[TrialRecord]
) -> list[Start]:
    """The starts of the next block; none where the run has ended.

    trials  all that were made before it
    """
    undecided = [one.question for one in standings if not one.decision.decided and one.starts < _most(experiment, one)]
    used = spent(experiment, trials)
    for left_out in (None, Family.LATENCY):
        chosen = plan.block(experiment, number, [one for one in undecided if one.family is not left_out])
        if number <= FEWEST or affordable(experiment, chosen, used):
            return chosen
    adaptive = _adaptive(experiment)
    left = [
        replace(start, trials=tuple(trial for trial in start.trials if trial.scenario not in adaptive))
        for start in plan.block(experiment, number, [])
    ]
    return [start for start in left if start.trials]


def _most(experiment: Experiment, standing: Standing) -> int:
    """On how many starts a question is measured at most."""
    asking = experiment.capacity if standing.question.metric is Metric.CAPACITY else experiment.ladder
    return asking.repetitions or looks(experiment)[-1]


def longest(experiment: Experiment) -> list[list[Start]]:
    """The blocks of a run in which nothing is decided before the budget is spent."""
    undecided = plan.questions(experiment)
    blocks: list[list[Start]] = []
    used = 0.0
    while True:
        number = len(blocks) + 1
        block = plan.block(experiment, number, undecided if number <= looks(experiment)[-1] else [])
        if not block or not (number <= FEWEST or affordable(experiment, block, used)):
            return blocks
        used += cost(experiment, block)
        blocks.append(block)


def affordable(experiment: Experiment, block: Sequence[Start], used: float) -> bool:
    """Whether the budget has room for a block after so many seconds of it are ``used``. Fresh servers cost more than
    what latency is measured by on them, so blocks for that alone start only in the first `ALONE` of it."""
    budget_s = experiment.decision.budget_s
    return used + cost(experiment, block) <= budget_s and not (_alone(experiment, block) and used > ALONE * budget_s)


def spent(experiment: Experiment, trials: Iterable[TrialRecord]) -> float:
    """Seconds of the budget that trials have used, as `cost` counts them."""
    adaptive = _adaptive(experiment)
    made = [one for one in trials if _decides(experiment, one.scenario, one.protocol, one.offered_rate)]
    searched = {trial.repetition for trial in made if trial.scenario == "capacity"}
    alone: dict[tuple[int, str], list[Trial]] = {}
    for one in made:
        if "capacity" in adaptive and one.repetition not in searched:
            chosen = Trial(one.target, one.protocol, one.offered_rate, one.repetition, one.seed)
            alone.setdefault((one.repetition, one.target), []).append(chosen)
    starts_s = [
        phase_plan.overhead_s(experiment, Start(target, block, tuple(own))) for (block, target), own in alone.items()
    ]
    return math.fsum(one.lead_in_s + one.duration_s for one in made) + math.fsum(starts_s)


def cost(experiment: Experiment, block: Sequence[Start]) -> float:
    """Seconds of the budget that a block uses, as planned: those of its trials that decide something, and where it is
    made for latency alone its starts and warm-ups, too. Fixed designs are not counted: they have what was asked for."""
    deciding = _deciding(experiment, block)
    starts_s = [phase_plan.overhead_s(experiment, start) for start in deciding if _alone(experiment, block)]
    loads_s = [_seconds(experiment, trial) for start in deciding for trial in start.trials]
    return math.fsum(loads_s) + math.fsum(starts_s)


def _alone(experiment: Experiment, block: Sequence[Start]) -> bool:
    """Whether a block is made for latency alone, though capacities are searched for in others."""
    asked = {trial.scenario for start in _deciding(experiment, block) for trial in start.trials}
    return "capacity" in _adaptive(experiment) and asked == {"ladder"}


def _deciding(experiment: Experiment, block: Iterable[Start]) -> list[Start]:
    """The starts of a block that are made until something is decided, each with those trials only that decide it."""
    kept = []
    for start in block:
        trials = (one for one in start.trials if _decides(experiment, one.scenario, one.protocol, one.rate))
        kept.append(replace(start, trials=tuple(trials)))
    return [start for start in kept if start.trials]


def _decides(experiment: Experiment, scenario: str, protocol: str, rate: float) -> bool:
    """Whether a trial is one of those that are made until something is decided; overload decides nothing."""
    asked = scenario != "ladder" or rate in experiment.ladder.rates.get(protocol, ())
    return asked and scenario in _adaptive(experiment)


def _adaptive(experiment: Experiment) -> list[str]:
    """The scenarios that are measured until their questions are decided."""
    chosen = [name for name in ASKING if name in experiment.scenarios]
    return [name for name in chosen if not experiment.scenario(name).repetitions]


def _seconds(experiment: Experiment, trial: Trial) -> float:
    return phase_plan.expected_s(experiment, trial)
