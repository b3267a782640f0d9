"""Settings of an experiment that no scenario owns: the objective, the warm-up, the load generator, what endpoints are
asked, and the costs.

Each raises `Problem`, starting with the dotted key at fault, for an impossible value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from loadtest.experiment.limits import between
from models.problem import Problem


@dataclass(frozen=True)
class Slo:
    """The service-level objective: p99 latency in milliseconds, and the share of requests that may fail."""

    p99_ms: float = 50.0
    error_ratio: float = 0.001

    def __post_init__(self) -> None:
        between("slo", self, p99_ms=(0.1, 60_000, "milliseconds"), error_ratio=(0, 1, "a share"))


@dataclass(frozen=True)
class Decision:
    """How long a run may take to decide (see `loadtest.experiment.decision`): ``budget_s`` seconds of trials of the
    ladder and the capacity search, after warm-ups. It ends earlier where every question is decided, and has at least
    three starts of each target."""

    budget_s: float = 300.0

    def __post_init__(self) -> None:
        between("decision", self, budget_s=(1, 1e6, "seconds"))


@dataclass(frozen=True)
class WarmUp:
    """Closed-loop warm-up until successive windows agree within `tolerance`; it also probes the throughput. Where they
    do not within `max_s` it is repeated `retries` times; then what follows is measured, and is not valid. Afterwards
    open load, until its median latency agrees and `min_requests` have been sent in all, for at most `settle_s`. The
    probe, and a warm-up with a `settle_s` of 0, have none: there the closed loop goes on until `min_requests`, for at
    most `max_s`."""

    concurrency: int = 32
    window_s: float = 0.5
    min_s: float = 1.5
    max_s: float = 15.0
    tolerance: float = 0.1
    retries: int = 1
    settle_s: float = 8.0
    min_requests: int = 12_000

    def __post_init__(self) -> None:
        between(
            "warm_up",
            self,
            concurrency=(1, 4096, "requests in flight"),
            window_s=(0.1, 60, "seconds"),
            min_s=(0, 600, "seconds"),
            max_s=(0.1, 3600, "seconds"),
            tolerance=(0.001, 1, "a share"),
            retries=(0, 10, "repeats"),
            settle_s=(0, 600, "seconds"),
            min_requests=(0, 10_000_000, "requests"),
        )
        if self.max_s < self.min_s:
            raise Problem(f"warm_up.max_s = {self.max_s}: use at least warm_up.min_s ({self.min_s})")


@dataclass(frozen=True)
class Generator:
    """The load generator: most requests in flight before arrivals are dropped (and the measurement invalid), the
    time-out of one request, the share of answers compared with the reference, the number of distinct payloads, how
    often a trial is repeated that the generator spoiled by sending late.

    most_rate       at most so many requests/s, also in warm-ups, probes and searches; 0: as many as they ask for
    stop_error_ratio  the run stops where a larger share of an endpoint's latest requests failed (1: never); servers
                      that Tandem starts are loaded all the same
    processes       Locust processes on this machine that share each schedule
    remote_workers  instead of them: Locust workers on other machines, which find this one at `port` (there:
                    make loadtest-worker MASTER=HOST)
    """

    max_in_flight: int = 4096
    timeout_s: float = 10.0
    check_share: float = 0.05
    payloads: int = 256
    retries: int = 2
    most_rate: float = 0.0
    stop_error_ratio: float = 0.5
    processes: int = 1
    remote_workers: int = 0
    port: int = 5557

    def __post_init__(self) -> None:
        between(
            "generator",
            self,
            max_in_flight=(1, 65_536, "requests"),
            timeout_s=(0.01, 600, "seconds"),
            check_share=(0, 1, "a share"),
            payloads=(1, 10_000, "images"),
            retries=(0, 10, "repeats"),
            most_rate=(0, 1e6, "requests/s"),
            stop_error_ratio=(0.001, 1, "a share"),
            processes=(1, 256, "processes"),
            remote_workers=(0, 4096, "workers"),
            port=(1, 65_535, "a TCP port"),
        )
        if self.remote_workers and self.processes > 1:
            raise Problem(
                f"generator.remote_workers = {self.remote_workers}: workers are here (generator.processes) or there"
            )


FIRST, STATUS = "first", "status"


@dataclass(frozen=True)
class Inputs:
    """What servers are asked where no bundle says so, and which answers are right.

    payloads   a folder of images, .npy or .npz arrays, or .json bodies, or one such file; empty: random samples of the
               type and shape that the servers name
    samples    how many random ones
    answers    "first": those of the first target; "status": any answer that is no error; else a file, .npz or .npy, or
               a folder of .npy files called like the payloads, that holds recorded ones
    tolerance  of a value of an answer, times the value where that is above 1
    """

    payloads: str = ""
    samples: int = 64
    answers: str = FIRST
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        between("inputs", self, samples=(1, 10_000, "samples"), tolerance=(0, 1e6, "a difference"))
        if not self.answers:
            raise Problem("inputs.answers = '': use first, status, or the path of recorded answers")


@dataclass(frozen=True)
class Cost:
    """What the report's cost and sizing rest on: the price of a node for an hour (0: not known) in a currency (ISO 4217
    or any short word), and the images/s that production must answer (0: not known)."""

    price_per_hour: float = 0.0
    currency: str = "USD"
    expected_rate: float = 0.0

    def __post_init__(self) -> None:
        between("cost", self, price_per_hour=(0, 1e6, "money for an hour"), expected_rate=(0, 1e9, "images/s"))
        if not re.fullmatch(r"\w{1,12}", self.currency):
            raise Problem(f"cost.currency = {self.currency!r}: use a short word, such as USD")
