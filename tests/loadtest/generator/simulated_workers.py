"""Workers whose server and time are simulated, for what the runner of phases decides."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from loadtest.experiment.phases import OpenLoopPhase, TrialPhase
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.recording import OK

FAST_S, SLOW_S, LATE_S = 0.005, 0.2, 0.01


class SimulatedWorkers:
    """Workers that send to a server which answers in `p99_s(phase)` seconds; `now` is their clock.

    late  the numbers, from 1, of the loads in which they send late
    """

    count = 1

    def __init__(self, p99_s: Callable[[TrialPhase], float], late: frozenset[int] = frozenset()) -> None:
        self._p99_s, self._late = p99_s, late
        self.now = 0.0
        self.loads: list[TrialPhase] = []

    @contextmanager
    def at_work(self) -> Iterator[None]:
        yield

    def warm_up(self, phase: Any, report: Any) -> None:
        raise NotImplementedError  # workers must offer it; what is simulated never warms up

    def load(self, phase: TrialPhase, report: Any) -> tuple[float, Outcomes]:
        self.loads.append(phase)
        began = self.now
        self.now += phase.lead_in_s + phase.duration_s
        due = np.arange(0, phase.duration_s, 1 / rate_of(phase))
        sent = due + (LATE_S if len(self.loads) in self._late else 0.0)
        # Slower and slower within a trial, so that its last answers are its p99.
        done = sent + self._p99_s(phase) * np.linspace(0.5, 1.0, len(due))
        return began, Outcomes(due, sent, done, np.full(len(due), OK, dtype=np.uint8), ())


def rate_of(phase: TrialPhase) -> float:
    """Requests/s that are sent; in a closed loop as many as these servers answer."""
    return phase.rate if isinstance(phase, OpenLoopPhase) else phase.concurrency / FAST_S


def takes(capacity: float, lapses: frozenset[int] = frozenset()) -> Callable[[TrialPhase], float]:
    """A server that meets 50 ms up to so many requests/s.

    lapses  the numbers, from 1, of the trials in which it does not, at whatever rate
    """
    trials = 0

    def p99_s(phase: TrialPhase) -> float:
        nonlocal trials
        trials += 1
        return FAST_S if rate_of(phase) <= capacity and trials not in lapses else SLOW_S

    return p99_s
