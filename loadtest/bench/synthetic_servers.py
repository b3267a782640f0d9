"""Whole runs on synthetic servers, whose capacity and latency are known: what they answer is drawn at random, what the
run makes of it is the project's own code (`staircase`, `standing`, `decision`).

The servers differ from start to start, and from trial to trial on one start, as seen in real runs here: the capacity
wanders by some 4 % (heavy-tailed), one trial in ten that should have met the SLO misses it because something stopped
the machine, and one in twenty above the capacity meets it; p99 of a trial wanders by some 11 %, heavy-tailed. A search
is centred where a probe of each target said, which is wrong by a quarter, and a little beside that in each block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.experiment import file, plan, staircase, standing, starts
from loadtest.experiment.decision import LEVEL, Comparison, Figure
from loadtest.experiment.file import Experiment
from loadtest.experiment.plan import Start, Trial
from loadtest.experiment.questions import Metric, Question
from loadtest.experiment.records import Requests, TrialRecord
from loadtest.experiment.scenarios import Capacity
from loadtest.experiment.staircase import Try
from loadtest.experiment.standing import Standing
from loadtest.experiment.starts import P99_SD, Figures, Subject

WANDER = 0.045
FALSE_MISS = 0.1
FALSE_MEET = 0.05
P99_WANDER = 0.11
PROBE_SD = 0.25

# In requests/s, fast enough that no trial has to be longer than asked for; what matters is relative to them.
CENTRES = {"grpc": 4000.0, "rest": 2000.0}

# Any, because rates are relative to it.
CENTRE = 1000.0

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class World:
    """What is true of two servers.

    capacity, p99  of the first / of the second, by protocol; 1 where not given
    spreads        of each target's starts: a standard deviation on a log scale
    drift          of both together from block to block, likewise: what the machine does to them
    """

    capacity: Mapping[str, float] = field(default_factory=dict)
    p99: Mapping[str, float] = field(default_factory=dict)
    spreads: tuple[float, float] = (0.1, 0.1)
    drift: float = 0.0

    def difference(self, question: Question) -> float:
        """The logarithm of the true ratio of the two targets of a question."""
        ratios = self.capacity if question.metric is Metric.CAPACITY else self.p99
        return math.log(ratios.get(question.protocol, 1.0))


@dataclass(frozen=True)
class Outcome:
    """How a question of a run ended: `winner` (of the two, as `Question.compared`; None: none was named), the true
    difference of the logarithms, the comparison by all starts, and the starts of each target and seconds of trials that
    there had been when it was decided."""

    question: Question
    winner: str | None
    difference: float
    comparison: Comparison | None
    starts: int | None
    seconds: float | None

    @property
    def is_right(self) -> bool:
        """Whether the better one was named."""
        if self.winner is None or not self.difference:
            return False
        first_is_better = (self.difference > 0) == (self.question.metric is Metric.CAPACITY)
        return (self.winner == self.question.compared[0]) == first_is_better

    @property
    def is_wrong(self) -> bool:
        """Whether one was named that is not the better."""
        return self.winner is not None and not self.is_right

    @property
    def is_covered(self) -> bool | None:
        """Whether the 95 % interval holds the true ratio; None without one."""
        if self.comparison is None:
            return None
        low, high = self.comparison.interval()
        return low <= math.exp(self.difference) <= high


def experiment(name: str = "default") -> Experiment:
    """One of the built-in experiments, with all of its rates fixed as a run fixes them."""
    rates = {protocol: (rate,) for protocol, rate in CENTRES.items()}
    return plan.with_ladder(file.load(name).with_rates(rates, "capacity"), CENTRES)


class Searches:
    """Many capacity searches at once. Answers are yes or no, so that all of them are paths in one tree of trials: what
    `staircase` says at a place in it is asked once, relative to the centre."""

    def __init__(self, scenario: Capacity) -> None:
        self._scenario = scenario
        self._tries: list[tuple[Try, ...]] = []
        self._rates: list[float] = []  # the logarithm of the next; nan: the search is over
        self._beliefs: list[tuple[float, float]] = []  # of the capacity's logarithm: mean, standard deviation
        self._next: list[list[int]] = []  # after a miss, after a meet; 0: not asked yet
        self._add(())

    def run(self, capacities: Floats, draw: np.random.Generator) -> tuple[Floats, Floats, Ints]:
        """Search for capacities (logarithms, relative to the centre; of any shape): what is believed of each at the
        end, its standard deviation, and the trials made, all of that shape."""
        at = np.zeros(capacities.shape, dtype=np.int64)
        for _ in range(self._scenario.trials):
            rates = np.array(self._rates)[at]
            can = capacities + WANDER * heavy_tailed(capacities.shape, draw) >= rates
            chance = draw.random(capacities.shape)
            met = np.where(can, chance >= FALSE_MISS, chance < FALSE_MEET).astype(np.int64)
            going = ~np.isnan(rates)
            for place, answer in {(int(place), int(one)) for place, one in zip(at[going], met[going], strict=True)}:
                if not self._next[place][answer]:
                    tried = Try(staircase.round_rate(CENTRE * math.exp(self._rates[place])), bool(answer))
                    self._next[place][answer] = self._add((*self._tries[place], tried))
            at = np.where(going, np.array(self._next)[at, met], at)
        believed = np.array(self._beliefs)[at]
        return believed[..., 0], believed[..., 1], np.array([len(tries) for tries in self._tries])[at]

    def _add(self, tries: tuple[Try, ...]) -> int:
        """Ask for a place in the tree; its index."""
        believed = staircase.believe(tries, CENTRE)
        self._beliefs.append((believed.log_rate - math.log(CENTRE), believed.sd))
        over = len(tries) == self._scenario.trials or (tries and believed.sd <= self._scenario.precision)
        self._rates.append(math.nan if over else math.log(staircase.following(tries, CENTRE) / CENTRE))
        self._tries.append(tries)
        self._next.append([0, 0])
        return len(self._tries) - 1


def heavy_tailed(shape: tuple[int, ...], draw: np.random.Generator) -> Floats:
    """Student's t of 4 degrees of freedom, with the standard deviation 1."""
    return draw.standard_t(4, shape) / math.sqrt(2)


@dataclass(frozen=True)
class _Measured:
    """What many runs would measure of their starts, if each had so many.

    capacity, sd, trials  of each search, [run × target × protocol × block]; the first a logarithm, as is
    p99                   at each of the ladder's rates, [run × target × protocol × block × rate]
    """

    capacity: Floats
    sd: Floats
    trials: Ints
    p99: Floats


class Runs:
    """Runs of an experiment with two targets; `searches` may be shared by all that search alike."""

    def __init__(self, chosen: Experiment, searches: Searches) -> None:
        self._experiment = chosen
        self._searches = searches
        self._planned = standing.looks(chosen)
        self._questions = plan.questions(chosen)
        self._blocks: dict[Any, list[Start]] = {}
        self._records: dict[tuple[str, str, str, int], TrialRecord] = {}

    def outcomes(self, world: World, count: int, draw: np.random.Generator) -> Iterator[list[Outcome]]:
        """How each question of each of so many runs ends."""
        measured = self._measure(world, count, draw)
        for run in range(count):
            yield self._outcomes(world, measured, run)

    def _measure(self, world: World, count: int, draw: np.random.Generator) -> _Measured:
        protocols = self._experiment.protocols
        # A question about other rates may get its first starts when all others are decided.
        blocks = 2 * self._planned[-1]
        shape = (count, 2, len(protocols), blocks)
        side = np.array([0.5, -0.5])[None, :, None, None]
        spread = np.array(world.spreads)[None, :, None, None]
        drift = np.cumsum(world.drift * draw.standard_normal((count, 1, 1, blocks)), axis=-1)

        def true(ratios: Mapping[str, float]) -> Floats:
            ratio = np.array([math.log(ratios.get(protocol, 1.0)) for protocol in protocols])[None, None, :, None]
            found: Floats = side * ratio + spread * draw.standard_normal(shape)
            return found

        probed = PROBE_SD / math.sqrt(2) * draw.standard_normal((count, 1, len(protocols), 1))
        centres = probed + draw.uniform(-plan.JITTER, plan.JITTER, (count, 1, len(protocols), blocks))
        capacity, sd, trials = self._searches.run(true(world.capacity) + drift - centres, draw)
        rates = len(self._experiment.ladder.rates[protocols[0]])
        p99 = (true(world.p99) - drift)[..., None] + P99_WANDER * heavy_tailed((*shape, rates), draw)
        return _Measured(capacity + centres, sd, trials, p99)

    def _outcomes(self, world: World, measured: _Measured, run: int) -> list[Outcome]:
        found: Figures = {}
        trials: list[TrialRecord] = []
        decided: dict[Question, tuple[int, float]] = {}
        number = 1
        while True:
            standings = standing.stand(self._questions, found, self._planned)
            spent = math.fsum(one.lead_in_s + one.duration_s for one in trials)
            for one in standings:
                if one.decision.decided:
                    decided.setdefault(one.question, (one.starts, spent))
            block = self._following(number, standings, trials)
            if not block:
                break
            for start in block:
                self._make(start, measured, run, found, trials)
            number += 1
        for one in standing.stand(self._questions, found, self._planned, over=True):
            if one.decision.decided:
                decided.setdefault(one.question, (one.starts, spent))
        return [self._outcome(world, question, found, decided.get(question)) for question in self._questions]

    def _following(self, number: int, standings: Sequence[Standing], trials: Sequence[TrialRecord]) -> list[Start]:
        """As `standing.following`, which depends on nothing else, and is asked once."""
        spent = standing.spent(self._experiment, trials)
        key = (number, spent, *((one.starts, one.decision.decided) for one in standings))
        if key not in self._blocks:
            self._blocks[key] = standing.following(self._experiment, number, standings, trials)
        return self._blocks[key]

    def _make(self, start: Start, measured: _Measured, run: int, found: Figures, trials: list[TrialRecord]) -> None:
        """Make the trials of a start."""
        block = start.repetition
        for trial in start.trials:
            place = (
                run,
                self._experiment.target_names.index(trial.target),
                self._experiment.protocols.index(trial.protocol),
                block - 1,
            )
            rates = self._experiment.ladder.rates[trial.protocol]
            if trial.scenario == "capacity":
                subject = Subject(Metric.CAPACITY, trial.target, trial.protocol)
                figure = Figure(float(measured.capacity[place]), float(measured.sd[place]) ** 2)
                found.setdefault(subject, {})[block] = figure
                trials += [self._record(trial)] * int(measured.trials[place])
                continue
            if trial.rate in rates:  # else it is overload, which nothing is compared at
                subject = Subject(Metric.P99, trial.target, trial.protocol, trial.rate)
                figure = Figure(float(measured.p99[(*place, rates.index(trial.rate))]), P99_SD**2)
                found.setdefault(subject, {})[block] = figure
            trials.append(self._record(trial))

    def _record(self, trial: Trial) -> TrialRecord:
        """Of a trial what `standing.spent` counts it by."""
        key = (trial.scenario, trial.target, trial.protocol, trial.repetition)
        if key not in self._records:
            scenario = self._experiment.scenario(trial.scenario)
            self._records[key] = TrialRecord(
                target=trial.target,
                protocol=trial.protocol,
                scenario=trial.scenario,
                offered_rate=trial.rate,
                repetition=trial.repetition,
                duration_s=scenario.duration_s,
                lead_in_s=scenario.lead_in_s,
                requests=Requests(scheduled=0, sent=0, completed=0, ok=0, dropped=0),
            )
        return self._records[key]

    def _outcome(self, world: World, question: Question, found: Figures, decided: tuple[int, float] | None) -> Outcome:
        compared = starts.comparison(question, found)
        winner = None
        if decided and compared and compared.p_value <= 1 - LEVEL:
            better = (compared.difference > 0) == (question.metric is Metric.CAPACITY)
            winner = question.compared[not better]
        return Outcome(question, winner, world.difference(question), compared, *(decided or (None, None)))
