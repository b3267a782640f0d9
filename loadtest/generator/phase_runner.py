"""Runs a plan's phases one after the other and writes each one's folder whole."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from loadtest.experiment.capacity_search import CLOSING, Try, look
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, Phase, Plan, SearchPhase, WarmUpPhase
from loadtest.experiment.slip import spoiled
from loadtest.experiment.slo import says_nothing, why_missed
from loadtest.generator.crew import Crew
from loadtest.generator.exporter import Exporter, nothing_due
from loadtest.generator.live import SecondLines, Slice, print_event
from loadtest.generator.part import Part
from loadtest.generator.settling import settle
from loadtest.generator.timer import clock
from loadtest.generator.trial_files import Measured, by_model, trial_values, write_trial
from loadtest.generator.warmup import WarmUp, write_warm_up
from models.problem import Problem

# A search ends, unconfirmed, where the generator cannot offer a rate in so many trials.
_MOST_SPOILED = 2


class Generator:
    """Runs a plan. `crew`: who sends; `out`: where progress goes, one JSON object a line."""

    def __init__(self, plan: Plan, crew: Crew, out: TextIO) -> None:
        self._plan, self._crew, self._out = plan, crew, out
        self._exporter = Exporter()

    def run(self) -> None:
        """Run all phases. Raises `Problem` for trouble that ends the run; folders of finished phases stay."""
        plan = self._plan
        for phase in plan.phases:
            if phase.folder.exists() and any(phase.folder.iterdir()):
                raise Problem(f"{phase.folder}: exists already; a phase writes its folder whole")
        if plan.exporter_port:
            self._exporter.start(plan.exporter_port)
        try:
            with self._crew.at_work():
                for phase in plan.phases:
                    print_event(self._out, "phase-started", phase.id)
                    self._run(phase)
                    print_event(self._out, "phase-ended", phase.id)
        finally:
            self._exporter.stop()

    def _run(self, phase: Phase) -> None:
        if isinstance(phase, WarmUpPhase):
            self._warm_up(phase)
        elif isinstance(phase, SearchPhase):
            self._search(phase)
        else:
            self._trial(phase)

    def _warm_up(self, phase: WarmUpPhase) -> None:
        """Until steady; once more, `retries` times, where the cap came first. Every attempt is written down."""
        attempts: list[dict[str, Any]] = []
        while not attempts or not (attempts[-1]["steady"] or len(attempts) > phase.retries):
            attempts.append(self._warm_up_once(phase))
        with _whole_folder(phase.folder) as folder:
            values = {**attempts[-1], "target": self._plan.measured}
            if len(attempts) > 1:
                values["unsteady_attempts"] = attempts[:-1]
            if phase.settle_s and values["steady"]:
                values["settling"] = settle(phase, values["throughput"], values["requests"], self._warm_up_openly)
            write_warm_up(folder, values)

    def _warm_up_once(self, phase: WarmUpPhase) -> dict[str, Any]:
        watch = WarmUp(phase, clock())
        with self._watched(phase) as take:

            def report(piece: Slice, now: float, between: Callable[[], None]) -> bool:
                take(piece, now, between)
                watch.take(piece, now)
                return not watch.over

            self._crew.warm_up(phase, report)
        return watch.values()

    def _warm_up_openly(self, phase: OpenLoopPhase) -> Part:
        with self._watched(phase, "warm-up") as take:
            return self._crew.load(phase, take)[1]

    def _trial(self, phase: OpenLoopPhase | ClosedLoopPhase) -> dict[str, Any]:
        """Run a trial, again where the generator spoiled it; trial.json's values.

        Only what the generator did decides that, never what the server answered, so that repeating cannot flatter it.
        The spoiled attempts are kept in a folder `spoiled` beside the trials' folder.
        """
        retries = phase.retries if isinstance(phase, OpenLoopPhase) else 0
        aside: list[dict[str, Any]] = []
        while True:
            with self._watched(phase) as take:
                started_at, part = self._crew.load(phase, take)
            measured = Measured(part, phase.duration_s)
            extra = {
                "started_at": round(started_at, 3),
                "ended_at": round(started_at + phase.duration_s, 3),
                "target": self._plan.measured,
                "workers": self._crew.workers,
                "notes": _notes(measured),
                "spoiled": aside,
            }
            if len(self._plan.traffic) > 1:
                extra["by_model"] = by_model({one.target.model: one.share for one in self._plan.traffic}, measured)
            values = trial_values(phase, self._plan.target, measured, extra)
            again = spoiled(values) and len(aside) < retries
            folder = phase.folder
            if again:
                folder = phase.folder.parent.with_name("spoiled") / f"{phase.id}-{len(aside) + 1}"
                aside.append({"folder": folder.name, "schedule_slip_ms": values["schedule_slip_ms"]})
            with _whole_folder(folder) as partial:
                write_trial(partial, values, measured)
            if not again:
                return values
            print_event(self._out, "spoiled", phase.id, slip_p99_ms=values["schedule_slip_ms"]["p99"])

    def _search(self, phase: SearchPhase) -> None:
        """Trials at the rates that `capacity_search.look` asks for; one that was cut off goes on from its trials. Where
        the budget would end before the boundaries are repeated, they are, however wide the bracket still is."""
        tries = [Try(float(rate), bool(met)) for rate, met in phase.before]
        steps: list[dict[str, Any]] = []
        left = phase.budget_s
        out_of_time = False
        short, long = (phase.trial.lead_in_s + factor * phase.trial.duration_s for factor in (1, CLOSING))
        # A trial of each boundary, and one more where one of them disagrees.
        kept = 3 * long if phase.repeats > 1 else 0.0
        while True:
            found = look(tries, phase.trial.rate, phase.growth, phase.precision, phase.repeats)
            if left < kept and not found.confirmed:
                found = look(tries, phase.trial.rate, phase.growth, math.inf, phase.repeats)
            if found.next is None:
                break
            is_long = found.closing and left >= long
            trial = _at_rate(phase, found.next, is_long, len(steps) + 1, sum(one.rate == found.next for one in tries))
            once = long if is_long else short
            began = clock()
            path = trial.folder / "trial.json"
            rate = found.next
            if path.exists():
                values = json.loads(path.read_text())
                rate = values["offered_rate"]
                left -= trial.lead_in_s + values["duration_s"]
            elif left < once:
                out_of_time = True
                break
            else:
                values = self._trial(replace(trial, retries=min(trial.retries, int(left / once) - 1)))
                left -= clock() - began
            nothing = says_nothing(values, phase.p99_ms)
            why_not = nothing or why_missed(values, phase.p99_ms, phase.error_ratio)
            if not nothing:
                tries.append(Try(rate, not why_not))
            p99 = values["latency_ms"]["p99"]
            step = {"trial": trial.id, "rate": rate, "p99_ms": p99, "met": not why_not, "why_not": why_not}
            steps.append({**step, "spoiled": bool(nothing)})
            print_event(self._out, "tried", phase.id, **step)
            if sum(one["spoiled"] and one["rate"] == rate for one in steps) >= _MOST_SPOILED:
                break
        with _whole_folder(phase.folder) as folder:
            result = {
                "id": phase.id,
                "target": self._plan.measured,
                "protocol": phase.protocol,
                "repetition": phase.trial.repetition,
                "low": found.low,
                "high": found.high,
                "confirmed": found.confirmed,
                "out_of_time": out_of_time,
                "seconds": round(phase.budget_s - left, 1),
                "steps": steps,
                "tries": [asdict(one) for one in tries],
            }
            (folder / "search.json").write_text(json.dumps(result, indent=2) + "\n")

    @contextmanager
    def _watched(
        self, phase: WarmUpPhase | OpenLoopPhase | ClosedLoopPhase, kind: str = ""
    ) -> Iterator[Callable[..., bool]]:
        """A function that passes on what is new to the exporter and the progress lines."""
        kinds = {WarmUpPhase: "warm-up", OpenLoopPhase: "open-loop", ClosedLoopPhase: "closed-loop"}
        kind = kind or kinds[type(phase)]
        tally = self._exporter.tally(self._plan.measured, phase.protocol, kind)
        tally.begin_trial()
        lines = SecondLines(phase.id, self._out, clock())

        def take(piece: Slice, now: float, between: Callable[[], None]) -> bool:
            self._exporter.between = between
            between()
            tally.add(piece)
            between()
            lines.add(piece, now)
            return True

        try:
            yield take
        finally:
            self._exporter.between = nothing_due
            tally.in_flight = 0


def _at_rate(phase: SearchPhase, rate: float, is_long: bool, number: int, tried: int) -> OpenLoopPhase:
    """The next trial of a search; the same rate gets other arrivals each time it is tried."""
    name = f"{phase.id}-{number}"
    seed = int(np.random.SeedSequence([phase.trial.seed, round(rate * 1000), tried]).generate_state(1)[0])
    duration_s = phase.trial.duration_s * (CLOSING if is_long else 1)
    return replace(phase.trial, id=name, folder=phase.trials / name, rate=rate, seed=seed, duration_s=duration_s)


def _notes(measured: Measured) -> list[str]:
    lost = measured.errors.get("connection", 0)
    if not lost:
        return []
    failed = ~measured.ok & np.isfinite(measured.done)
    first = float(np.min(measured.done[failed]))
    none_after = not bool(np.any(measured.done[measured.ok] > first))
    what = "the server died or became unreachable" if none_after else "the server refused or closed connections"
    return [
        f"{what} {max(first, 0.0):.1f} s into the trial: {lost} requests failed to connect or lost their connection"
    ]


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name only when its content is complete."""
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}-{time.monotonic_ns()}")
    try:
        partial.mkdir(parents=True)
        yield partial
        partial.replace(folder)
    except OSError as error:
        raise Problem(f"{folder}: cannot write the results: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
