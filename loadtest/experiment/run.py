"""The main job: serve each target in turn, warm it, load it and observe it."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from loadtest.experiment import model_time, observation, phase_plan, plan, proxies, records, standing, starts, steps
from loadtest.experiment.events import Event, PhaseEnded, PhaseStarted, Second, Spoiled, Stopped, Tried
from loadtest.experiment.file import Experiment
from loadtest.experiment.load_job import JobLost, LoadJob
from loadtest.experiment.meter_records import GpuMemory
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.phases import OpenLoopPhase, Phase, SearchPhase, Traffic, WarmUpPhase
from loadtest.experiment.plan import Start, Trial
from loadtest.experiment.records import (
    BusyMachine,
    CpuQuota,
    Environment,
    FewFiles,
    NoPrometheus,
    NotPinned,
    RateLimited,
    RunNote,
    TrialRecord,
    WakesLate,
    WarmUpRecord,
)
from loadtest.experiment.run_folder import RunFolder, manifest_name
from loadtest.experiment.runtimes import endpoint, on_this_machine
from loadtest.experiment.runtimes.load_origin import THIS_MACHINE, LoadOrigin
from loadtest.experiment.runtimes.targets import Targets
from loadtest.experiment.slip import OTHERS_ALLOWED, SLIP_FLOOR_MS
from loadtest.experiment.starts import Figures
from loadtest.experiment.steps import Progress
from loadtest.experiment.wall_clock import WallClock
from models import whole_file
from models.bundle import Bundle
from models.problem import Problem
from serving import ports
from serving.engines import gpu
from serving.replaced import Replaced
from serving.target import Target
from serving.this_machine import boot_id

if TYPE_CHECKING:
    from loadtest.experiment.meters import Meters

# A run that goes on before it ended, by more than two machines' clocks differ: Prometheus takes no older samples.
RESUMED_BEFORE_S = 5.0
# So many times in a row a start is repeated whose server, or load generator, was replaced meanwhile.
MOST_REPLACED = 2


def run(
    experiment: Experiment,
    bundles: Sequence[Bundle],
    targets: Targets,
    folder: RunFolder,
    progress: Progress,
    origin: LoadOrigin = THIS_MACHINE,
) -> Path:
    """Run, or go on with, an experiment in its folder, with the load from `origin`; returns the folder's path.

    `bundles`: one for each of the experiment's models, which every server holds, in the experiment's order; none where
    all targets are endpoints, and the folder has a reference of its own.
    Everything measured is on disk as it ends: a `Problem` or Ctrl-C keeps the finished trials and leaves no process
    behind, and the same command goes on from there.
    """
    for number, bundle in enumerate(bundles):
        shutil.copy(bundle.folder / "manifest.json", folder.path / manifest_name(bundle.model if number else ""))
    with contextlib.ExitStack() as resources:
        prometheus = origin.prometheus(folder.path / "prometheus", targets.generator_cores)
        if prometheus:
            resources.callback(prometheus.stop)
        meters = origin.meters(on_gpu=_on_gpu(experiment))
        if meters:
            resources.callback(meters.stop)
            meters.start()
        targets.observe(prometheus)
        resources.push(_stopping(targets))
        measuring = _Measuring(experiment, bundles, targets, folder, prometheus, progress, origin, meters)
        measuring.record_environment()
        measuring.time_models()
        measuring.lower_rates()
        measuring.probe()
        measuring.measure()
        folder.save_environment(msgspec.structs.replace(folder.environment(), finished_at=time.time()))
    folder.finish()
    progress.now("")
    return folder.path


def _stopping(targets: Targets) -> Callable[[object, BaseException | None, object], bool]:
    """What stops the targets in the end, whatever that was; what went wrong before is still told where that fails."""

    def stop(_: object, error: BaseException | None, __: object) -> bool:
        try:
            targets.stop()
        except Problem as problem:
            if not isinstance(error, Problem):
                raise
            raise Problem(f"{error}; and then {problem}", error.details) from None
        return False

    return stop


@dataclass
class _Measuring:
    experiment: Experiment
    bundles: Sequence[Bundle]
    targets: Targets
    folder: RunFolder
    prometheus: Prometheus | None
    progress: Progress
    origin: LoadOrigin
    meters: Meters | None = None
    exporter_port: int = field(default_factory=lambda: ports.free(1)[0])
    # When a phase ended last, by the monotonic clock; of a run that goes on, at the latest now.
    _loaded_at: float = field(default_factory=time.monotonic)
    _clock: WallClock = field(default_factory=WallClock)

    def record_environment(self) -> None:
        """Write environment.json; a resumed run keeps the first one's, with a note."""
        if self.folder.has_environment:
            now = time.time()
            self.folder.note(records.Resumed(at=now))
            ended = [records.read_trial(path / "trial.json").ended_at for path in self.folder.trials()]
            if (ahead := max(ended, default=now) - now) > RESUMED_BEFORE_S:
                self._note(records.ClockSet(at=round(now, 3), step_s=-round(ahead, 1)))
        else:
            idle = self.meters.idle() if self.meters else None
            found = msgspec.structs.replace(
                self.origin.environment(self.targets.generator_cores),
                server_cores=self.targets.server_cores,
                generator_cores=self.targets.generator_cores,
                prometheus=self.prometheus.version if self.prometheus else None,
                gpus=self.meters.gpus if self.meters and self.meters.gpus.asked else None,
                idle=idle,
            )
            self.folder.save_environment(found)
        lateness = self.folder.environment().wake_up_lateness_ms
        late = lateness.p99 if lateness else None
        if late is not None and late > SLIP_FLOOR_MS:
            self._note(WakesLate(p99_ms=late, allowed_ms=SLIP_FLOOR_MS))
        self._note_limits(self.folder.environment())
        if not self.prometheus:
            self._note(NoPrometheus())
        if not self.targets.generator_cores:
            self._note(NotPinned())
        if most := self.experiment.generator.most_rate:
            self._note(RateLimited(most=most))
        for note in proxies.notes(self.experiment.targets):
            self._note(note)
        for unseen in on_this_machine.not_seen(endpoint.named(self.experiment)):
            self._note(unseen)

    def _note_limits(self, found: Environment) -> None:
        """Say what this machine, or another program on it, keeps from the run."""
        if found.busy_at_start is not None and found.busy_at_start > OTHERS_ALLOWED:
            self._note(BusyMachine(share=found.busy_at_start, allowed=OTHERS_ALLOWED, by=found.busy_by))
        if found.cpu_quota is not None and found.cpu_quota < len(found.cpus):
            self._note(CpuQuota(cpus=round(found.cpu_quota, 3), of=len(found.cpus)))
        needed = phase_plan.open_files(self.experiment)
        if found.open_files is not None and found.open_files < needed:
            self._note(FewFiles(allowed=found.open_files, needed=needed))

    def _note(self, note: RunNote) -> None:
        if self.folder.note(note):
            self.progress.tell(steps.Noted(note))

    def time_models(self) -> None:
        """Measure the model alone, where the servers' cores are this machine's, and no server stays up on them."""
        cores = self.targets.server_cores
        if not cores or self.experiment.runtime == "remote":
            return
        known: dict[str, Any] = self.folder.read("model-time.json", {})
        for name in self.experiment.target_names:
            if name not in known and not self.experiment.target(name).endpoint:
                self.progress.tell(steps.TimingModel(name))
                profile, shares = self.experiment.profile_of(name), self.experiment.mix.values()
                engine = self.experiment.target(name).engine
                alone = [model_time.measure(bundle, engine, profile, cores) for bundle in self.bundles]
                known[name] = msgspec.to_builtins(model_time.mean(alone, list(shares)), str_keys=True)
                self.folder.write("model-time.json", known)

    def lower_rates(self) -> None:
        """Keep the rates that the experiment gives within what the model can do."""
        times = self.folder.read("model-time.json", {}).values()
        alone = [float(one["ms"]["1"]) + one.get("decoding_ms", {}).get("1", 0.0) for one in times if one.get("ms")]
        lowered = plan.lowered(self.experiment, alone)
        if lowered != self.experiment:
            self.experiment = lowered
            self.folder.save_experiment(lowered)
            self.progress.tell(steps.RatesChosen(lowered.ladder.rates))

    def probe(self) -> None:
        """Find each target's throughput, roughly, and choose the rates that follow from it."""
        throughput: dict[str, dict[str, float]] = self.folder.read("probe.json", {})
        for start in plan.probes(self.experiment) if self.experiment.unrated else ():
            if start.target in throughput:
                continue
            made: list[WarmUpPhase] = []

            def warm_ups(start: Start = start, made: list[WarmUpPhase] = made) -> list[WarmUpPhase]:
                made[:] = [self._warm_up(start, protocol) for protocol in self.experiment.protocols]
                return made

            self._on_one_server(start, warm_ups)
            found = {phase.protocol: _warmed(phase).throughput for phase in made}
            throughput[start.target] = found
            self.folder.write("probe.json", throughput)
            self.progress.tell(steps.Probed(start.target, found, self.experiment.warm_up.concurrency))
        if throughput:
            self.experiment = plan.resolve(self.experiment, throughput)
            self.folder.save_experiment(self.experiment)
            if self.experiment.ladder.rates:
                self.progress.tell(steps.RatesChosen(self.experiment.ladder.rates))

    def measure(self) -> None:
        """Run block after block, every trial that is not there yet, until every question is decided or the budget is
        spent. What is decided follows from the trials before a block alone, so that a resumed run goes the same way."""
        if measured := len(self.folder.trials()):
            self.progress.tell(steps.Resumed(measured))
        self.progress.plan(self._planned_s())
        number, told = 1, 0
        while block := self._following(number):
            for start in block:
                self._on_one_server(start, partial(self._missing, start))
            number += 1
            told = self._look(number, told)
        self._observe()
        self._look(number, told, over=True)

    def _following(self, number: int) -> list[Start]:
        """The starts of a block; none where the run is over."""
        trials, found = self._before(number)
        standings = standing.stand(plan.questions(self.experiment), found, standing.looks(self.experiment))
        return standing.following(self.experiment, number, standings, trials)

    def _before(self, number: int) -> tuple[list[TrialRecord], Figures]:
        """The trials of the blocks before this one, and what their starts say."""
        every = [records.read_trial(path / "trial.json") for path in self.folder.trials()]
        trials = [trial for trial in every if trial.repetition < number]
        unsteady = {one.id for one in self.folder.warm_ups() if not one.steady}
        return trials, starts.figures(trials, self.folder.searches(), self.experiment.slo, unsteady)

    def _look(self, number: int, told: int, *, over: bool = False) -> int:
        """Tell and write down how the questions stand after the blocks before this one; how many are decided.
        `told`: how many were when this was told last."""
        _, found = self._before(number)
        planned = standing.looks(self.experiment)
        standings = standing.stand(plan.questions(self.experiment), found, planned, over=over)
        self.folder.save_decisions(planned, standings, over=over)
        decided = sum(one.decision.decided for one in standings)
        if over or decided != told:
            self.progress.tell(steps.Looked(number - 1, decided, len(standings), over))
        return decided

    def _missing(self, start: Start) -> list[Phase]:
        """What a start still has to do: its trials that are not measured, each protocol's after a warm-up."""
        trials = [trial for trial in start.trials if not self.folder.measured(trial.id)]
        phases: list[Phase] = []
        for protocol in self.experiment.protocols:
            chosen = [trial for trial in trials if trial.protocol == protocol]
            if chosen:
                warm_up = self._warm_up(start, protocol)
                phases += [warm_up, *(self._trial(trial, warm_up.id) for trial in chosen)]
        return phases

    def _on_one_server(self, start: Start, phases: Callable[[], Sequence[Phase]]) -> None:
        """Start a target's server anew and put `phases` on it, unless there are none. Where the server is replaced
        meanwhile all that they measured is put aside, and where the load generator is, what came home is kept; then
        again, with what `phases` says by then. Raises `Problem` where that happens more than `MOST_REPLACED` times."""
        times = 0
        while asked := self._started_for(start, phases):
            try:
                self._load(start, asked)
                return
            except (Replaced, JobLost) as why:
                times += 1
                if isinstance(why, Replaced):
                    self.folder.put_aside(asked)
                self._note(self._replaced(start, why))
                if times > MOST_REPLACED:
                    which = "server" if isinstance(why, Replaced) else "load generator"
                    raise Problem(
                        f"target.{start.target}: the {which} was replaced under this load, {times} times in a row; the "
                        f"last time: {why}; the same command goes on from there",
                        why.details,
                    ) from None

    def _started_for(self, start: Start, phases: Callable[[], Sequence[Phase]]) -> Sequence[Phase]:
        """The phases, where there are any with their server started."""
        if asked := phases():
            self._start(start)
        return asked

    def _replaced(self, start: Start, why: Replaced | JobLost) -> records.ServerReplaced | records.GeneratorReplaced:
        if isinstance(why, JobLost):
            return records.GeneratorReplaced(at=_now(), target=start.target, start=start.repetition)
        return records.ServerReplaced(
            at=_now(),
            target=start.target,
            engine=self.targets.target(start.target).engine,
            what=why.what,
            start=start.repetition,
            reason=why.reason,
            exit_status=why.exit_status,
        )

    def _start(self, start: Start) -> None:
        """Start a target's server anew. Meanwhile nothing is measured: Prometheus is asked about the trials before,
        which takes as long as a server's start."""
        self.progress.tell(steps.StartingServer(start.target))
        with ThreadPoolExecutor(1) as beside:
            observed = beside.submit(self._observe)
            self.targets.use(start.target, self.progress.now, start.offset)
            observed.result()
        self.progress.advance(phase_plan.START_S)
        known = self.folder.environment()
        self.folder.save_environment(msgspec.structs.replace(known, order=(*known.order, start.target)))
        self._expect_memory(self.targets.target(start.target))

    def _load(self, start: Start, phases: Sequence[Phase]) -> None:
        if self.prometheus:
            self.prometheus.watch_generator(self.exporter_port)
        target = self.targets.target(start.target)
        _fitting(target, phases)
        job = LoadJob(
            target=target,
            reference=(self.bundles[0].reference if self.bundles else self.folder.reference).absolute(),
            phases=tuple(phases),
            folder=self.folder.new_folder("generator", f"{start.target}-r{start.repetition}"),
            generator=self.experiment.generator,
            mix=self._mix(target),
            exporter_port=self.exporter_port,
            cores=self.targets.generator_cores,
        )
        known = {phase.id: phase for phase in phases}

        def on_event(event: Event) -> None:
            self._on_event(start.target, event, known.get(event.id))

        try:
            self.origin.run_phases(job, on_event=on_event, check=self.targets.check)
        except Replaced:
            raise
        except Problem:
            self.targets.check(fresh=True)  # what became of the server says more
            raise
        finally:
            self._record_use(target)
        self.targets.check(fresh=True)
        if step_s := self._clock.step_s():
            self._note(records.ClockSet(at=_now(), step_s=round(step_s, 1)))

    def _record_use(self, target: Target) -> None:
        """Write down what the meters counted in the trials that have just ended, of a server on this machine."""
        if self.meters is None or not target.machine or target.machine != boot_id():
            return
        for path in self.folder.trials():
            if (path / "devices.json").exists():
                continue
            trial = records.read_trial(path / "trial.json")
            use = self.meters.use(trial.started_at, trial.ended_at)
            if use and trial.target == target.name:
                whole_file.write_text(path / "devices.json", records.encode(use))
        if self.meters.lost_at is not None:
            self._note(records.GpuLost(at=round(self.meters.lost_at, 1), gpu=self.meters.gpu_name))

    def _expect_memory(self, target: Target) -> None:
        """Say and write down, once for each target, what it will have of the GPU's memory."""
        known = self.folder.environment()
        if not self.bundles or target.name in known.gpu_memory or not gpu.computes_there(target.knobs):
            return
        expected = gpu.expected(target.knobs, sum(one.torchscript.stat().st_size for one in self.bundles))
        memory = GpuMemory(
            processes=expected.processes,
            weights_bytes=expected.weights_bytes,
            context_bytes=gpu.CONTEXT_BYTES,
            share=expected.share,
        )
        self.folder.save_environment(
            msgspec.structs.replace(known, gpu_memory={**known.gpu_memory, target.name: memory})
        )
        self.progress.tell(steps.GpuMemoryExpected(target.name, memory))

    def _mix(self, target: Target) -> tuple[Traffic, ...]:
        """Which models the requests are for, where these are several."""
        if len(self.bundles) < 2:
            return ()
        shares = self.experiment.mix
        return tuple(
            Traffic(target.asked_for(one), one.reference.absolute(), shares[one.model]) for one in self.bundles
        )

    def _on_event(self, target: str, event: Event, phase: Phase | None) -> None:
        if isinstance(event, Stopped):
            raise Problem(_stopped(target, event, self.experiment.generator.stop_error_ratio))
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
                tell(steps.TrialSpoiled(target, protocol, event.why))
            case PhaseEnded():
                self._phase_ended(target, phase)

    def _phase_ended(self, target: str, phase: Phase) -> None:
        self._loaded_at = time.monotonic()
        if isinstance(phase, WarmUpPhase):
            self.progress.advance(phase.expected_s + phase_plan.GENERATOR_START_S)
            warmed = _warmed(phase)
            if not warmed.steady:
                self.progress.tell(steps.WarmUpNotSteady(target, phase.protocol, warmed.seconds))
            return
        self.progress.advance(phase.expected_s)
        if isinstance(phase, SearchPhase):
            search = records.read_search(phase.folder / "search.json")
            self.progress.tell(steps.SearchEnded(search))
        else:
            trial = records.read_trial(phase.folder / "trial.json")
            self.progress.tell(steps.TrialEnded(trial))

    def _observe(self) -> None:
        """Ask Prometheus about every trial that has no server-side figures yet."""
        if not self.prometheus:
            return
        unseen = [path for path in self.folder.trials() if not (path / "server.json").exists()]
        trials = {path: records.read_trial(path / "trial.json") for path in unseen}
        if trials:
            # Not by the wall clock: it may have been set, and the trials' times may be another machine's.
            time.sleep(max(0.0, self._loaded_at + self.origin.settle_s - time.monotonic()))
        for path, trial in trials.items():
            whole_file.write_text(path / "server-timeline.csv", observation.server_timeline(self.prometheus, trial))
            figures = observation.server_figures(self.prometheus, trial)
            whole_file.write_text(path / "server.json", records.encode(figures))

    def _warm_up(self, start: Start, protocol: str) -> WarmUpPhase:
        folder = self.folder.new_folder("warm-ups", f"{start.target}-{protocol}-r{start.repetition}")
        return phase_plan.warm_up(self.experiment, folder, protocol, probe=not start.repetition)

    def _trial(self, trial: Trial, warm_up: str) -> Phase:
        run = self.folder.path
        return phase_plan.trial(self.experiment, trial, run / "trials", run / "searches", warm_up)

    def _planned_s(self) -> float:
        """Seconds until the run has ended, if no question is decided before the budget is spent."""
        blocks = standing.longest(self.experiment)
        return math.fsum(start_s(self.experiment, start) for block in blocks for start in block)


def _on_gpu(experiment: Experiment) -> bool:
    """Whether one of an experiment's servers computes on a GPU."""
    return any(experiment.profile_of(name).device == "gpu" for name in experiment.target_names)


def _fitting(target: Target, phases: Sequence[Phase]) -> None:
    """Raise `Problem` where a server that Tandem knows takes fewer images in one request than a phase sends."""
    for phase in phases:
        batch = (phase.trial if isinstance(phase, SearchPhase) else phase).batch
        if batch > target.max_batch_size and not target.is_endpoint:
            raise Problem(
                f"target.{target.name}: it takes at most {target.max_batch_size} images in one request, and {phase.id} "
                f"sends {batch}: use a smaller batch, or start it with a larger profile.max_batch_size"
            )


def start_s(experiment: Experiment, start: Start) -> float:
    """Seconds that one start of a server will probably take, with its warm-ups and trials."""
    loads = math.fsum(phase_plan.expected_s(experiment, trial) for trial in start.trials)
    return phase_plan.overhead_s(experiment, start) + loads


def _now() -> float:
    return round(time.time(), 3)


def _warmed(phase: WarmUpPhase) -> WarmUpRecord:
    found = records.read_warm_up(phase.folder / "warm-up.json")
    if not found.throughput:
        raise Problem(f"{found.target} answered no {phase.protocol} request in {phase.max_s:g} s of warm-up")
    return found


def _stopped(target: str, event: Stopped, most: float) -> str:
    kinds = ", ".join(f"{count} × {kind}" for kind, count in event.kinds.items())
    said = f"; the first said: {event.said}" if event.said else ""
    return (
        f"target.{target}: {event.failed} of the latest {event.of} requests failed ({kinds}): stopped, since "
        f"generator.stop_error_ratio = {most:g}; what was measured before is kept{said}"
    )
