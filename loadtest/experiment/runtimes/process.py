"""Runtime "process": servers on this machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from loadtest.experiment.file import Experiment
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.parity_gate import ParityGate
from models.bundle import Bundle
from serving.engines import registry
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
    ) -> None:
        self.server_cores, self.generator_cores = cores
        self._folder, self._bundles, self._experiment = folder, bundles, experiment
        self._programs = programs
        self._parity_gate = ParityGate(folder, bundles, experiment.protocols)
        self._prometheus: Prometheus | None = None
        self._running: launch.RunningTarget | None = None

    def observe(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:
        self.stop()
        self._running = launch.start(
            name,
            self._bundles[0],
            self._experiment.profile_of(name),
            self._folder.new_folder("servers", name),
            beside=self._bundles[1:],
            cores=self.server_cores,
            engine=registry.engine(self._experiment.target(name).engine),
            programs=self._programs,
            offset=offset,
        )
        if self._prometheus:
            self._prometheus.watch_server(self._running.target, self._running.process.pid)
        self._parity_gate.prove(self._running.target, now)

    def target(self, name: str) -> Target:  # noqa: ARG002 - as the protocol has it
        assert self._running is not None
        return self._running.target

    def check(self) -> None:
        if self._running:
            self._running.check()

    def stop(self) -> None:
        if self._running:
            self._running.stop()
            self._running = None
