"""The workers that put a phase's load on the target: this process alone, or (`distributed`) several of Locust's."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from loadtest.experiment.phases import OpenLoopPhase, Plan, TrialPhase, WarmUpPhase
from loadtest.generator.answers import Reference, RequestStream
from loadtest.generator.loader import Loader, Report, Rows
from loadtest.generator.open_loop import START_MARGIN_S
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.punctuality import punctual
from loadtest.generator.timer import clock


class Workers(Protocol):
    """Run phases and report what happens in them, slice by slice. `count`: how many they are."""

    count: int

    def warm_up(self, phase: WarmUpPhase, report: Report) -> None:
        """Run a warm-up until `report` returns False."""

    def load(self, phase: TrialPhase, report: Report) -> tuple[float, Outcomes]:
        """Run a trial; returns the Unix time at which its measured part began, and what was measured."""

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Be as punctual as possible in the body."""


class SingleProcess:
    """This process is the whole generator."""

    count = 1

    def __init__(self, plan: Plan, rows: Rows) -> None:
        self._cores = plan.cores
        mix = [RequestStream(one.target, Reference(one.reference), one.share) for one in plan.traffic]
        self._loader = Loader(mix, plan.payloads, rows)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """See `Workers`."""
        with punctual(self._cores):
            yield

    def warm_up(self, phase: WarmUpPhase, report: Report) -> None:
        """See `Workers`."""
        self._loader.warm_up(phase, report, clock)

    def load(self, phase: TrialPhase, report: Report) -> tuple[float, Outcomes]:
        """See `Workers`."""
        started_at = 0.0

        def ready() -> float:
            nonlocal started_at
            started = clock() + phase.lead_in_s + START_MARGIN_S
            started_at = time.time() + started - clock()
            return started

        if isinstance(phase, OpenLoopPhase):
            outcomes = self._loader.open_loop(phase, ready, report)
        else:
            outcomes = self._loader.closed_loop(phase, ready, report)
        return started_at, outcomes
