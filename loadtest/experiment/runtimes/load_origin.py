"""Where the load comes from and who observes it: this machine, or (`kubernetes`) a cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from loadtest.experiment import environment, generator_process, observation
from loadtest.experiment.events import Event
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.records import Environment

if TYPE_CHECKING:
    from loadtest.experiment.meters import Meters


class LoadOrigin(Protocol):
    """What a run needs besides its servers. `settle_s`: after so long Prometheus has seen a trial's end."""

    settle_s: float

    def environment(self, cores: tuple[int, ...]) -> Environment:
        """The machine that the load comes from, for environment.json."""

    def prometheus(self, folder: Path, cores: tuple[int, ...]) -> Prometheus | None:
        """A Prometheus that sees servers and generator; None where there is none."""

    def meters(self, *, on_gpu: bool) -> Meters | None:
        """Those of the machine that the servers are on, not started yet; ``on_gpu``: its GPU's, too. None where they
        cannot be read from here."""

    def run_phases(self, job: LoadJob, *, on_event: Callable[[Event], None], check: Callable[[], None]) -> None:
        """See `generator_process.run_phases`."""


class ThisMachine:
    """The load comes from here."""

    settle_s = observation.SETTLE_S

    def environment(self, cores: tuple[int, ...]) -> Environment:
        """See `LoadOrigin`."""
        return environment.of_generator(cores)

    def prometheus(self, folder: Path, cores: tuple[int, ...]) -> Prometheus | None:
        """See `LoadOrigin`."""
        return observation.start(folder, cores)

    def meters(self, *, on_gpu: bool) -> Meters | None:
        """See `LoadOrigin`."""
        from loadtest.experiment import meters  # the load generator's image has no bindings of NVIDIA's

        found = meters.find(on_gpu=on_gpu)
        return found if found.any or found.gpus.asked else None

    run_phases = staticmethod(generator_process.run_phases)


THIS_MACHINE = ThisMachine()
