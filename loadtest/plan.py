"""Which trial runs when: blocks of one server at a time, interleaved A B B A. Pure functions of the experiment."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtest.experiment import Experiment


@dataclass(frozen=True)
class Trial:
    """One rate on one target: `rate` in requests/s; trials of the two targets with the same (protocol, rate,
    repetition) share their seed, so that both see the same arrivals."""

    stack: str
    protocol: str
    rate: float
    repetition: int
    seed: int

    @property
    def id(self) -> str:
        """The trial's name, unique in its run."""
        return f"{self.stack}-{self.protocol}-{self.rate:g}-r{self.repetition}"


@dataclass(frozen=True)
class Block:
    """Consecutive trials on one target: its protocols in turn, each after a warm-up. Repetition 0 is the probe."""

    stack: str
    repetition: int
    trials: tuple[Trial, ...] = ()


def probes(experiment: Experiment) -> list[Block]:
    """One block without trials for each target, in reverse order: the last target probed is the first measured, and
    its server can stay up."""
    return [Block(stack, 0) for stack in reversed(experiment.targets)]


def blocks(experiment: Experiment) -> list[Block]:
    """The measuring blocks, in A B B A order; within a block the rates are shuffled (seeded), so that drift of the
    machine does not look like an effect of the rate."""
    plan = []
    for repetition in range(1, experiment.ladder.repetitions + 1):
        order = experiment.targets if repetition % 2 else tuple(reversed(experiment.targets))
        plan += [Block(stack, repetition, _trials(experiment, stack, repetition)) for stack in order]
    return plan


def ladder_rates(
    throughput: Mapping[str, Mapping[str, float]], protocols: Sequence[str], fractions: Sequence[float]
) -> dict[str, tuple[float, ...]]:
    """Rates for each protocol: fractions of the slower target's probed throughput (requests/s; target → protocol →
    rate), rounded to two digits for people."""
    rates = {}
    for protocol in protocols:
        slower = min(by_protocol[protocol] for by_protocol in throughput.values())
        rates[protocol] = tuple(sorted({max(1.0, float(f"{share * slower:.2g}")) for share in fractions}))
    return rates


def _trials(experiment: Experiment, stack: str, repetition: int) -> tuple[Trial, ...]:
    trials: list[Trial] = []
    for protocol in experiment.protocols:
        rates = list(experiment.ladder.rates[protocol])
        random.Random(_seed(experiment.seed, protocol, repetition)).shuffle(rates)
        trials += [
            Trial(stack, protocol, rate, repetition, _seed(experiment.seed, protocol, repetition, rate))
            for rate in rates
        ]
    return tuple(trials)


def _seed(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "big")
