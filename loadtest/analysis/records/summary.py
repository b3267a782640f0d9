"""The whole of summary.json."""

from __future__ import annotations

from loadtest.analysis.records.asked import ExperimentInfo, TargetInfo
from loadtest.analysis.records.capacity import Capacity
from loadtest.analysis.records.decomposition import Decomposition
from loadtest.analysis.records.measurement import Measurement
from loadtest.analysis.records.parity import EncodedImages, Parity, WhyNotProven
from loadtest.analysis.records.record import FORMAT, Record, Told
from loadtest.analysis.records.verdict import Ranking, Verdict
from loadtest.experiment.records import Environment, RunNote
from models.bundle import Around, Kind, Weights
from serving.engines.engine import Backend
from serving.target import WhyStandIn


class NotMeasured(Told, frozen=True):
    """A target has no measurement in this run."""

    target: str


class StandIn(Told, frozen=True):
    """A target was measured on a stand-in inside this project: its speed says little about the production server.

    reason  why the production server did not run; None: the stand-in is what was asked for, or it is not known
    detail  what the system or a registry said of that
    """

    target: str
    engine: str
    engine_version: str | None
    stands_in_for: str
    reason: WhyStandIn | None = None
    detail: str = ""


class NotItsOwnBackend(Told, frozen=True):
    """A server computed with another backend than its own one for such a model, whose speed the figures say nothing
    of."""

    target: str
    engine: str
    backend: Backend


class TrialsMissing(Told, frozen=True):
    """So many of the planned trials are missing: the run is not complete."""

    missing: int
    planned: int


class NotFinished(Told, frozen=True):
    """The run was ended before its questions were decided or its budget was spent, after so many starts of each
    target."""

    starts: int


class MeasuredOnce(Told, frozen=True):
    """Each rate was measured once: intervals cover time within a trial, not repetition."""


class ParityNotProven(Told, frozen=True):
    """That all targets serve the same model is not proven."""

    why: WhyNotProven


SummaryWarning = (
    RunNote | NotMeasured | StandIn | NotItsOwnBackend | TrialsMissing | NotFinished | MeasuredOnce | ParityNotProven
)


class OwnFile(Record, frozen=True, kw_only=True):
    """A file, or folder, of the user's own model that was served.

    around  what Tandem's own graph does around it; empty: it was served as it came
    """

    name: str
    around: tuple[Around, ...] = ()


class Summary(Record, frozen=True, kw_only=True):
    """Everything that a run measured and what follows from it: summary.json.

    targets    in the experiment's order; ``rankings`` place them, ``verdicts`` compare each with each
    warnings   what a reader must know, the run's own first
    weights    model → where its weights come from, as far as the bundles tell
    own_files  the files of the user's own that were served in place of Tandem's exports
    encoded    the files that clients sent; None: tensors
    """

    format: int = FORMAT
    experiment: ExperimentInfo
    environment: Environment
    parity: Parity
    targets: tuple[TargetInfo, ...]
    measurements: tuple[Measurement, ...]
    capacity: tuple[Capacity, ...]
    decomposition: tuple[Decomposition, ...]
    verdicts: tuple[Verdict, ...]
    rankings: tuple[Ranking, ...]
    warnings: tuple[SummaryWarning, ...]
    weights: dict[str, Weights] = {}
    own_files: dict[Kind, OwnFile] = {}
    encoded: EncodedImages | None = None

    def target(self, name: str) -> TargetInfo:
        """A target by its name. Raises KeyError."""
        for target in self.targets:
            if target.name == name:
                return target
        raise KeyError(name)
