"""Who puts a phase's load on the target: this process alone, or (`distributed`) Locust's workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, Plan, WarmUpPhase
from loadtest.generator.answers import Asked, Reference
from loadtest.generator.loader import Loader, Report, Rows
from loadtest.generator.part import Part
from loadtest.generator.punctuality import punctual
from loadtest.generator.timer import clock

# From all being ready to the first request of the lead-in.
START_MARGIN_S = 0.05


class Crew(Protocol):
    """Runs phases and reports what happens in them, slice by slice."""

    workers: int

    def warm_up(self, phase: WarmUpPhase, report: Report) -> None:
        """Run a warm-up until `report` returns False."""

    def load(self, phase: OpenLoopPhase | ClosedLoopPhase, report: Report) -> tuple[float, Part]:
        """Run a trial; returns the Unix time at which its measured part began, and what was measured."""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be as punctual as possible in the body."""


class Alone:
    """This process is the whole generator."""

    workers = 1

    def __init__(self, plan: Plan, rows: Rows) -> None:
        self._cores = plan.cores
        mix = [Asked(one.target, Reference(one.reference), one.share) for one in plan.traffic]
        self._loader = Loader(mix, plan.payloads, rows)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """See `Crew`."""
        with punctual(self._cores):
            yield

    def warm_up(self, phase: WarmUpPhase, report: Report) -> None:
        """See `Crew`."""
        self._loader.warm_up(phase, report, clock)

    def load(self, phase: OpenLoopPhase | ClosedLoopPhase, report: Report) -> tuple[float, Part]:
        """See `Crew`."""
        started_at = 0.0

        def ready() -> float:
            nonlocal started_at
            started = clock() + phase.lead_in_s + START_MARGIN_S
            started_at = time.time() + started - clock()
            return started

        if isinstance(phase, OpenLoopPhase):
            part = self._loader.open_loop(phase, ready, report)
        else:
            part = self._loader.closed_loop(phase, ready, report)
        return started_at, part
