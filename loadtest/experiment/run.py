"""The main job: serve each target in turn, warm it, load it and observe it."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from loadtest.experiment import model_time, observation, phase_plan, plan, records, steps
from loadtest.experiment.events import Event, PhaseEnded, PhaseStarted, Second, Spoiled, Tried
from loadtest.experiment.file import Experiment
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.phases import OpenLoopPhase, Phase, SearchPhase, Traffic, WarmUpPhase
from loadtest.experiment.plan import Block, Trial
from loadtest.experiment.records import NoPrometheus, NotPinned, RunNote, WakesLate, WarmUpRecord
from loadtest.experiment.run_folder import RunFolder, manifest_name
from loadtest.experiment.runtimes.load_origin import THIS_MACHINE, LoadOrigin
from loadtest.experiment.runtimes.targets import Targets
from loadtest.experiment.slip import SLIP_FLOOR_MS
from loadtest.experiment.steps import Progress
from models import whole_file
from models.bundle import Bundle
from models.problem import Problem
from serving import ports
from serving.target import Target

# Planned seconds of work that is not load, for the time left; measured on 2 cores.
START_S = 8.0
GENERATOR_START_S = 1.5


def run(
    experiment: Experiment,
    bundles: Sequence[Bundle],
    targets: Targets,
    folder: RunFolder,
    progress: Progress,
    origin: LoadOrigin = THIS_MACHINE,
) -> Path:
    """Run, or go on with, an experiment in its folder, with the load from `origin`; returns the folder's path.

    `bundles`: one for each of the experiment's models, which every server holds, in the experiment's order.
    Everything measured is on disk as it ends: a `Problem` or Ctrl-C keeps the finished trials and leaves no process
    behind, and the same command goes on from there.
    """
    for number, bundle in enumerate(bundles):
        shutil.copy(bundle.folder / "manifest.json", folder.path / manifest_name(bundle.model if number else ""))
    with contextlib.ExitStack() as resources:
        prometheus = origin.prometheus(folder.path / "prometheus", targets.generator_cores)
        if prometheus:
            resources.callback(prometheus.stop)
        targets.observe(prometheus)
        resources.callback(targets.stop)
        measuring = _Measuring(experiment, bundles, targets, folder, prometheus, progress, origin)
        measuring.record_environment()
        measuring.time_models()
        measuring.probe()
        measuring.measure()
        folder.save_environment(msgspec.structs.replace(folder.environment(), finished_at=time.time()))
    folder.finish()
    progress.now("")
    return folder.path


@dataclass
class _Measuring:
    experiment: Experiment
    bundles: Sequence[Bundle]
    targets: Targets
    folder: RunFolder
    prometheus: Prometheus | None
    progress: Progress
    origin: LoadOrigin
    exporter_port: int = field(default_factory=lambda: ports.free(1)[0])
    done: int = 0
    total: int = 0

    def record_environment(self) -> None:
        """Write environment.json; a resumed run keeps the first one's, with a note."""
        if self.folder.has_environment:
            self.folder.note(records.Resumed(at=time.time()))
        else:
            found = msgspec.structs.replace(
                self.origin.environment(self.targets.generator_cores),
                server_cores=self.targets.server_cores,
                generator_cores=self.targets.generator_cores,
                prometheus=self.prometheus.version if self.prometheus else None,
            )
            self.folder.save_environment(found)
        lateness = self.folder.environment().wake_up_lateness_ms
        late = lateness.p99 if lateness else None
        if late is not None and late > SLIP_FLOOR_MS:
            self._note(WakesLate(p99_ms=late, allowed_ms=SLIP_FLOOR_MS))
        if not self.prometheus:
            self._note(NoPrometheus())
        if not self.targets.generator_cores:
            self._note(NotPinned())

    def _note(self, note: RunNote) -> None:
        if self.folder.note(note):
            self.progress.tell(steps.Noted(note))

    def time_models(self) -> None:
        """Measure the model alone, where the servers' cores are this machine's."""
        cores = self.targets.server_cores
        if not cores:
            return
        known: dict[str, Any] = self.folder.read("model-time.json", {})
        for name in self.experiment.target_names:
            if name not in known:
                self.progress.tell(steps.TimingModel(name))
                profile, shares = self.experiment.profile_of(name), self.experiment.mix.values()
                engine = self.experiment.target(name).engine
                alone = [model_time.measure(bundle, engine, profile, cores) for bundle in self.bundles]
                known[name] = msgspec.to_builtins(model_time.mean(alone, list(shares)), str_keys=True)
                self.folder.write("model-time.json", known)

    def probe(self) -> None:
        """Find each target's throughput and choose the scenarios' rates, unless the experiment fixes them."""
        if not self.experiment.unrated:
            return
        throughput: dict[str, dict[str, float]] = self.folder.read("probe.json", {})
        for block in plan.probes(self.experiment):
            if block.target in throughput:
                continue
            with self._block(block):
                phases = [self._warm_up(block, protocol) for protocol in self.experiment.protocols]
                self._load(block, phases)
                found = {phase.protocol: _warmed(phase).throughput for phase in phases}
            throughput[block.target] = found
            self.folder.write("probe.json", throughput)
            self.progress.tell(steps.Probed(block.target, found, self.experiment.warm_up.concurrency))
        self.experiment = plan.resolve(self.experiment, throughput)
        self.folder.save_experiment(self.experiment)

    def measure(self) -> None:
        """Run every trial that is not there yet, block by block."""
        blocks = plan.blocks(self.experiment)
        todo = [(block, [trial for trial in block.trials if not self.folder.measured(trial.id)]) for block in blocks]
        self.total = sum(len(block.trials) for block in blocks)
        self.done = self.total - sum(len(trials) for _, trials in todo)
        if self.done:
            self.progress.tell(steps.Resumed(self.done, self.total))
        self.progress.plan(sum(self._seconds(trials) for _, trials in todo if trials))
        for block, trials in todo:
            if trials:
                with self._block(block):
                    self._measure_block(block, trials)

    def _measure_block(self, block: Block, trials: Sequence[Trial]) -> None:
        phases: list[Phase] = []
        for protocol in self.experiment.protocols:
            chosen = [trial for trial in trials if trial.protocol == protocol]
            if chosen:
                warm_up = self._warm_up(block, protocol)
                phases += [warm_up, *(self._trial(trial, warm_up.id) for trial in chosen)]
        self._load(block, phases)

    @contextlib.contextmanager
    def _block(self, block: Block) -> Iterator[None]:
        self.progress.tell(steps.StartingServer(block.target))
        self.targets.use(block.target, self.progress.now)
        self.progress.advance(START_S)
        known = self.folder.environment()
        self.folder.save_environment(msgspec.structs.replace(known, order=(*known.order, block.target)))
        yield
        self._observe()

    def _load(self, block: Block, phases: Sequence[Phase]) -> None:
        if self.prometheus:
            self.prometheus.watch_generator(self.exporter_port)
        target = self.targets.target(block.target)
        job = LoadJob(
            target=target,
            reference=self.bundles[0].reference,
            phases=tuple(phases),
            folder=self.folder.new_folder("generator", f"{block.target}-r{block.repetition}"),
            generator=self.experiment.generator,
            mix=self._mix(target),
            exporter_port=self.exporter_port,
            cores=self.targets.generator_cores,
        )
        known = {phase.id: phase for phase in phases}

        def on_event(event: Event) -> None:
            self._on_event(block.target, event, known.get(event.id))

        self.origin.run_phases(job, on_event=on_event, check=self.targets.check)

    def _mix(self, target: Target) -> tuple[Traffic, ...]:
        """Which models the requests are for, where these are several."""
        if len(self.bundles) == 1:
            return ()
        shares = self.experiment.mix
        return tuple(Traffic(target.asked_for(one), one.reference, shares[one.model]) for one in self.bundles)

    def _on_event(self, target: str, event: Event, phase: Phase | None) -> None:
        if phase is None:  # a trial of a search
            return
        tell, protocol = self.progress.tell, phase.protocol
        match event:
            case PhaseStarted() if isinstance(phase, WarmUpPhase):
                tell(steps.WarmingUp(target, protocol))
            case Second():
                offered = phase.rate if isinstance(phase, OpenLoopPhase) else None
                tell(steps.UnderLoad(target, protocol, offered, event.ok, event.p99_ms))
            case Tried():
                tell(steps.RateTried(target, protocol, event.rate, event.why_not))
            case Spoiled():
                tell(steps.TrialSpoiled(target, protocol, event.slip_p99_ms))
            case PhaseEnded():
                self._phase_ended(target, phase)

    def _phase_ended(self, target: str, phase: Phase) -> None:
        if isinstance(phase, WarmUpPhase):
            self.progress.advance(phase.expected_s + GENERATOR_START_S)
            if not _warmed(phase).steady:
                self.progress.tell(steps.WarmUpNotSteady(target, phase.protocol, phase.max_s))
            return
        self.done += 1
        self.progress.advance(phase.expected_s)
        if isinstance(phase, SearchPhase):
            search = records.read_search(phase.folder / "search.json")
            self.progress.tell(steps.SearchEnded(self.done, self.total, search))
        else:
            trial = records.read_trial(phase.folder / "trial.json")
            self.progress.tell(steps.TrialEnded(self.done, self.total, trial))

    def _observe(self) -> None:
        """Ask Prometheus about every trial that has no server-side figures yet."""
        if not self.prometheus:
            return
        unseen = [path for path in self.folder.trials() if not (path / "server.json").exists()]
        trials = {path: records.read_trial(path / "trial.json") for path in unseen}
        if trials:
            last = max(trial.ended_at for trial in trials.values())
            time.sleep(max(0.0, last + self.origin.settle_s - time.time()))
        for path, trial in trials.items():
            (path / "server-timeline.csv").write_text(observation.server_timeline(self.prometheus, trial))
            figures = observation.server_figures(self.prometheus, trial)
            whole_file.write_text(path / "server.json", records.encode(figures))

    def _warm_up(self, block: Block, protocol: str) -> WarmUpPhase:
        folder = self.folder.new_folder("warm-ups", f"{block.target}-{protocol}-r{block.repetition}")
        return phase_plan.warm_up(self.experiment, folder, protocol, probe=not block.repetition)

    def _trial(self, trial: Trial, warm_up: str) -> Phase:
        run = self.folder.path
        before = self._tried(trial) if trial.scenario == "capacity" else ()
        return phase_plan.trial(self.experiment, trial, run / "trials", run / "searches", warm_up, before)

    def _tried(self, trial: Trial) -> tuple[tuple[float, bool], ...]:
        """What the earlier repetitions of a search have tried."""
        found: list[tuple[float, bool]] = []
        for repetition in range(1, trial.repetition):
            file = self.folder.search(replace(trial, repetition=repetition).id) / "search.json"
            if file.exists():
                found += [(step.rate, step.met) for step in records.read_search(file).steps if not step.spoiled]
        return tuple(found)

    def _seconds(self, trials: Sequence[Trial]) -> float:
        protocols = {trial.protocol for trial in trials}
        warm_ups = [phase_plan.warm_up(self.experiment, Path(), protocol) for protocol in protocols]
        loads = sum(self._trial(trial, "").expected_s for trial in trials)
        return START_S + sum(one.expected_s + GENERATOR_START_S for one in warm_ups) + loads


def _warmed(phase: WarmUpPhase) -> WarmUpRecord:
    found = records.read_warm_up(phase.folder / "warm-up.json")
    if not found.throughput:
        raise Problem(f"{found.target} answered no {phase.protocol} request in {phase.max_s:g} s of warm-up")
    return found
