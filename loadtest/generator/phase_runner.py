"""Runs a plan's phases one after the other and writes each one's folder whole."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from loadtest.generator.answers import Payloads, Reference
from loadtest.generator.arrivals import schedule
from loadtest.generator.expiry import Client
from loadtest.generator.exporter import Exporter, nothing_due
from loadtest.generator.http1 import HttpClient
from loadtest.generator.http2 import GrpcClient
from loadtest.generator.live import Reader, SecondLines, print_event
from loadtest.generator.locust_stats import LocustStats
from loadtest.generator.open_loop import OpenLoop
from loadtest.generator.phases import OpenLoopPhase, Phase, Plan, WarmUpPhase
from loadtest.generator.punctuality import punctual, stolen_share
from loadtest.generator.recording import OK, Finish, Recording
from loadtest.generator.timer import clock
from loadtest.generator.trial_files import Measured, trial_values, write_trial
from loadtest.generator.warmup import ClosedLoop, warm_up, write_warm_up
from models.problem import Problem
from serving.requests import grpc_method

# Connections opened before the clock; more are opened when more requests are in flight.
_CONNECTIONS = 64


class Generator:
    """Runs a plan. `stats`: Locust's statistics; `out`: where progress goes, one JSON object a line."""

    def __init__(self, plan: Plan, stats: Any, out: TextIO) -> None:
        self._plan, self._stats, self._out = plan, stats, out
        self._exporter = Exporter()

    def run(self) -> None:
        """Run all phases. Raises `Problem` for trouble that ends the run; folders of finished phases stay."""
        plan = self._plan
        for phase in plan.phases:
            if phase.folder.exists() and any(phase.folder.iterdir()):
                raise Problem(f"{phase.folder}: exists already; a phase writes its folder whole")
        reference = Reference(plan.reference)
        if plan.exporter_port:
            self._exporter.start(plan.exporter_port)
        try:
            with punctual(plan.cores):
                for phase in plan.phases:
                    print_event(self._out, "phase-started", phase.id)
                    if isinstance(phase, WarmUpPhase):
                        self._warm_up(phase, reference)
                    else:
                        self._open_loop(phase, reference)
                    print_event(self._out, "phase-ended", phase.id)
        finally:
            self._exporter.stop()

    def _warm_up(self, phase: WarmUpPhase, reference: Reference) -> None:
        payloads = self._payloads(phase, reference, np.random.default_rng(phase.seed))
        loop = ClosedLoop(payloads.encoded, phase.concurrency)
        with self._client(phase, loop.finish, nothing_due) as client, self._watched(phase, loop.recording) as tick:
            client.open(min(_CONNECTIONS, phase.concurrency))
            values = warm_up(phase, loop, client, tick)
        with _whole_folder(phase.folder) as folder:
            write_warm_up(folder, {**values, "target": self._plan.target.stack})

    def _open_loop(self, phase: OpenLoopPhase, reference: Reference) -> None:
        due = schedule(phase.arrival, phase.rate, phase.duration_s, phase.seed, phase.lead_in_s, phase.arrivals)
        draw = np.random.default_rng([phase.seed, 1])  # not the arrivals' own stream
        payloads = self._payloads(phase, reference, draw)
        choice = draw.integers(0, len(payloads), len(due))
        keep = (draw.random(len(due)) < phase.check_share) & (due >= 0)
        loop = OpenLoop(
            due,
            payloads.encoded,
            choice,
            keep,
            lead_in_s=phase.lead_in_s,
            max_in_flight=phase.max_in_flight,
            timeout_s=phase.timeout_s,
        )
        recording = loop.recording
        watched = self._watched(phase, recording, loop.between)
        with self._client(phase, recording.finish, loop.between) as client, watched as tick:
            client.open(min(_CONNECTIONS, phase.max_in_flight))
            before, _ = stolen_share()
            busy = loop.run(client, tick)
            _, stolen = stolen_share(before)
        wrong = payloads.wrong(recording.bodies, choice)
        for request in wrong:
            recording.status[request] = recording.code("wrong_answer")
        measured = Measured(recording, loop.started, phase.duration_s)
        extra = {
            "started_at": round(loop.started_at, 3),
            "ended_at": round(loop.started_at + phase.duration_s, 3),
            "checked": len(recording.bodies),
            "wrong": len(wrong),
            "generator_cpu": round(busy, 3),
            "cpu_stolen": round(stolen, 4),
            "notes": _notes(measured),
        }
        with _whole_folder(phase.folder) as folder:
            write_trial(folder, trial_values(phase, self._plan.target, measured, extra), measured)

    def _payloads(self, phase: Phase, reference: Reference, draw: np.random.Generator) -> Payloads:
        return Payloads(reference, self._plan.target, phase.protocol, phase.batch, self._plan.payloads, draw)

    @contextmanager
    def _client(self, phase: Phase, finish: Finish, between: Callable[[], None]) -> Iterator[Client]:
        target = self._plan.target
        client: HttpClient | GrpcClient
        if phase.protocol == "grpc":
            client = GrpcClient(target.grpc, grpc_method(target), finish, between)
        else:
            client = HttpClient(target.rest, finish, between)
        try:
            yield client
        finally:
            client.close()

    @contextmanager
    def _watched(
        self, phase: Phase, recording: Recording, between: Callable[[], None] = nothing_due
    ) -> Iterator[Callable[[float], None]]:
        """A function that passes on what is new to Locust, the exporter and the progress lines."""
        stack = self._plan.target.stack
        if isinstance(phase, OpenLoopPhase):
            kind, what = "open-loop", f"{phase.scenario} {phase.rate:g}/s"
        else:
            kind = what = "warm-up"
        reader = Reader(recording)
        row = LocustStats(self._stats, phase.protocol, f"{stack} {what}")
        tally = self._exporter.tally(stack, phase.protocol, kind)
        lines = SecondLines(phase.id, self._out, clock())

        def tick(now: float) -> None:
            piece = reader.read()
            for add in (row.add, tally.add):
                between()
                add(piece)
            between()
            lines.add(piece, now)

        self._exporter.between = between
        try:
            yield tick
        finally:
            self._exporter.between = nothing_due
            tick(clock())
            tally.in_flight = 0


def _notes(measured: Measured) -> list[str]:
    lost = measured.errors.get("connection", 0)
    if not lost:
        return []
    first = float(np.min(measured.done[_failed(measured)])) - measured.started
    none_after = not bool(np.any(measured.done[measured.status == OK] > measured.started + first))
    what = "the server died or became unreachable" if none_after else "the server refused or closed connections"
    return [
        f"{what} {max(first, 0.0):.1f} s into the trial: {lost} requests failed to connect or lost their connection"
    ]


def _failed(measured: Measured) -> np.ndarray:
    return (measured.status != OK) & (measured.done > 0)


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
