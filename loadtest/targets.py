"""The servers of a run: one at a time, started when a block needs it, and proven over the wire before any load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from loadtest.observation import Prometheus
from loadtest.run_folder import RunFolder
from models.bundle import Bundle
from models.problem import Problem
from serving import launch, wire_parity
from serving.profile import ServingProfile
from serving.target import Target


class Targets(Protocol):
    """What a run needs of its servers, whatever runtime they live in."""

    server_cores: tuple[int, ...]
    generator_cores: tuple[int, ...]

    def observe(self, prometheus: Prometheus | None) -> None:
        """Tell this Prometheus which server to scrape from now on."""

    def use(self, stack: str, now: Callable[[str], None]) -> None:
        """Have this stack's server up, alone, and proven; raises `Problem` where it fails."""

    def target(self, stack: str) -> Target:
        """The server in use, as clients see it."""

    def check(self) -> None:
        """Raise `Problem`, with its last log lines, if the server in use has died."""

    def stop(self) -> None:
        """Stop whatever runs."""


class Proven:
    """Wire parity once for each stack, and the list of targets, both kept in the run's folder."""

    def __init__(self, folder: RunFolder, bundle: Bundle, protocols: Sequence[str]) -> None:
        self._folder, self._bundle, self._protocols = folder, bundle, protocols

    def prove(self, target: Target, now: Callable[[str], None]) -> None:
        """Record the target, and send the whole test split through it unless that has been done in this run."""
        others = [known for known in self._folder.read("targets.json", []) if known["stack"] != target.stack]
        self._folder.write("targets.json", [*others, target.to_dict()])
        known = self._folder.read("wire-parity.json", {"targets": {}})
        if target.stack in known["targets"]:
            return
        now(f"{target.stack}: wire parity over the whole test split")
        figures = wire_parity.check(target, self._bundle.reference, protocols=self._protocols)
        samples = next(iter(figures.values()))["samples"]
        wire_parity.save_examples(self._bundle.reference, self._folder.path / "wire-samples.npz")
        proven = {**known["targets"], target.stack: figures}
        self._folder.write(
            "wire-parity.json", {"samples": samples, "tolerance": wire_parity.TOLERANCE, "targets": proven}
        )


class LocalTargets:
    """Runtime "process": servers on this machine, the one in use alone on its cores."""

    def __init__(
        self,
        folder: RunFolder,
        bundle: Bundle,
        profile: ServingProfile,
        protocols: Sequence[str],
        cores: tuple[tuple[int, ...], tuple[int, ...]],
        tensorflow_model_server: Path | None = None,
    ) -> None:
        self.server_cores, self.generator_cores = cores
        self._folder, self._bundle, self._profile = folder, bundle, profile
        self._model_server = tensorflow_model_server
        self._proven = Proven(folder, bundle, protocols)
        self._prometheus: Prometheus | None = None
        self._running: launch.RunningTarget | None = None

    def observe(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    def use(self, stack: str, now: Callable[[str], None]) -> None:
        if self._running and self._running.target.stack == stack:
            return
        self.stop()
        self._running = launch.start(
            stack,
            self._bundle,
            self._profile,
            self._folder.new_folder("servers", stack),
            cores=self.server_cores,
            tensorflow_model_server=self._model_server,
        )
        if self._prometheus:
            self._prometheus.watch_server(self._running.target, self._running.process.pid)
        self._proven.prove(self._running.target, now)

    def target(self, stack: str) -> Target:
        assert self._running is not None
        return self._running.target

    def check(self) -> None:
        if self._running:
            self._running.check()

    def stop(self) -> None:
        if self._running:
            self._running.stop()
            self._running = None


class RemoteTargets:
    """Runtime "remote": servers that somebody else keeps up, both at the same time."""

    def __init__(self, folder: RunFolder, bundle: Bundle, protocols: Sequence[str], targets: Sequence[Target]) -> None:
        self.server_cores: tuple[int, ...] = ()
        self.generator_cores: tuple[int, ...] = ()
        self._targets = {target.stack: target for target in targets}
        self._proven = Proven(folder, bundle, protocols)
        self._prometheus: Prometheus | None = None

    def observe(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    def use(self, stack: str, now: Callable[[str], None]) -> None:
        if self._prometheus:
            self._prometheus.watch_server(self.target(stack))
        self._proven.prove(self.target(stack), now)

    def target(self, stack: str) -> Target:
        if stack not in self._targets:
            raise Problem(f"no running {stack} server is named; it has {', '.join(self._targets) or 'none'}")
        return self._targets[stack]

    def check(self) -> None:
        """Somebody else's server: its death shows as errors in the trial."""

    def stop(self) -> None:
        """Somebody else's server: it stays up."""
