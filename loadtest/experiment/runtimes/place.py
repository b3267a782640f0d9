"""Where the load comes from and who observes it: this machine, or (`kubernetes`) a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from loadtest.experiment import environment, generator_process, observation
from loadtest.experiment.file import Generator
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.phases import Traffic
from serving.target import Target


class Place(Protocol):
    """What a run needs besides its servers. `settle_s`: after so long Prometheus has seen a trial's end."""

    settle_s: float

    def environment(self, cores: tuple[int, ...]) -> dict[str, Any]:
        """The machine that the load comes from, for environment.json."""

    def prometheus(self, folder: Path, cores: tuple[int, ...]) -> Prometheus | None:
        """A Prometheus that sees servers and generator; None where there is none."""

    def run_phases(
        self,
        target: Target,
        reference: Path,
        phases: Sequence[dict[str, Any]],
        *,
        mix: Sequence[Traffic] = (),
        folder: Path,
        generator: Generator,
        exporter_port: int,
        cores: tuple[int, ...],
        on_event: Callable[[dict[str, Any]], None],
        check: Callable[[], None],
    ) -> None:
        """See `generator_process.run_phases`."""


class Here:
    """This machine."""

    settle_s = observation.SETTLE_S

    def environment(self, cores: tuple[int, ...]) -> dict[str, Any]:
        """See `Place`."""
        return {**environment.describe(), **environment.punctuality(cores)}

    def prometheus(self, folder: Path, cores: tuple[int, ...]) -> Prometheus | None:
        """See `Place`."""
        return observation.start(folder, cores)

    run_phases = staticmethod(generator_process.run_phases)


HERE = Here()
