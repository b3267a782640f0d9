"""Which trial runs when: blocks of one server at a time, interleaved A B B A, or A B C C B A.

Pure functions of the experiment.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtest.experiment.file import Experiment
from loadtest.experiment.scenarios import Capacity, Rated


@dataclass(frozen=True)
class Trial:
    """One scenario on one target: `rate` in requests/s (0: a closed loop; capacity: where the search starts). Trials of
    several targets with the same (protocol, scenario, rate, repetition) share their seed, so that all see the same
    arrivals."""

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
class Block:
    """Consecutive trials on one target: its protocols in turn, each after a warm-up. Repetition 0 is the probe."""

    target: str
    repetition: int
    trials: tuple[Trial, ...] = ()


def probes(experiment: Experiment) -> list[Block]:
    """One block without trials for each target, in reverse order: the last target probed is the first measured, and
    its server can stay up."""
    return [Block(name, 0) for name in reversed(experiment.target_names)]


def blocks(experiment: Experiment) -> list[Block]:
    """The measuring blocks, in A B B A order (A B C C B A with three targets); within a block the rates are shuffled
    (seeded), so that drift of the machine does not look like an effect of the rate."""
    plan = []
    repetitions = max(experiment.scenario(name).repetitions for name in experiment.scenarios)
    for repetition in range(1, repetitions + 1):
        order = experiment.target_names if repetition % 2 else tuple(reversed(experiment.target_names))
        plan += [Block(name, repetition, _trials(experiment, name, repetition)) for name in order]
    return plan


def resolve(experiment: Experiment, throughput: Mapping[str, Mapping[str, float]]) -> Experiment:
    """The experiment with the rates of every scenario fixed, from what a probe found (see `rates_of`)."""
    for name, scenario in experiment.unrated.items():
        if isinstance(scenario, Capacity):
            rates = _starts(throughput, experiment, scenario)
        else:
            rates = rates_of(throughput, experiment.protocols, scenario.fractions)
        experiment = experiment.with_rates(rates, name)
    return experiment


def _starts(
    throughput: Mapping[str, Mapping[str, float]], experiment: Experiment, scenario: Capacity
) -> dict[str, tuple[float, ...]]:
    """Where each target's search starts, for each protocol in the targets' order."""
    (share,) = scenario.fractions
    return {
        protocol: tuple(_rounded(share * throughput[name][protocol]) for name in experiment.target_names)
        for protocol in experiment.protocols
    }


def rates_of(
    throughput: Mapping[str, Mapping[str, float]], protocols: Sequence[str], fractions: Sequence[float]
) -> dict[str, tuple[float, ...]]:
    """Rates for each protocol: fractions of the slower target's probed throughput (requests/s; target → protocol →
    rate), rounded to two digits for people."""
    rates = {}
    for protocol in protocols:
        slower = min(by_protocol[protocol] for by_protocol in throughput.values())
        rates[protocol] = tuple(sorted({_rounded(share * slower) for share in fractions}))
    return rates


def _rounded(rate: float) -> float:
    return max(1.0, float(f"{rate:.2g}"))


def _trials(experiment: Experiment, target: str, repetition: int) -> tuple[Trial, ...]:
    trials: list[Trial] = []
    for protocol in experiment.protocols:
        mild = [trial for name in MILD for trial in _of(experiment, name, target, protocol, repetition)]
        random.Random(_seed(experiment.seed, protocol, repetition)).shuffle(mild)
        trials += mild
        # What may leave a server overloaded comes after what must not see that.
        for name in experiment.scenarios:
            if name not in MILD:
                trials += _of(experiment, name, target, protocol, repetition)
    return tuple(trials)


MILD = ("ladder", "server", "single-stream")


def _of(experiment: Experiment, name: str, target: str, protocol: str, repetition: int) -> list[Trial]:
    """One repetition of a scenario; none where it has fewer repetitions or was not asked for."""
    scenario = experiment.scenario(name)
    if name not in experiment.scenarios or repetition > scenario.repetitions:
        return []
    rates = scenario.rates[protocol] if isinstance(scenario, Rated) else (0.0,)
    if isinstance(scenario, Capacity) and len(rates) > 1:
        rates = (rates[experiment.target_names.index(target)],)
    key = (protocol, repetition) if name == "ladder" else (name, protocol, repetition)
    return [Trial(target, protocol, rate, repetition, _seed(experiment.seed, *key, rate), name) for rate in rates]


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
