"""Runtime "remote": servers that somebody else keeps up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from loadtest.experiment.observation import Prometheus
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import on_this_machine
from loadtest.experiment.runtimes.kept_up import KeptUp, predicts
from loadtest.experiment.runtimes.parity_gate import ParityGate
from models.bundle import Bundle
from models.problem import Problem
from serving.target import Target


class RemoteTargets:
    """Servers that are up already, both at the same time."""

    def __init__(
        self, folder: RunFolder, bundles: Sequence[Bundle], protocols: Sequence[str], targets: Sequence[Target]
    ) -> None:
        """`targets`: one for each server."""
        targets = on_this_machine.located(targets)
        self.server_cores, self.generator_cores = on_this_machine.split(targets)
        self._parity_gate = ParityGate(folder, bundles, protocols)
        self._kept_up = KeptUp(folder, targets, self._parity_gate.forget, lambda target: predicts(target, protocols))
        self._prometheus: Prometheus | None = None

    def observe(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:  # noqa: ARG002 - as the protocol has it
        self.target(name)
        target = self._kept_up.use(name, now)
        if self._prometheus:
            self._prometheus.watch_server(target)
        self._parity_gate.prove(target, now)

    def target(self, name: str) -> Target:
        known = self._kept_up.targets
        if name not in known:
            raise Problem(f"no running server is called {name}; there is {', '.join(known) or 'none'}")
        return known[name]

    def check(self, *, fresh: bool = False) -> None:
        """Raise `Replaced` where another process has taken the place of a server on this machine; the death of somebody
        else's shows as errors in the trial."""
        self._kept_up.check(fresh=fresh)

    def stop(self) -> None:
        """Somebody else's server: it stays up."""
