"""Runs of the real run loop and search, with servers that are formulas: what is decided when, which real servers can't
be made to do on demand."""

from __future__ import annotations

import io
import json
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from loadtest.experiment import events, records
from loadtest.experiment import run as run_loop
from loadtest.experiment.events import Event, PhaseEnded, PhaseStarted
from loadtest.experiment.file import Experiment
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.meters import Meters
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.phases import Plan, TrialPhase, WarmUpPhase
from loadtest.experiment.records import Decisions, Environment, TrialRecord, WarmUpRecord
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.steps import Step
from loadtest.generator import phase_runner
from loadtest.generator.trial_files import Measured
from models.bundle import Bundle
from serving.target import Target
from tests.loadtest.generator.simulated_workers import SimulatedWorkers, rate_of
from tests.serving.targets import target

NO_MACHINE = Environment()


@dataclass(frozen=True)
class Server:
    """A target whose starts' capacities (requests/s, by protocol) and latencies lie so far apart, on a log scale.

    p99_ms    without load
    unsteady  the starts, by their number, whose warm-ups don't get steady
    """

    capacity: Mapping[str, float]
    p99_ms: float = 10.0
    start_sd: float = 0.05
    unsteady: frozenset[int] = frozenset()

    def p99_s(self, name: str, phase: TrialPhase) -> float:
        """What a trial finds: the same whenever it is asked, so that a run that was killed meets the same server."""
        start = random.Random(f"{name} {phase.protocol} {phase.repetition}")
        own = random.Random(f"{name} {phase.id}")
        load = rate_of(phase) / (self.capacity[phase.protocol] * math.exp(start.gauss(0, self.start_sd)))
        noise = math.exp(start.gauss(0, self.start_sd) + own.gauss(0, 0.03))
        return 0.2 if load > 1 else min(0.045, self.p99_ms / 1000 * noise / (1 - load / 2))


def nothing(trial: str) -> None:
    """Happens to a trial."""


class Killed(Exception):
    """As if the run were killed."""


@dataclass
class Servers:
    """The targets, and where the load comes from: real phases, run by the real runner against formulas.

    trials_left  after so many trials the run is killed
    meanwhile    is called when a trial is being made, with its id
    machine      where the load comes from
    """

    servers: Mapping[str, Server]
    trials_left: float = math.inf
    server_cores: tuple[int, ...] = ()
    generator_cores: tuple[int, ...] = ()
    settle_s: float = 0.0
    machine: Environment = NO_MACHINE
    meanwhile: Callable[[str], None] = nothing
    used: list[tuple[str, int]] = field(default_factory=list)
    made: list[str] = field(default_factory=list)
    running: str | None = None

    def observe(self, prometheus: Prometheus | None) -> None:
        assert prometheus is None

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:
        now("starting")
        self.used.append((name, offset))
        self.running = name

    def target(self, name: str) -> Target:
        assert name == self.running
        return Target(**{**target("pytorch").to_dict(), "name": name})

    def check(self, *, fresh: bool = False) -> None:
        pass

    def stop(self) -> None:
        self.running = None

    def environment(self, cores: tuple[int, ...]) -> Environment:
        assert cores == ()
        return self.machine

    def prometheus(self, folder: Path, cores: tuple[int, ...]) -> Prometheus | None:
        assert cores == ()
        assert folder.name == "prometheus"
        return None

    def meters(self, *, on_gpu: bool) -> Meters | None:
        return None

    def run_phases(self, job: LoadJob, *, on_event: Callable[[Event], None], check: Callable[[], None]) -> None:
        name = job.target.name
        assert name == self.running
        job.folder.mkdir(parents=True)
        for phase in job.phases:
            check()
            if isinstance(phase, WarmUpPhase):
                on_event(PhaseStarted(id=phase.id))
                self._warm_up(name, phase)
                on_event(PhaseEnded(id=phase.id))
                continue
            plan = Plan(target=job.target, reference=job.reference, phases=(phase,))
            workers, out = SimulatedWorkers(lambda one: self._trial(name, one)), io.StringIO()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(phase_runner, "write_trial", _write_trial)
                phase_runner.Generator(plan, workers, out).run()
            for line in out.getvalue().splitlines():
                on_event(events.decode(line))

    def _trial(self, name: str, phase: TrialPhase) -> float:
        if self.trials_left <= 0:
            raise Killed
        self.trials_left -= 1
        self.meanwhile(phase.id)
        self.made.append(phase.id)
        return self.servers[name].p99_s(name, phase)

    def _warm_up(self, name: str, phase: WarmUpPhase) -> None:
        start = int(phase.id.rpartition("-r")[2].partition("-")[0])
        phase.folder.mkdir(parents=True)
        record = WarmUpRecord(
            id=phase.id,
            target=name,
            protocol=phase.protocol,
            throughput=1.2 * self.servers[name].capacity[phase.protocol],
            steady=start not in self.servers[name].unsteady,
        )
        (phase.folder / "warm-up.json").write_text(records.encode(record))


def _write_trial(folder: Path, record: TrialRecord, measured: Measured) -> None:
    """Without histograms, which nothing decides by."""
    assert len(measured.due) == record.requests.scheduled
    (folder / "trial.json").write_text(records.encode(record))


class Told:
    """A progress that remembers what was told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.planned_s = 0.0

    def plan(self, seconds: float) -> None:
        self.planned_s = seconds

    def advance(self, seconds: float) -> None:
        assert seconds >= 0

    def tell(self, step: Step) -> None:
        self.steps.append(step)

    def now(self, text: str) -> None:
        pass


@dataclass(frozen=True)
class Ran:
    """A run's folder, what was told, and the servers that were started, each with its offset."""

    folder: RunFolder
    told: Told
    servers: Servers

    @property
    def decisions(self) -> Decisions:
        found = records.read_decisions(self.folder.path / "decisions.json")
        assert found is not None
        return found

    @property
    def trials(self) -> list[TrialRecord]:
        """By name."""
        return [records.read_trial(path / "trial.json") for path in self.folder.trials()]


def run(
    folder: Path,
    experiment: Experiment,
    servers: Mapping[str, Server],
    trials: float = math.inf,
    machine: Environment = NO_MACHINE,
    kind: type[Servers] = Servers,
    meanwhile: Callable[[str], None] = nothing,
) -> Ran:
    """Run an experiment below a folder, or go on with it, from a machine. Raises `Killed` after so many trials."""
    bundle = Bundle(folder / "bundle", {"model": "convnet"})
    bundle.folder.mkdir(parents=True, exist_ok=True)
    (bundle.folder / "manifest.json").write_text(json.dumps(bundle.manifest))
    found = RunFolder.open(folder / "results", experiment, "digest")
    simulated, told = kind(servers, trials, machine=machine, meanwhile=meanwhile), Told()
    run_loop.run(found.experiment(), [bundle], simulated, found, told, simulated)
    return Ran(found, told, simulated)
