"""What was asked, of which targets, and what these really were."""

from __future__ import annotations

from typing import Any

import msgspec

from loadtest.analysis.records.record import Record, Setting
from loadtest.experiment.scenarios import section
from loadtest.experiment.settings import Slo
from models.declaration import Preprocessing
from models.encoding import Encoding
from models.precision import Precision
from serving.engines.engine import Backend, Knob, Switch
from serving.target import Caveat


class LadderInfo(Record, frozen=True, kw_only=True):
    """The rates at which latencies are compared: requests/s by protocol, for ``duration_s`` on each start.

    rate            the user's own, which is the main one; 0: none
    overload_rates  by protocol, one that is measured once and not compared
    repetitions     on how many starts; 0: until the questions are decided
    """

    rates: dict[str, tuple[float, ...]] = {}
    rate: float = 0.0
    overload_rates: dict[str, float] = {}
    repetitions: int | None = None
    duration_s: float | None = None
    arrival: str = "poisson"
    batch: int = 1


class Cost(Record, frozen=True, kw_only=True):
    """The price of a node for an hour, its currency, and the images/s that are expected; 0: not known."""

    price_per_hour: float = 0.0
    currency: str = "USD"
    expected_rate: float = 0.0


class ExperimentInfo(Record, frozen=True, kw_only=True):
    """The experiment as resolved. What a run did not save is None or empty.

    models    the models that each server holds, and their shares of the requests; empty where it is one
    checkpoint, images, classes, savedmodel, torchscript, onnx  what the user brought as files and folders; empty where
              none
    input, output, preprocessing  what was said of the images, and of what the model gives; empty where nothing was
    encoding  what clients sent of an image
    targets   their names, in the experiment's order
    profile   the serving profile shared by the targets; `overrides`: target → what differs from it there
    slo       with the defaults filled in
    ladder    None where no rates were fixed
    sections  the experiment file's other sections as they stand there: scenarios, warm-up, generator, …
    """

    name: str | None = None
    model: str | None = None
    models: dict[str, float] = {}
    dataset: str | None = None
    checkpoint: str = ""
    images: str = ""
    classes: str = ""
    input: str = ""
    output: str = ""
    preprocessing: Preprocessing = msgspec.field(default_factory=Preprocessing)
    encoding: Encoding = Encoding.NONE
    savedmodel: str = ""
    torchscript: str = ""
    onnx: str = ""
    targets: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    runtime: str | None = None
    seed: int = 0
    scenarios: tuple[str, ...] = ("ladder",)
    profile: dict[str, Setting] = {}
    overrides: dict[str, dict[str, Setting]] = {}
    slo: Slo = msgspec.field(default_factory=Slo)
    ladder: LadderInfo | None = None
    cost: Cost = msgspec.field(default_factory=Cost)
    sections: dict[str, Any] = {}

    @property
    def ladder_asked(self) -> LadderInfo:
        """The ladder that was to be climbed; one without rates where none was."""
        return (self.ladder if "ladder" in self.scenarios else None) or LadderInfo()

    @property
    def is_fixed(self) -> bool:
        """Whether the starts to compare were so many from the beginning, whatever they would show."""
        search = self.sections.get("capacity") or {}
        asked = {"ladder": self.ladder_asked.repetitions, "capacity": search.get("repetitions")}
        return all(asked[name] for name in self.scenarios if name in asked)

    def images_of(self, scenario: str) -> int:
        """Images in one request of a scenario."""
        if scenario == "ladder":
            return self.ladder.batch if self.ladder else 1
        return int((self.sections.get(section(scenario)) or {}).get("batch", 1))


class ModelShare(Record, frozen=True, kw_only=True):
    """One of several models of a server: its version, and its share of the requests."""

    name: str
    version: int | str | None
    share: float


class TargetInfo(Record, frozen=True, kw_only=True):
    """A target: what it is called and what really answered.

    engine          the engine's id; ``stands_in_for``: of the engine in whose place it was measured, None where it is
                    the one that was asked for
    models          where the server holds several
    knobs           what the server was really given
    switches        of its numerical libraries, as they were in force when it was last started; empty: not recorded
    precision       what its model computed in
    backend         what computed behind it, where the engine has several ways to
    caveats         what else is not as it seems
    output          the output of its answers that was judged, where its model has several; empty: the only one
    measured        whether the run holds a trial of it
    """

    name: str
    engine: str | None = None
    engine_version: str | None = None
    stands_in_for: str | None = None
    runtime: str | None = None
    model: str | None = None
    version: int | str | None = None
    models: tuple[ModelShare, ...] = ()
    cores: tuple[int, ...] = ()
    knobs: tuple[Knob, ...] = ()
    switches: tuple[Switch, ...] = ()
    backend: Backend | None = None
    precision: Precision = Precision.FP32
    caveats: tuple[Caveat, ...] = ()
    output: str = ""
    measured: bool = False
