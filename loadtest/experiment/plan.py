"""Which trials a run makes: blocks in which every target is started anew once, in an order that turns round (A B B A).

Pure functions of the experiment and of what is decided so far.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from loadtest.experiment import decision
from loadtest.experiment.file import Experiment
from loadtest.experiment.questions import Family, Metric, Question, ask
from loadtest.experiment.scenarios import Capacity, Ladder, Rated
from loadtest.experiment.staircase import round_rate

# On so many starts every rate is measured and every capacity searched for, whatever the first of them say.
FEWEST = decision.LOOKS[0]
# A block's searches start so far beside the centre, by the same for all targets: the few rates that a staircase can end
# at then differ from block to block, and what it rounds off goes out with the mean.
JITTER = 0.15
# Longest text in a server's environment: what starts there moves its stack, and so its speed (Mytkowicz et al. 2009,
# "Producing Wrong Data Without Doing Anything Obviously Wrong!"). hyperfine does likewise.
LONGEST_OFFSET = 4096


@dataclass(frozen=True)
class Trial:
    """One scenario on one start of a target: `rate` in requests/s (0: a closed loop; capacity: where the search is
    centred). Trials of several targets with the same (protocol, scenario, rate, repetition) share their seed, so that
    all see the same arrivals."""

    target: str
    protocol: str
    rate: float
    repetition: int
    seed: int
    scenario: str = "ladder"

    @property
    def id(self) -> str:
        """The trial's name, unique in its run."""
        what = f"{self.rate:g}" if self.scenario == "ladder" else self.scenario
        if self.scenario == "server":
            what += f"-{self.rate:g}"
        return f"{self.target}-{self.protocol}-{what}-r{self.repetition}"


@dataclass(frozen=True)
class Start:
    """One target started anew, and the trials made on it: its protocols in turn, each after a warm-up. Repetition 0 is
    the probe, which has no trials. `offset`: bytes of padding in the server's environment."""

    target: str
    repetition: int
    trials: tuple[Trial, ...] = ()
    offset: int = 0


def probes(experiment: Experiment) -> list[Start]:
    """One start without trials for each target."""
    return [Start(name, 0) for name in experiment.target_names]


def questions(experiment: Experiment) -> list[Question]:
    """What a run asks, as far as its rates are known."""
    ladder = experiment.ladder
    return ask(
        experiment.target_names,
        experiment.protocols,
        ladder.rates if "ladder" in experiment.scenarios else {},
        ladder.main_rates,
        capacity="capacity" in experiment.scenarios,
    )


def block(experiment: Experiment, number: int, undecided: Collection[Question]) -> list[Start]:
    """The starts of a block, from 1, in their order; none where nothing is left to do.

    undecided  the questions that are open, of `questions`
    """
    order = list(experiment.target_names)
    random.Random(_seed(experiment.seed, "order", (number + 1) // 2)).shuffle(order)
    if number % 2 == 0:
        order.reverse()
    starts = []
    for name in order:
        trials = _trials(experiment, name, number, undecided)
        if trials:
            starts.append(Start(name, number, trials, _seed(experiment.seed, name, number) % LONGEST_OFFSET))
    return starts


def resolve(experiment: Experiment, throughput: Mapping[str, Mapping[str, float]]) -> Experiment:
    """The experiment with the rates fixed that depend on what a probe found (target → protocol → requests/s)."""
    slower = {
        protocol: min(by_protocol[protocol] for by_protocol in throughput.values()) for protocol in experiment.protocols
    }
    for name, scenario in experiment.unrated.items():
        if isinstance(scenario, Ladder):
            experiment = with_ladder(experiment, slower)
        elif isinstance(scenario, Capacity):
            most = allowed(experiment, name)
            centres = {protocol: (min(most, _centre(throughput, protocol)),) for protocol in experiment.protocols}
            experiment = experiment.with_rates(centres, name)
        else:
            most = allowed(experiment, name)
            rates = {protocol: _shares(scenario.fractions, slower[protocol], most) for protocol in experiment.protocols}
            experiment = experiment.with_rates(rates, name)
    return experiment


def lowered(experiment: Experiment, alone_ms: Sequence[float]) -> Experiment:
    """The experiment with the ladder's given rates, but not the user's own, lowered to `ladder.at_most`; ``alone_ms``:
    the time that the model takes for one image on each target, as far as that is known."""
    ladder = experiment.ladder
    if not (ladder.at_most and ladder.rates and alone_ms):
        return experiment
    most = rounded(ladder.at_most * 1000 / max(alone_ms))
    rates = {
        protocol: tuple(sorted({rate if rate == ladder.rate else min(rate, most) for rate in rates}))
        for protocol, rates in ladder.rates.items()
    }
    if rates == dict(ladder.rates):
        return experiment
    return replace(experiment, ladder=replace(ladder, rates=rates, at_most=0.0))  # repeated, they are as they are


def with_ladder(experiment: Experiment, slower: Mapping[str, float]) -> Experiment:
    """The experiment with the ladder's rates fixed: shares of what the ``slower`` target can do over each protocol
    (requests/s), and the user's own."""
    ladder, rates, overload = experiment.ladder, {}, {}
    limit = allowed(experiment, "ladder")
    for protocol, most in slower.items():
        chosen = {*_shares(ladder.fractions, most, limit), *([ladder.rate] if ladder.rate else [])}
        rates[protocol] = tuple(sorted(chosen))
        if ladder.overload and (above := rounded(ladder.overload * most)) <= limit:
            overload[protocol] = above
    return experiment.with_rates(rates).with_overload(overload)


def allowed(experiment: Experiment, scenario: str) -> float:
    """The highest rate that a scenario's trials may have, requests/s."""
    most = experiment.generator.most_rate
    return most / experiment.peak(scenario) if most else math.inf


def _centre(throughput: Mapping[str, Mapping[str, float]], protocol: str) -> float:
    """Between the targets, on a log scale."""
    found = [by_protocol[protocol] for by_protocol in throughput.values()]
    return rounded(math.exp(math.fsum(map(math.log, found)) / len(found)))


def _shares(fractions: Sequence[float], most: float, limit: float) -> tuple[float, ...]:
    return tuple(sorted({min(limit, rounded(share * most)) for share in fractions}))


def rounded(rate: float) -> float:
    """A rate to two digits, for people."""
    return max(1.0, float(f"{rate:.2g}"))


def _trials(experiment: Experiment, target: str, number: int, undecided: Collection[Question]) -> tuple[Trial, ...]:
    trials: list[Trial] = []
    for protocol in experiment.protocols:
        mild = [trial for name in MILD for trial in _of(experiment, name, target, protocol, number, undecided)]
        above = _overload(experiment, target, protocol, number)
        random.Random(_seed(experiment.seed, protocol, number)).shuffle(mild)
        trials += mild
        # What may leave a server overloaded comes after what must not see that.
        for name in experiment.scenarios:
            if name not in MILD:
                trials += _of(experiment, name, target, protocol, number, undecided)
        trials += above
    return tuple(trials)


MILD = ("ladder", "server", "single-stream")


def _overload(experiment: Experiment, target: str, protocol: str, number: int) -> list[Trial]:
    """What is tried once for each target; nothing where the ladder has that rate itself."""
    ladder = experiment.ladder
    rate = ladder.overload_rates.get(protocol)
    if "ladder" not in experiment.scenarios or number != 1:
        return []
    if not rate or rate in ladder.rates.get(protocol, ()):
        return []
    return [_trial(experiment, "ladder", target, protocol, number, rate)]


def _of(
    experiment: Experiment,
    name: str,
    target: str,
    protocol: str,
    number: int,
    undecided: Collection[Question],
) -> list[Trial]:
    """A scenario's trials on one start; none where it was not asked for, or has been measured on enough starts."""
    scenario = experiment.scenario(name)
    if name not in experiment.scenarios:
        return []
    if isinstance(scenario, Capacity):
        own = [one for one in undecided if one.metric is Metric.CAPACITY]
        if not _due(scenario.repetitions, number, own, target, protocol):
            return []
        beside = random.Random(_seed(experiment.seed, "centre", protocol, number)).uniform(-JITTER, JITTER)
        rates: tuple[float, ...] = (round_rate(scenario.rates[protocol][0] * math.exp(beside)),)
    elif isinstance(scenario, Ladder):
        rates = _ladder(scenario, target, protocol, number, undecided)
    elif number > scenario.repetitions:
        return []
    else:
        rates = scenario.rates[protocol] if isinstance(scenario, Rated) else (0.0,)
    return [_trial(experiment, name, target, protocol, number, rate) for rate in rates]


def _ladder(
    ladder: Ladder, target: str, protocol: str, number: int, undecided: Collection[Question]
) -> tuple[float, ...]:
    """The rates of the ladder on one start: all of them on the fewest, then the main one as long as it is asked about.
    The others are for the curves of latency over rate, and no reason for another start."""
    rates = ladder.rates.get(protocol, ())
    if ladder.repetitions:
        return rates if number <= ladder.repetitions else ()
    if number <= FEWEST:
        return rates
    own = [one for one in undecided if one.family is Family.LATENCY]
    return (ladder.main_rates[protocol],) if _due(0, number, own, target, protocol) else ()


def _due(repetitions: int, number: int, undecided: Sequence[Question], target: str, protocol: str) -> bool:
    """Whether a target is measured on this start: on as many as were asked for, else on the fewest, and then as long as
    a question about it is open."""
    if repetitions:
        return number <= repetitions
    return number <= FEWEST or any(target in one.compared and one.protocol == protocol for one in undecided)


def _trial(experiment: Experiment, name: str, target: str, protocol: str, number: int, rate: float) -> Trial:
    key = (protocol, number) if name == "ladder" else (name, protocol, number)
    return Trial(target, protocol, rate, number, _seed(experiment.seed, *key, rate), name)


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
