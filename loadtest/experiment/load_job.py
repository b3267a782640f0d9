"""A block of phases to put on one server, with all that the load generator has to know of it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from loadtest.experiment import phases as load_phases
from loadtest.experiment.phases import Phase, Plan, Traffic
from loadtest.experiment.settings import Generator
from models.problem import Problem
from serving.target import Target


class JobLost(Problem):
    """The load generator that ran a job is gone, and what took its place knows nothing of the job."""


class LoadJob(msgspec.Struct, frozen=True, kw_only=True):
    """One block of a run.

    target, reference  what is asked for, and its bundle's reference.npz
    mix                the models that its server is asked for, where these are several
    folder             receives the generator's plan and log; each phase has a folder of its own
    generator          the experiment's settings of it
    exporter_port      Prometheus exporter on loopback, 0 for none
    cores              CPUs of the generator, empty for any
    """

    target: Target
    reference: Path
    phases: tuple[Phase, ...]
    folder: Path
    generator: Generator = Generator()
    mix: tuple[Traffic, ...] = ()
    exporter_port: int = 0
    cores: tuple[int, ...] = ()

    @property
    def plan(self) -> Plan:
        """What the generator itself reads."""
        return Plan(
            target=self.target,
            reference=self.reference,
            phases=self.phases,
            mix=self.mix,
            payloads=self.generator.payloads,
            most_errors=self.generator.stop_error_ratio if self.target.is_endpoint else 1.0,
            exporter_port=self.exporter_port,
            cores=self.cores,
        )

    @property
    def longest_s(self) -> float:
        """Seconds after which its phases have surely failed to end."""
        return sum(phase.longest_s for phase in self.phases)

    def moved(self, old: Path, new: Path) -> LoadJob:
        """The same with all folders below `old` put below `new`. Raises ValueError for one that is not below it."""
        phases = load_phases.moved(self.phases, old, new)
        return msgspec.structs.replace(self, phases=phases, folder=new / self.folder.relative_to(old))
