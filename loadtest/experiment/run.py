"""The main job: serve each target in turn, warm it, load it and observe it."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from loadtest.experiment import model_time, observation, phase_plan, plan
from loadtest.experiment.file import Experiment
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.phase_plan import Phase
from loadtest.experiment.phases import Traffic
from loadtest.experiment.plan import Block, Trial
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.run_folder import RunFolder, manifest_name
from loadtest.experiment.runtimes.place import HERE, Place
from loadtest.experiment.runtimes.targets import Targets
from loadtest.experiment.slip import SLIP_FLOOR_MS
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
    say_progress: RunProgress,
    place: Place = HERE,
) -> Path:
    """Run, or go on with, an experiment in its folder, with the load from `place`; returns that folder.

    `bundles`: one for each of the experiment's models, which every server holds, in the experiment's order.
    Everything measured is on disk as it ends: a `Problem` or Ctrl-C keeps the finished trials and leaves no process
    behind, and the same command goes on from there.
    """
    for number, bundle in enumerate(bundles):
        shutil.copy(bundle.folder / "manifest.json", folder.path / manifest_name(bundle.model if number else ""))
    with contextlib.ExitStack() as resources:
        prometheus = place.prometheus(folder.path / "prometheus", targets.generator_cores)
        if prometheus:
            resources.callback(prometheus.stop)
        targets.observe(prometheus)
        resources.callback(targets.stop)
        job = _Job(experiment, bundles, targets, folder, prometheus, say_progress, place)
        job.record_environment()
        job.time_models()
        job.probe()
        job.measure()
        folder.write("environment.json", {**folder.read("environment.json"), "finished_at": time.time()})
    folder.finish()
    say_progress.now("")
    return folder.path


@dataclass
class _Job:
    experiment: Experiment
    bundles: Sequence[Bundle]
    targets: Targets
    folder: RunFolder
    prometheus: Prometheus | None
    progress: RunProgress
    place: Place
    exporter_port: int = field(default_factory=lambda: ports.free(1)[0])
    done: int = 0

    def record_environment(self) -> None:
        """Write environment.json; a resumed run keeps the first one's, with a note."""
        known = self.folder.read("environment.json")
        if known is None:
            known = {
                **self.place.environment(self.targets.generator_cores),
                "server_cores": list(self.targets.server_cores),
                "generator_cores": list(self.targets.generator_cores),
                "prometheus": self.prometheus.version if self.prometheus else None,
                "order": [],
                "warnings": [],
            }
        else:
            known["warnings"].append(f"interrupted and resumed at {time.strftime('%Y-%m-%d %H:%M:%S')}")
        late = known["wake_up_lateness_ms"]["p99"]
        if late > SLIP_FLOOR_MS:
            self._warn(
                known,
                f"before any load this machine woke a process {late:.1f} ms late (p99): others use it too, and "
                f"schedules cannot be kept to {SLIP_FLOOR_MS:g} ms, so measurements may be invalid",
            )
        if not self.prometheus:
            note = "Prometheus is not installed: no server-side metrics (apt-get install prometheus)"
            self._warn(known, note)
        if not self.targets.generator_cores:
            self._warn(known, "server and load generator are not pinned to cores of their own")
        self.folder.write("environment.json", known)

    def _warn(self, known: dict[str, Any], text: str) -> None:
        if text not in known["warnings"]:
            known["warnings"].append(text)
            self.progress.say(f"note: {text}")

    def time_models(self) -> None:
        """Measure the model alone, where the servers' cores are this machine's."""
        cores = self.targets.server_cores
        if not cores:
            return
        known: dict[str, Any] = self.folder.read("model-time.json", {})
        for name in self.experiment.target_names:
            if name not in known:
                self.progress.now(f"{name}: the model alone, without a server")
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
                found = {phase["protocol"]: _warmed(phase)["throughput"] for phase in phases}
            throughput[block.target] = found
            self.folder.write("probe.json", throughput)
            text = ", ".join(f"{protocol} {rate:,.0f}/s" for protocol, rate in found.items())
            self.progress.say(f"probe  {block.target}: {text} at {self.experiment.warm_up.concurrency} in flight")
        self.experiment = plan.resolve(self.experiment, throughput)
        self.folder.save_experiment(self.experiment)

    def measure(self) -> None:
        """Run every trial that is not there yet, block by block."""
        blocks = plan.blocks(self.experiment)
        todo = [(block, [trial for trial in block.trials if not self.folder.measured(trial.id)]) for block in blocks]
        self.total = sum(len(block.trials) for block in blocks)
        self.done = self.total - sum(len(trials) for _, trials in todo)
        if self.done:
            self.progress.say(f"resume {self.done} of {self.total} trials are already measured")
        self.progress.plan(sum(self._seconds(trials) for _, trials in todo if trials))
        for block, trials in todo:
            if trials:
                with self._block(block):
                    self._measure_block(block, trials)

    def _measure_block(self, block: Block, trials: Sequence[Trial]) -> None:
        phases = []
        for protocol in self.experiment.protocols:
            chosen = [trial for trial in trials if trial.protocol == protocol]
            if chosen:
                warm_up = self._warm_up(block, protocol)
                phases += [warm_up, *(self._trial(trial, warm_up["id"]) for trial in chosen)]
        self._load(block, phases)

    @contextlib.contextmanager
    def _block(self, block: Block) -> Iterator[None]:
        self.progress.now(f"{block.target}: starting its server")
        self.targets.use(block.target, self.progress.now)
        self.progress.advance(START_S)
        known = self.folder.read("environment.json")
        self.folder.write("environment.json", {**known, "order": [*known["order"], block.target]})
        yield
        self._observe()

    def _load(self, block: Block, phases: list[Phase]) -> None:
        generator = self.experiment.generator
        if self.prometheus:
            self.prometheus.watch_generator(self.exporter_port)
        target = self.targets.target(block.target)
        self.place.run_phases(
            target,
            self.bundles[0].reference,
            phases,
            mix=self._mix(target),
            folder=self.folder.new_folder("generator", f"{block.target}-r{block.repetition}"),
            generator=generator,
            exporter_port=self.exporter_port,
            cores=self.targets.generator_cores,
            on_event=lambda event: self._on_event(block, event, {phase["id"]: phase for phase in phases}),
            check=self.targets.check,
        )

    def _mix(self, target: Target) -> list[Traffic]:
        """Which models the requests are for, where these are several."""
        if len(self.bundles) == 1:
            return []
        shares = self.experiment.mix
        return [Traffic(target.asked_for(bundle), bundle.reference, shares[bundle.model]) for bundle in self.bundles]

    def _on_event(self, block: Block, event: dict[str, Any], phases: dict[str, Phase]) -> None:
        phase = phases.get(event.get("id", ""))
        if phase is None:
            return
        label = f"{block.target} {phase_plan.protocol_of(phase)}"
        if event["event"] == "phase-started" and phase["kind"] == "warm-up":
            self.progress.now(f"{label}: warming up")
        elif event["event"] == "second":
            offered = f"{phase['rate']:g}/s offered, " if phase["kind"] == "open-loop" else ""
            self.progress.now(f"{label}: {offered}{event['ok']}/s ok, p99 {event['p99_ms'] or 0:.1f} ms")
        elif event["event"] == "tried":
            self.progress.now(f"{label}: capacity: {event['rate']:g}/s {event['why_not'] or 'meets the SLO'}")
        elif event["event"] == "spoiled":
            self.progress.say(
                f"note: {label}: sent late (slip p99 {event['slip_p99_ms']:.1f} ms); the trial is repeated"
            )
        elif event["event"] == "phase-ended":
            self._phase_ended(phase, label)

    def _phase_ended(self, phase: Phase, label: str) -> None:
        if phase["kind"] == "warm-up":
            self.progress.advance(phase_plan.expected_s(phase) + GENERATOR_START_S)
            if not _warmed(phase)["steady"]:
                self.progress.say(f"note: {label}: not steady after {phase['max_s']:g} s of warm-up: not valid")
            return
        self.done += 1
        self.progress.advance(phase_plan.expected_s(phase))
        text = _searched(phase) if phase["kind"] == "search" else _measured(phase)
        self.progress.say(f"{self.done:3}/{self.total}  {label} {text}")

    def _observe(self) -> None:
        """Ask Prometheus about every trial that has no server-side figures yet."""
        if not self.prometheus:
            return
        unseen = [path for path in self.folder.trials() if not (path / "server.json").exists()]
        trials = {path: json.loads((path / "trial.json").read_text()) for path in unseen}
        if trials:
            last = max(trial["ended_at"] for trial in trials.values())
            time.sleep(max(0.0, last + self.place.settle_s - time.time()))
        for path, trial in trials.items():
            (path / "server-timeline.csv").write_text(observation.server_timeline(self.prometheus, trial))
            self.folder.write(f"trials/{path.name}/server.json", observation.server_figures(self.prometheus, trial))

    def _warm_up(self, block: Block, protocol: str) -> Phase:
        folder = self.folder.new_folder("warm-ups", f"{block.target}-{protocol}-r{block.repetition}")
        return phase_plan.warm_up(self.experiment, folder, protocol, probe=not block.repetition)

    def _trial(self, trial: Trial, warm_up: str) -> Phase:
        place = self.folder.path
        phase = phase_plan.trial(self.experiment, trial, place / "trials", place / "searches", warm_up)
        if phase["kind"] == "search":
            phase["before"] = self._tried(trial)
        return phase

    def _tried(self, trial: Trial) -> list[tuple[float, bool]]:
        """What the earlier repetitions of a search have tried."""
        found = []
        for repetition in range(1, trial.repetition):
            earlier = self.folder.read(
                f"searches/{replace(trial, repetition=repetition).id}/search.json", {"steps": []}
            )
            found += [(step["rate"], step["met"]) for step in earlier["steps"] if not step["spoiled"]]
        return found

    def _seconds(self, trials: Sequence[Trial]) -> float:
        warm_up = phase_plan.expected_s(phase_plan.warm_up(self.experiment, Path(), "")) + GENERATOR_START_S
        warm_ups = len({trial.protocol for trial in trials})
        loads = sum(phase_plan.expected_s(self._trial(trial, "")) for trial in trials)
        return START_S + warm_ups * warm_up + loads


def _warmed(phase: Phase) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((Path(phase["folder"]) / "warm-up.json").read_text())
    if not values["throughput"]:
        raise Problem(f"{values['target']} answered no {phase['protocol']} request in {phase['max_s']:g} s of warm-up")
    return values


def _searched(phase: Phase) -> str:
    found = json.loads((Path(phase["folder"]) / "search.json").read_text())
    low, high = (f"{end:g}/s" if end else "no rate" for end in (found["low"], found["high"]))
    return f"capacity: {low} meets the SLO, {high} does not, after {len(found['steps'])} trials"


def _measured(phase: Phase) -> str:
    trial = json.loads((Path(phase["folder"]) / "trial.json").read_text())
    latency, slip = trial["latency_ms"], trial["schedule_slip_ms"]
    what = f"{phase['rate']:g}/s" if phase["scenario"] == "ladder" else phase["scenario"]
    if latency["p50"] is None:
        outcome = "no answer was ok"
    else:
        outcome = f"p50 {latency['p50']:.2f} ms, p99 {latency['p99']:.2f} ms, slip p99 {slip['p99']:.2f} ms"
    failed = sum(trial["errors"].values())
    return f"{what}: {outcome}" + (f", {failed} errors" if failed else "")
