"""The scenarios of an experiment: what load a trial puts on a server, and what it finds out.

single-stream, server and offline are those of MLPerf Inference, with its definitions (Reddi et al. 2020, "MLPerf
Inference Benchmark", §III-C; https://github.com/mlcommons/inference_policies): the next query when the last one is
answered; Poisson arrivals at a rate; all of the work at once. The others are ours.

Rates are requests/s for each protocol. Where none are given they are `fractions` of what the slower target can do, so
that every target sees the same.
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
    "duration_s": (1, 604_800, "seconds"),
    "lead_in_s": (0, 600, "seconds"),
    "batch": (1, 1024, "images"),
}


@dataclass(frozen=True)
class Ladder:
    """Latency versus offered rate: the same rates for every target, each measured on every start.

    fractions    shares of what the slower target can do, as a probe finds. The middle one is the main rate, compared
                 before the others
    rates        instead of them, requests/s for each protocol
    at_most      a share of what the model alone can answer on the slower target, one image at a time: given rates above
                 it are lowered to it, so that a slow model is measured and not overloaded; 0: they are never lowered
    rate         your own rate, requests/s, beside them: the main one; 0: none
    overload     a share of the same, tried once for each target, to see what overload does; 0: not
    overload_rates  requests/s instead of it
    repetitions  on how many starts of each target each rate is measured; 0: until its questions are decided
    duration_s   measured seconds; lead_in_s: seconds at the same rate before, sent but not counted
    arrival      the arrival process; batch: images in one request
    """

    fractions: tuple[float, ...] = (0.3, 0.6, 0.85)
    rates: Rates = field(default_factory=dict)
    at_most: float = 0.0
    rate: float = 0.0
    overload: float = 1.2
    overload_rates: Mapping[str, float] = field(default_factory=dict)
    repetitions: int = 0
    duration_s: float = 2.0
    lead_in_s: float = 0.25
    arrival: str = "poisson"
    batch: int = 1

    def __post_init__(self) -> None:
        _check_shared("ladder", self, fewest=0)
        _check_rates("ladder", self.fractions, self.rates)
        between("ladder", self, rate=(0, 1e6, "requests/s"), overload=(0, 10, "a share of what a target can do"))
        between("ladder", self, at_most=(0, 10, "a share of what the model alone can answer"))
        for protocol, rate in self.overload_rates.items():
            one_of("ladder.overload_rates", protocol, PROTOCOLS)
            if not 0.1 <= rate <= 1e6:
                raise Problem(f"ladder.overload_rates.{protocol} = {rate:g}: use requests/s from 0.1 to 1000000")
        one_of("ladder.arrival", self.arrival, PROCESSES)

    @property
    def main_rates(self) -> dict[str, float]:
        """The main rate of each protocol, where its rates are known."""
        return {protocol: self.rate or sorted(rates)[len(rates) // 2] for protocol, rates in self.rates.items()}


@dataclass(frozen=True)
class Capacity:
    """The highest rate that meets the SLO, on each start of a server by a short staircase of trials (see
    `loadtest.experiment.staircase`).

    rates        where every target's staircase starts, one rate for each protocol; without it, between what a probe
                 found of the targets
    repetitions  on how many starts of each target it is searched for; 0: until its questions are decided
    trials       at most so many in one search; precision: it ends once the capacity is known this well (a standard
                 deviation on a log scale)
    duration_s   measured seconds of each trial; longer where that is too short to show whether it meets the SLO
    """

    rates: Rates = field(default_factory=dict)
    repetitions: int = 0
    trials: int = 12
    precision: float = 0.16
    duration_s: float = 1.0
    lead_in_s: float = 0.2
    arrival: str = "poisson"
    batch: int = 1

    def __post_init__(self) -> None:
        _check_shared("capacity", self, fewest=0)
        between(
            "capacity",
            self,
            trials=(1, 100, "trials"),
            precision=(0.001, 1, "a standard deviation on a log scale"),
        )
        _check_rates("capacity", (1.0,), self.rates, single=True)
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


def _check_shared(where: str, values: Scenario, fewest: int = 1) -> None:
    between(where, values, **_SHARED, repetitions=(fewest, 1000, "repetitions"))


def _check_rates(where: str, fractions: tuple[float, ...], rates: Rates, single: bool = False) -> None:
    if not fractions or not all(0 < share <= 2 for share in fractions):
        raise Problem(f"{where}.fractions = {list(fractions)}: use shares of the probed throughput in (0, 2]")
    if single and len(fractions) != 1:
        raise Problem(f"{where}.fractions = {list(fractions)}: use one")
    for protocol, values in rates.items():
        one_of(f"{where}.rates", protocol, PROTOCOLS)
        if not values or not all(0.1 <= rate <= 1e6 for rate in values):
            raise Problem(f"{where}.rates.{protocol} = {list(values)}: use requests/s from 0.1 to 1000000")
        if single and len(values) != 1:
            raise Problem(f"{where}.rates.{protocol} = {list(values)}: use one rate")
