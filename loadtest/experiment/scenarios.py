"""The scenarios of an experiment: what load a trial puts on a server, and what it finds out.

single-stream, server and offline are those of MLPerf Inference, with its definitions (Reddi et al. 2020, "MLPerf
Inference Benchmark", §III-C; https://github.com/mlcommons/inference_policies): the next query when the last one is
answered; Poisson arrivals at a rate; all of the work at once. The others are ours.

Rates are requests/s for each protocol. Where none are given they are `fractions` of what the slower target can do,
found by a probe, so that every target sees the same; a capacity search starts near what its own target can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

from loadtest.experiment.arrival_shape import PROCESSES
from loadtest.experiment.limits import between, one_of
from models.problem import Problem
from serving.target import PROTOCOLS

Rates = Annotated[
    Mapping[str, tuple[float, ...]],
    msgspec.Meta(description="a table of lists, such as {grpc = [100.0, 200.0]}"),
]

_SHARED = {
    "repetitions": (1, 100, "repetitions"),
    "duration_s": (1, 604_800, "seconds"),
    "lead_in_s": (0, 600, "seconds"),
    "batch": (1, 1024, "images"),
}


@dataclass(frozen=True)
class Ladder:
    """Latency versus offered rate: the same rates for every target.

    fractions    shares of the slower target's probed throughput; rates: instead of them, requests/s for each protocol
    repetitions  how often each rate is measured on each target, in A B B A order
    duration_s   measured seconds; lead_in_s: seconds at the same rate before, sent but not counted
    arrival      the arrival process; batch: images in one request
    """

    fractions: tuple[float, ...] = (0.25, 0.5, 0.8, 1.2)
    rates: Rates = field(default_factory=dict)
    repetitions: int = 2
    duration_s: float = 5.0
    lead_in_s: float = 0.5
    arrival: str = "poisson"
    batch: int = 1

    def __post_init__(self) -> None:
        _check_shared("ladder", self)
        _check_rates("ladder", self.fractions, self.rates)
        one_of("ladder.arrival", self.arrival, PROCESSES)


@dataclass(frozen=True)
class Capacity:
    """The highest rate that meets the SLO: a geometric ramp, then bisection, then both boundaries once more (see
    `loadtest.experiment.capacity_search`).

    The first repetition searches; the last one, on a server started anew, repeats both boundaries and goes on
    searching where it does not find the same.

    fractions   where the ramp starts, as a share of each target's own probed throughput; rates: instead of it, for each
                protocol one for all targets, or one for each in their order
    growth      the ramp's factor; precision: the search ends when the boundaries are within this share of one another
    duration_s  measured seconds of each rate, twice as many where a trial decides on a boundary
    budget_s    most seconds of one repetition's search, for each target and protocol
    """

    fractions: tuple[float, ...] = (0.9,)
    rates: Rates = field(default_factory=dict)
    repetitions: int = 2
    duration_s: float = 2.5
    lead_in_s: float = 0.5
    growth: float = 1.4
    precision: float = 0.05
    budget_s: float = 26.0
    arrival: str = "poisson"
    batch: int = 1

    def __post_init__(self) -> None:
        _check_shared("capacity", self)
        between(
            "capacity",
            self,
            repetitions=(1, 2, "repetitions"),
            growth=(1.05, 10, "a factor"),
            precision=(0.005, 0.5, "a share"),
            budget_s=(1, 86_400, "seconds"),
        )
        _check_rates("capacity", self.fractions, self.rates, single_share=True)
        one_of("capacity.arrival", self.arrival, PROCESSES)


@dataclass(frozen=True)
class SingleStream:
    """MLPerf's single-stream: one request at a time, the next one when the last is answered. Shows the latency floor;
    MLPerf's figure is p90."""

    repetitions: int = 2
    duration_s: float = 10.0
    lead_in_s: float = 1.0
    batch: int = 1

    def __post_init__(self) -> None:
        _check_shared("single_stream", self)


@dataclass(frozen=True)
class ServerScenario:
    """MLPerf's server: Poisson arrivals at a rate, and the latency that they see (keys: see `Ladder`)."""

    fractions: tuple[float, ...] = (0.5,)
    rates: Rates = field(default_factory=dict)
    repetitions: int = 2
    duration_s: float = 10.0
    lead_in_s: float = 1.0
    batch: int = 1

    arrival = "poisson"  # by definition

    def __post_init__(self) -> None:
        _check_shared("server", self)
        _check_rates("server", self.fractions, self.rates)


@dataclass(frozen=True)
class Offline:
    """MLPerf's offline: the work is all there, and throughput is what counts.

    concurrency  requests kept in flight, so that every batch is full; 0: four full batches for each instance
    """

    repetitions: int = 2
    duration_s: float = 10.0
    lead_in_s: float = 1.0
    batch: int = 1
    concurrency: int = 0

    def __post_init__(self) -> None:
        _check_shared("offline", self)
        between("offline", self, concurrency=(0, 65_536, "requests in flight"))


@dataclass(frozen=True)
class Soak:
    """One rate for long: does latency drift, does the server lose anything? (Keys: see `Ladder`.)"""

    fractions: tuple[float, ...] = (0.5,)
    rates: Rates = field(default_factory=dict)
    repetitions: int = 1
    duration_s: float = 600.0
    lead_in_s: float = 1.0
    arrival: str = "poisson"
    batch: int = 1

    def __post_init__(self) -> None:
        _check_shared("soak", self)
        _check_rates("soak", self.fractions, self.rates, single=True)
        one_of("soak.arrival", self.arrival, PROCESSES)


@dataclass(frozen=True)
class Spike:
    """Overload for a while, and the time to recover from it: Poisson arrivals at a rate, `factor` times as many for
    `spike_s` seconds after `before_s`, and again the rate for `after_s`."""

    fractions: tuple[float, ...] = (0.5,)
    rates: Rates = field(default_factory=dict)
    repetitions: int = 2
    lead_in_s: float = 1.0
    before_s: float = 5.0
    factor: float = 3.0
    spike_s: float = 5.0
    after_s: float = 15.0
    batch: int = 1

    arrival = "spike"

    @property
    def duration_s(self) -> float:
        """Measured seconds in all."""
        return self.before_s + self.spike_s + self.after_s

    def __post_init__(self) -> None:
        between(
            "spike",
            self,
            before_s=(1, 86_400, "seconds"),
            factor=(1, 100, "a multiple of the rate"),
            spike_s=(1, 86_400, "seconds"),
            after_s=(1, 86_400, "seconds"),
        )
        _check_shared("spike", self)
        _check_rates("spike", self.fractions, self.rates, single=True)


Scenario = Ladder | Capacity | SingleStream | ServerScenario | Offline | Soak | Spike
Rated = Ladder | Capacity | ServerScenario | Soak | Spike
# name -> section; the table in the experiment file has '_' for '-'
SCENARIOS: dict[str, type[Scenario]] = {
    "ladder": Ladder,
    "capacity": Capacity,
    "single-stream": SingleStream,
    "server": ServerScenario,
    "offline": Offline,
    "soak": Soak,
    "spike": Spike,
}


def section(scenario: str) -> str:
    """The table of a scenario in the experiment file."""
    return scenario.replace("-", "_")


def _check_shared(where: str, values: Scenario) -> None:
    between(where, values, **_SHARED)


def _check_rates(
    where: str, fractions: tuple[float, ...], rates: Rates, single: bool = False, single_share: bool = False
) -> None:
    if not fractions or not all(0 < share <= 2 for share in fractions):
        raise Problem(f"{where}.fractions = {list(fractions)}: use shares of the probed throughput in (0, 2]")
    if (single or single_share) and len(fractions) != 1:
        raise Problem(f"{where}.fractions = {list(fractions)}: use one")
    for protocol, values in rates.items():
        one_of(f"{where}.rates", protocol, PROTOCOLS)
        if not values or not all(0.1 <= rate <= 1e6 for rate in values):
            raise Problem(f"{where}.rates.{protocol} = {list(values)}: use requests/s from 0.1 to 1000000")
        if single and len(values) != 1:
            raise Problem(f"{where}.rates.{protocol} = {list(values)}: use one rate")
