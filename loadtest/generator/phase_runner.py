"""Runs a plan's phases one after the other and writes each one's folder whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import msgspec
import numpy as np
from msgspec.structs import replace

from loadtest.experiment import records, staircase
from loadtest.experiment.events import PhaseEnded, PhaseStarted, Spoiled, Stopped, Tried
from loadtest.experiment.phases import (
    MOST_ATTEMPTS,
    ClosedLoopPhase,
    LoadPhase,
    OpenLoopPhase,
    Phase,
    Plan,
    SearchPhase,
    TrialPhase,
    WarmUpPhase,
)
from loadtest.experiment.records import (
    CoresTaken,
    SearchRecord,
    SearchStep,
    Slip,
    SpoiledAttempt,
    TrialRecord,
    WarmUpAttempt,
    WarmUpRecord,
)
from loadtest.experiment.slo import says_nothing, why_missed, why_spoiled
from loadtest.experiment.staircase import Try
from loadtest.generator.exporter import Exporter, nothing_due
from loadtest.generator.failures import Failures
from loadtest.generator.hopeless import Hopeless
from loadtest.generator.host_watch import HostWatch
from loadtest.generator.live import SecondLines, Slice, say
from loadtest.generator.loader import Report
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.settling import settle
from loadtest.generator.timer import clock
from loadtest.generator.trial_files import Measured, trial_record, write_trial
from loadtest.generator.warmup import WarmUp
from loadtest.generator.workers import Workers
from models import whole_file
from models.problem import Problem


class Generator:
    """Runs a plan. `workers`: who sends; `out`: where progress goes, one JSON object a line."""

    def __init__(self, plan: Plan, workers: Workers, out: TextIO) -> None:
        self._plan, self._workers, self._out = plan, workers, out
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
            with self._workers.at_work():
                for phase in plan.phases:
                    say(self._out, PhaseStarted(id=phase.id))
                    self._run(phase)
                    say(self._out, PhaseEnded(id=phase.id))
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
        attempts: list[WarmUpAttempt] = []
        while not attempts or not (attempts[-1].steady or len(attempts) > phase.retries):
            attempts.append(self._warm_up_once(phase))
        *unsteady, last = attempts
        with _whole_folder(phase.folder) as folder:
            settling = None
            if phase.settle_s and last.steady:
                settling = settle(phase, last.throughput, last.requests, self._warm_up_openly)
            record = WarmUpRecord(
                **msgspec.structs.asdict(last),
                target=self._plan.target.name,
                unsteady_attempts=tuple(unsteady) or None,
                settling=settling,
            )
            (folder / "warm-up.json").write_text(records.encode(record))

    def _warm_up_once(self, phase: WarmUpPhase) -> WarmUpAttempt:
        watch = WarmUp(phase, clock())
        with self._watched(phase) as take:

            def report(piece: Slice, now: float, between: Callable[[], None]) -> bool:
                take(piece, now, between)
                watch.take(piece, now)
                return not watch.over

            self._workers.warm_up(phase, report)
        return watch.result()

    def _warm_up_openly(self, phase: OpenLoopPhase) -> Outcomes:
        with self._watched(phase, "warm-up") as take:
            return self._workers.load(phase, take)[1]

    def _trial(self, phase: TrialPhase) -> TrialRecord:
        """Run a trial, again where the generator or other programs spoiled it; trial.json's record.

        Only what happened beside the server decides that, never what it answered, so that repeating cannot flatter it.
        The spoiled attempts are kept in a folder `spoiled` beside the trials' folder.
        """
        retries = phase.retries if isinstance(phase, OpenLoopPhase) else 0
        mix = {one.target.model: one.share for one in self._plan.mix}
        aside: list[SpoiledAttempt] = []
        while True:
            watch = HostWatch(self._plan.target, self._plan.cores)
            with self._watched(phase) as take:
                started_at, outcomes = self._workers.load(phase, _until_hopeless(phase, take))
            seen = watch.seen()
            measured = Measured(outcomes, phase.duration_s)
            record = trial_record(
                *(phase, self._plan.target, measured, started_at),
                workers=self._workers.count,
                mix=mix,
                spoiled=aside,
                seen=seen,
            )
            why = why_spoiled(record)
            if why is None or len(aside) >= retries:
                self._write(phase.folder, record, measured)
                return record
            folder = phase.folder.parent.with_name("spoiled") / f"{phase.id}-{len(aside) + 1}"
            others = why.share if isinstance(why, CoresTaken) else None
            slip = record.schedule_slip_ms or Slip()
            aside.append(SpoiledAttempt(folder=folder.name, schedule_slip_ms=slip, others=others))
            self._write(folder, record, measured)
            say(self._out, Spoiled(id=phase.id, why=why))

    def _write(self, folder: Path, record: TrialRecord, measured: Measured) -> None:
        with _whole_folder(folder) as partial:
            write_trial(partial, record, measured)

    def _search(self, phase: SearchPhase) -> None:
        """Trials at the rates that `staircase` asks for; one that was cut off goes on from its trials."""
        tries: list[Try] = []
        steps: list[SearchStep] = []
        centre = phase.trial.rate
        began = clock()
        while len(tries) < phase.most and not (tries and staircase.believe(tries, centre).sd <= phase.precision):
            rate = min(staircase.following(tries, centre), phase.most_rate or staircase.HIGHEST_RATE)
            trial = _at_rate(phase, rate, len(steps) + 1)
            path = trial.folder / "trial.json"
            record = records.read_trial(path) if path.exists() else self._trial(trial)
            steps.append(_step(phase, trial.id, record))
            if not steps[-1].spoiled:
                tries.append(Try(record.offered_rate, steps[-1].met))
            say(self._out, _tried(phase, steps[-1]))
            if sum(one.spoiled and one.rate == rate for one in steps) >= MOST_ATTEMPTS:
                break
        found = staircase.believe(tries, centre) if tries else None
        with _whole_folder(phase.folder) as folder:
            result = SearchRecord(
                id=phase.id,
                target=self._plan.target.name,
                protocol=phase.protocol,
                repetition=phase.trial.repetition,
                centre=centre,
                rate=round(found.rate, 2) if found else None,
                sd=round(found.sd, 4) if found else None,
                seconds=round(clock() - began, 1),
                steps=tuple(steps),
                tries=tuple(tries),
            )
            (folder / "search.json").write_text(records.encode(result))

    @contextmanager
    def _watched(self, phase: LoadPhase, kind: str = "") -> Iterator[Report]:
        """A function that passes on what is new to the exporter and the progress lines."""
        kinds = {WarmUpPhase: "warm-up", OpenLoopPhase: "open-loop", ClosedLoopPhase: "closed-loop"}
        kind = kind or kinds[type(phase)]
        tally = self._exporter.tally(self._plan.target.name, phase.protocol, kind)
        tally.begin_trial()
        lines = SecondLines(phase.id, self._out, clock())
        failures = Failures(self._plan.most_errors)

        def take(piece: Slice, now: float, between: Callable[[], None]) -> bool:
            self._exporter.between = between
            between()
            tally.add(piece)
            between()
            lines.add(piece, now)
            if failures.too_many(piece, now):
                counts = {"failed": failures.failed, "of": failures.ended}
                say(self._out, Stopped(id=phase.id, kinds=failures.kinds, said=failures.said, **counts))
                raise Problem(f"{phase.id}: {failures.failed} of the latest {failures.ended} requests failed")
            return True

        try:
            yield take
        finally:
            self._exporter.between = nothing_due
            tally.in_flight = 0


def _until_hopeless(phase: TrialPhase, take: Report) -> Report:
    if not isinstance(phase, OpenLoopPhase):
        return take
    hopeless = Hopeless(phase)

    def report(piece: Slice, now: float, between: Callable[[], None]) -> bool:
        return take(piece, now, between) and not hopeless.take(piece)

    return report


def _at_rate(phase: SearchPhase, rate: float, number: int) -> OpenLoopPhase:
    """The next trial of a search; each gets other arrivals, and lasts as long as it takes to show anything. It is given
    up where twice the SLO's latency would not do either: what lies below that tells a slope from a cliff."""
    name = f"{phase.id}-{number}"
    seed = int(np.random.SeedSequence([phase.trial.seed, round(rate * 1000), number]).generate_state(1)[0])
    timed = replace(phase.trial, rate=rate, duration_s=phase.lasting_s(rate), hopeless_ms=2 * phase.p99_ms)
    return replace(timed, id=name, folder=phase.trials / name, seed=seed)


def _step(phase: SearchPhase, trial: str, record: TrialRecord) -> SearchStep:
    """What a trial says of the rate that it tried."""
    nothing = says_nothing(record, phase.p99_ms)
    why_not = nothing or why_missed(record, phase.p99_ms, phase.error_ratio)
    return SearchStep(
        trial=trial,
        rate=record.offered_rate,
        p99_ms=record.latency_ms.p99,
        met=why_not is None,
        why_not=why_not,
        spoiled=nothing is not None,
    )


def _tried(phase: SearchPhase, step: SearchStep) -> Tried:
    return Tried(id=phase.id, trial=step.trial, rate=step.rate, p99_ms=step.p99_ms, met=step.met, why_not=step.why_not)


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A folder that appears under its name only when its content is complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with whole_file.replacing(folder) as partial:
            partial.mkdir()
            yield partial
    except OSError as error:
        raise Problem(f"{folder}: cannot write the results: {error.strerror}") from error
