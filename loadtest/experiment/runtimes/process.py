"""Runtime "process": servers on this machine, and any that are up already beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loadtest.experiment.file import Experiment
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.records import StoodIn
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import on_this_machine
from loadtest.experiment.runtimes.kept_up import KeptUp, predicts
from loadtest.experiment.runtimes.parity_gate import ParityGate
from models.bundle import Bundle
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Engine
from serving.runtimes.process import launch
from serving.target import Target


class LocalTargets:
    """Servers that a run starts as processes, the one in use alone on its cores."""

    def __init__(
        self,
        folder: RunFolder,
        bundles: Sequence[Bundle],
        experiment: Experiment,
        cores: tuple[tuple[int, ...], tuple[int, ...]],
        programs: Mapping[str, Path],
        stood_in: Sequence[StoodIn] = (),
        endpoints: Sequence[Target] = (),
    ) -> None:
        """`endpoints`: targets that are up already, used while no other one runs."""
        self.server_cores, self.generator_cores = cores
        self._folder, self._bundles, self._experiment = folder, bundles, experiment
        self._programs = programs
        self._stood_in = stood_in
        self._parity_gate = ParityGate(folder, bundles, experiment.protocols)
        self._prometheus: Prometheus | None = None
        self._running: launch.RunningTarget | None = None
        located = on_this_machine.located(endpoints)
        forget, protocols = self._parity_gate.forget, experiment.protocols
        self._endpoints = KeptUp(folder, located, forget, lambda target: predicts(target, protocols))

    def observe(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:
        self.stop()
        if name in self._endpoints.targets:
            target = self._endpoints.use(name, now)
            if self._prometheus:
                self._prometheus.watch_server(target)
            self._parity_gate.prove(target, now)
            return
        self._running = launch.start(
            name,
            self._bundles[0],
            self._experiment.profile_of(name),
            self._folder.new_folder("servers", name),
            beside=self._bundles[1:],
            cores=self.server_cores,
            engine=self._engine(name),
            programs=self._programs,
            offset=offset,
        )
        for note in self._stood_in:
            if note.stand_in == self._running.target.engine:
                self._folder.note(note)
        if self._prometheus:
            self._prometheus.watch_server(self._running.target, self._running.process.pid)
        self._parity_gate.prove(self._running.target, now)

    def _engine(self, name: str) -> Engine:
        """The engine of a target; of a run that goes on, the one that it began with: figures of two are never mixed.

        Raises `Problem` where that one is not at hand any more.
        """
        asked = registry.engine(self._experiment.target(name).engine)
        saved = (Target.load(path) for path in self._folder.path.glob("servers/*/target.json"))
        begun = next((target.engine for target in saved if target.name == name), None)
        if begun is None:
            return asked
        if begun == asked.id and launch.at_hand(asked, self._programs) is not asked:
            raise Problem(f"{name}: the run began with {asked.title}, which is not at hand now; --fresh begins anew")
        return registry.engine(begun)

    def target(self, name: str) -> Target:
        if name in self._endpoints.targets:
            return self._endpoints.targets[name]
        assert self._running is not None
        return self._running.target

    def check(self, *, fresh: bool = False) -> None:
        if self._running:
            self._running.check()
        else:
            self._endpoints.check(fresh=fresh)

    def stop(self) -> None:
        self._endpoints.leave()
        if self._running:
            self._running.stop()
            self._running = None
