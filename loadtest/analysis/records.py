"""The results of a run as typed records: what summary.json holds, whole, and what the report is made from.

Latencies are in milliseconds, rates in requests/s, times in seconds unless a name says otherwise (`at`, `started_at`:
Unix time), intervals are 95 %. What was decided is an enumeration or one of a union of records (told apart by
``type``); no field holds a sentence. `docs/summary.schema.json` is the JSON Schema of `Summary`; a change of what a
field means is a new `FORMAT`.
"""

from __future__ import annotations

import enum
import re
from typing import Any

import msgspec

from loadtest.experiment.boundary import Binding, Shape
from loadtest.experiment.meter_records import DeviceUse, Meter
from loadtest.experiment.own_errors import Lack
from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.records import (
    ConnectionsLost,
    Environment,
    FirstError,
    MedianAndTail,
    OtherProcess,
    Requests,
    RightAnswers,
    RunNote,
    ServerDied,
    ServerFigures,
    ServerOutOfFiles,
)
from loadtest.experiment.scenarios import section
from loadtest.experiment.settings import Slo
from models.bundle import Around, Kind, Weights, WhyLeftOut
from models.declaration import Preprocessing
from models.precision import Precision
from serving.engines.engine import Backend, Knob, Switch
from serving.target import Caveat, WhyStandIn

FORMAT = 3  # 2 had brackets for capacities, and goodput verdicts; 1, which had no number, held sentences

# [low, high]; an end is None where the data set no bound.
Interval = tuple[float | None, float | None]
# One value of a profile.
Setting = bool | int | float | str | None


def _tag(name: str) -> str:
    """A class' name as the value of ``type``: "SentLate" is "sent-late"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


class Record(msgspec.Struct, frozen=True):
    """Values that do not change."""


class Told(msgspec.Struct, frozen=True, tag=_tag):
    """One of a union; ``type`` says which."""


class Estimate(Record, frozen=True):
    """A figure with its interval; ``ci95`` is None where there is nothing to base one on."""

    value: float | None
    ci95: Interval | None


# --- what was asked, where, and of what ---


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


# --- whether all targets serve the same model ---


class Doubt(Told, frozen=True, kw_only=True):
    """Why parity is not proven. ``model``: of which of several models, else empty; ``run``: in which of two runs."""

    model: str = ""
    run: str = ""


class NoExportParity(Doubt, frozen=True, kw_only=True):
    """The bundle's manifest holds no parity figures."""


class NotCompared(Doubt, frozen=True, kw_only=True):
    """A target's answers over a protocol were not compared with the reference."""

    target: str
    protocol: str


class ExportDiffers(Doubt, frozen=True, kw_only=True):
    """An export differs from the reference by more than is allowed; ``difference``: None where it is not a number."""

    export: str
    difference: float | None
    allowed: float


class AnswersDiffer(Doubt, frozen=True, kw_only=True):
    """A target's answers over a protocol differ from the reference by more than is allowed."""

    target: str
    protocol: str
    difference: float | None
    allowed: float


class AnswersUnchecked(Doubt, frozen=True, kw_only=True):
    """Any answer that was no error counted as right: nothing was compared."""


WhyNotProven = AnswersUnchecked | NoExportParity | NotCompared | ExportDiffers | AnswersDiffer


class ExportParity(Record, frozen=True, kw_only=True):
    """A form of the model against eager PyTorch, on the whole test split. The reference itself has an accuracy only."""

    accuracy: float | None = None
    max_abs_diff: float | None = None
    top1_agreement: float | None = None
    is_reference: bool = False


class FromFp32(Record, frozen=True, kw_only=True):
    """Eager PyTorch at a run's precision against itself in float32, on the whole test split."""

    max_abs_diff: float
    top1_agreement: float


class WireParity(Record, frozen=True, kw_only=True):
    """A running server's answers over one protocol against the reference.

    disagreements  (expected class, answered class, times), where best classes differed
    examples       index of a kept sample → (best class, its probability)
    """

    max_abs_diff: float | None = None
    top1_agreement: float | None = None
    samples: int | None = None
    disagreements: tuple[tuple[int, int, int], ...] = ()
    examples: dict[str, tuple[int, float]] = {}


class Parity(Record, frozen=True, kw_only=True):
    """The evidence that all targets serve the same model, and whether it is complete.

    right         which answers counted as right; a difference from others than the reference is, of a value above 1, a
                  share of it
    tolerance     the largest difference of a probability that is allowed
    samples       of the test split, through every export; `wire_samples`: through every server
    exports       form → its figures; `wire`: target → protocol → its figures. Empty where there are several models
    left_out      form → why it could not be asked; `from_fp32`: how far the reference lies from itself in float32, None
                  where that is what it is, or is not known. Empty where there are several models
    max_abs_diff  the largest over all exports, targets and protocols; None where nothing was compared
    by_model      the evidence of each of several models; empty where there is one
    """

    tolerance: float
    samples: int | None
    wire_samples: int | None
    exports: dict[str, ExportParity]
    wire: dict[str, dict[str, WireParity]]
    max_abs_diff: float | None
    proven: bool
    why_not_proven: tuple[WhyNotProven, ...]
    right: RightAnswers = RightAnswers.REFERENCE
    left_out: dict[str, WhyLeftOut] = {}
    from_fp32: FromFp32 | None = None
    by_model: dict[str, Parity] = {}


# --- measurements ---


class SentLate(Told, frozen=True):
    """The generator sent late: its schedule slip (p99) against what is allowed, and the share of the machine's CPU time
    that its host gave to others meanwhile."""

    slip_p99_ms: float
    allowed_ms: float
    cpu_stolen: float


class SlipUnknown(Told, frozen=True):
    """The generator did not record its slip, so it cannot prove that it kept its schedule."""


class ArrivalsDropped(Told, frozen=True):
    """Arrivals that were dropped because so many requests were already in flight."""

    dropped: int
    max_in_flight: int | None


class WrongAnswers(Told, frozen=True):
    """Answers that were wrong, of those that were checked."""

    wrong: int
    checked: int | None


class NoAnswer(Told, frozen=True):
    """No request was answered correctly, so there is no latency."""


class UnsteadyWarmUp(Told, frozen=True):
    """The warm-up was not steady when it reached its cap, so a warming server was measured."""

    cap_s: float | None


class OthersOnCores(Told, frozen=True):
    """Other programs used so large a share of the server's or of the generator's cores' time, the larger of the two;
    ``by``: those that used most; ``cpu_stolen``: the share of the machine's CPU time that its host gave to others."""

    share: float
    allowed: float
    by: tuple[OtherProcess, ...] = ()
    cpu_stolen: float = 0.0


class GeneratorOutOf(Told, frozen=True):
    """So many requests failed because the generator's own machine had none of this left."""

    lack: Lack
    requests: int


class HeldUp(Told, frozen=True):
    """A control group stopped the generator so often until its next period, for so many seconds in all."""

    periods: int
    seconds: float


WhyInvalid = (
    SentLate
    | SlipUnknown
    | OthersOnCores
    | GeneratorOutOf
    | HeldUp
    | ArrivalsDropped
    | WrongAnswers
    | ServerDied
    | ServerOutOfFiles
    | NoAnswer
    | UnsteadyWarmUp
)


class TrialRepeated(Told, frozen=True):
    """The trial was repeated, because the generator had sent late, the slip (p99) of each attempt put aside, or because
    other programs had used its cores: the share of their time in each."""

    slips_p99_ms: tuple[float, ...]
    others: tuple[float, ...] = ()


class WarmUpRepeated(Told, frozen=True):
    """The warm-up was repeated: so many attempts did not get steady."""

    attempts: int


class NotSettled(Told, frozen=True):
    """The latency had not settled when the warm-up ended: a server that gets faster yet was measured."""


class BusyGenerator(Told, frozen=True):
    """The generator used so much of its core, a share."""

    share: float


class ArrivalsDiffer(Told, frozen=True):
    """The requests did not leave as the arrival process that was asked for: the gaps between them lie this far from its
    own, where so much is allowed (see `experiment.records.ArrivalsCheck`)."""

    process: str
    distance: float
    allowed: float


class ServerHeldUp(Told, frozen=True):
    """A control group of the server's alone stopped it so often until its next period, for so many seconds in all."""

    periods: int
    seconds: float


Notice = TrialRepeated | WarmUpRepeated | NotSettled | BusyGenerator | ArrivalsDiffer | ConnectionsLost | ServerHeldUp


class Fault(Record, frozen=True):
    """Why a measurement is not valid, and the repetitions (from 1) that it holds for."""

    repetitions: tuple[int, ...]
    reason: WhyInvalid


class Caution(Record, frozen=True):
    """What a reader should know of a measurement that counts all the same, and the repetitions that it holds for;
    none where it is of all of them together."""

    repetitions: tuple[int, ...]
    reason: Notice


class Percentiles(Record, frozen=True, kw_only=True):
    """Latencies in milliseconds from the merged histogram; None where nothing was answered. Also by name:
    ``latency_ms["p99"]``."""

    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None

    def __getitem__(self, name: str) -> float | None:
        value: float | None = getattr(self, name)
        return value


class Intervals(Record, frozen=True, kw_only=True):
    """The 95 % intervals of a measurement's figures; None where there is none. Also by name: ``ci95["p99"]``."""

    p50: tuple[float, float] | None = None
    p90: tuple[float, float] | None = None
    p95: tuple[float, float] | None = None
    p99: tuple[float, float] | None = None
    p999: tuple[float, float] | None = None
    max: tuple[float, float] | None = None
    achieved_rate: tuple[float, float] | None = None
    goodput: tuple[float, float] | None = None

    def __getitem__(self, name: str) -> tuple[float, float] | None:
        bounds: tuple[float, float] | None = getattr(self, name)
        return bounds


class Slip(Record, frozen=True, kw_only=True):
    """The generator's schedule slip in milliseconds, the largest over the repetitions."""

    p99: float | None = None
    max: float | None = None


class ModelFigures(Record, frozen=True, kw_only=True):
    """What one of several models did in a measurement: its share of the requests, p50 and p99, and errors by kind."""

    share: float
    requests: Requests
    latency_ms: MedianAndTail
    errors: dict[str, int]


class Energy(Record, frozen=True, kw_only=True):
    """Joules for 1,000 images that were answered rightly, as one meter of the servers' machine says.

    joules       whole; `above_idle`: without what the machine draws when no server runs (`idle_w`, watts), None where
                 that was not measured
    least, most  of the repetitions; above idle, where that is known
    """

    meter: Meter
    joules: float
    above_idle: float | None
    idle_w: float | None
    least: float
    most: float


class Measurement(Record, frozen=True, kw_only=True):
    """All repetitions of one load on one target over one protocol.

    offered_rate   requests/s; 0 for a closed loop
    batch          images in one request
    achieved_rate  ok answers over the measured time and the backlog that grew in it; `images_per_s` likewise
    goodput        ok answers within the SLO's latency
    errors         kind → how many; `error_ratio`: of the requests that were sent; `first_error`: the first answer that
                   was one, of the earliest repetition that has any
    few_samples    percentiles with fewer than ten answers beyond them, which are not compared
    duration_s     measured, over all repetitions
    in_flight_max, generator_cpu, cpu_stolen, others  the largest over the repetitions; the latter three are shares, the
                   last of the cores' time that other programs used
    warm_up_throughput  requests/s of the closed loop before each repetition
    trials, spoiled     folders of the repetitions, and of attempts that the generator spoiled
    recovery_s     spike: for each repetition, seconds from its end until p99 of every later second meets the SLO (0: it
                   was never missed after; None: it never met it again)
    drift_p50, drift_p99  soak: the percentile in the last quarter of the time over that in the first
    devices        what GPU and CPUs did in each repetition of which that is known; `energy`: of each meter
    by_model       empty where there is one model
    """

    target: str
    protocol: str
    scenario: str
    offered_rate: float
    engine: str | None
    engine_version: str | None
    batch: int
    achieved_rate: float
    goodput: float
    images_per_s: float
    latency_ms: Percentiles
    ci95: Intervals
    requests: Requests
    errors: dict[str, int]
    error_ratio: float
    schedule_slip_ms: Slip
    valid: bool
    why_not_valid: tuple[Fault, ...]
    cautions: tuple[Caution, ...]
    few_samples: tuple[str, ...]
    repetitions: int
    duration_s: float
    in_flight_max: int | None
    generator_cpu: float | None
    cpu_stolen: float | None
    warm_up_throughput: tuple[float | None, ...]
    server: tuple[ServerFigures, ...]
    trials: tuple[str, ...]
    spoiled: tuple[str, ...]
    recovery_s: tuple[int | None, ...] | None = None
    drift_p50: float | None = None
    drift_p99: float | None = None
    by_model: dict[str, ModelFigures] = {}
    others: float | None = None
    first_error: FirstError | None = None
    devices: tuple[DeviceUse, ...] = ()
    energy: tuple[Energy, ...] = ()


# --- capacity ---


class WhyOpen(enum.Enum):
    """Why an end of a capacity's interval is open, and which: an end's `OpenEnd.rate` is the rate that is meant.

    NOTHING_VALID     both: no trial is valid (no rate)
    NO_RATE_MET       the lower: no rate from this one on met the SLO
    NO_RATE_MISSED    the upper: no rate up to this one missed the SLO
    """

    NOTHING_VALID = "nothing-valid"
    NO_RATE_MET = "no-rate-met"
    NO_RATE_MISSED = "no-rate-missed"


class OpenEnd(Record, frozen=True):
    """An open end of a capacity's interval (see `WhyOpen`)."""

    why: WhyOpen
    rate: float | None = None


class StartCapacity(Record, frozen=True, kw_only=True):
    """What one start of a server (its `repetition`) says of the capacity: requests/s, its own interval, and the folders
    of the trials that say it."""

    repetition: int
    rate: float
    ci95: tuple[float, float]
    trials: tuple[str, ...]


class Capacity(Record, frozen=True, kw_only=True):
    """The highest rate of a target over a protocol that meets the SLO, requests/s.

    scenario     "capacity" where it was searched for, else "ladder": then it is one of the ladder's rates
    max_rate     of a search the geometric mean of the starts; of a ladder its highest rate that meets the SLO. None
                 where no tested rate does
    ci95         of all starts that there could be; of a ladder between its rates. An end is None where no tested rate
                 sets a bound; `open_ends` says why
    starts       each start's own figure; empty for a ladder
    spread       the standard deviation of starts on a log scale (0.1: some 10 %); None for fewer than two
    binding      what misses the SLO above it; `shape`: whether latency climbs to the SLO or jumps over it
    """

    target: str
    protocol: str
    scenario: str
    slo: Slo
    max_rate: float | None
    ci95: Interval
    starts: tuple[StartCapacity, ...] = ()
    spread: float | None = None
    binding: Binding = Binding.NONE
    shape: Shape = Shape.UNKNOWN
    open_ends: tuple[OpenEnd, ...] = ()
    tested_rates: tuple[float, ...] = ()


# --- where the time goes ---


class Untold(enum.Enum):
    """Why a part of the latency is not known, or only within limits.

    QUEUE          the server does not report how long a request waits for its batch
    BATCH          the server does not report how large its batches are, so the model's time is not known
    MODEL          the model alone was not measured (`Decomposition.model_problem` says why, where it was tried)
    UNEVEN         the model alone took longer than inside the server: the machine was not equally fast twice
    """

    QUEUE = "queue"
    BATCH = "batch"
    MODEL = "model"
    UNEVEN = "uneven"


class Parts(Record, frozen=True, kw_only=True):
    """Milliseconds of the mean latency (see `loadtest.analysis.decomposition`); None where nobody can tell. Also by
    name: ``parts_ms["queue"]``."""

    model: float | None = None
    queue: float | None = None
    runtime: float | None = None
    transport: float | None = None

    def __getitem__(self, name: str) -> float | None:
        value: float | None = getattr(self, name)
        return value


class Decomposition(Record, frozen=True, kw_only=True):
    """Where the mean latency of a measurement goes; ``batch_size_mean``: the server's mean batch, images."""

    target: str
    protocol: str
    scenario: str
    offered_rate: float
    parts_ms: Parts
    total_ms: float
    batch_size_mean: float | None
    cannot_report: tuple[Untold, ...] = ()
    model_problem: str | None = None


# --- verdicts ---


class Outcome(enum.Enum):
    """How a verdict came out. Only WINNER names one.

    no ratio:
    NO_COMMON_RATE       the two were not both measured at that rate
    NO_VALID_RATE        no start of one of them is valid there
    NO_RATE_MET_SLO      `because_of` met the SLO at no rate that was tried
    TOO_FEW_ANSWERS      fewer than ten answers of `because_of` lie beyond the percentile

    a ratio, but:
    NO_DIFFERENCE_SHOWN  its interval includes 1
    NOT_AFTER_CORRECTION its interval excludes 1, but not after correction for the run's questions and looks
    ONE_START_ONLY       one of the two was measured on one start, so nothing tells how far starts lie apart
    TOO_MANY_ERRORS      `because_of` failed more requests than the SLO allows (`error_ratios`)
    PARITY_NOT_PROVEN    the servers are not proven to serve the same model
    """

    WINNER = "winner"
    NO_COMMON_RATE = "no-common-rate"
    NO_VALID_RATE = "no-valid-rate"
    NO_RATE_MET_SLO = "no-rate-met-slo"
    TOO_FEW_ANSWERS = "too-few-answers"
    NO_DIFFERENCE_SHOWN = "no-difference-shown"
    NOT_AFTER_CORRECTION = "not-after-correction"
    ONE_START_ONLY = "one-start-only"
    TOO_MANY_ERRORS = "too-many-errors"
    PARITY_NOT_PROVEN = "parity-not-proven"


class Needed(Record, frozen=True, kw_only=True):
    """What would decide a question that is open: so many ``starts`` more of each target, some ``seconds`` in all (None
    where the run does not tell), would find a difference of ``effect`` (a ratio above 1) four times in five."""

    effect: float
    starts: int
    seconds: float | None


class Verdict(Record, frozen=True, kw_only=True):
    """The answer to one question about two targets over a protocol.

    family        its place in the sequence of questions (see `loadtest.experiment.decision`)
    compared      (first, second)
    offered_rate  requests/s at which they are compared; None for a capacity
    figures       of the first and of the second, each the geometric mean of its starts: capacity (requests/s), or p99
                  (ms) of a start; None without a verdict
    ratio         first / second, with ``ci95`` of it; None where there is no verdict
    starts        of the target that has fewer
    p_value       None where there is nothing to base one on; `p_adjusted`: after correction for all questions and looks
    error         the share of wrong winners that its test may have, after what other questions leave to it
    detectable    without a winner: the ratio (above 1) that this run would have found four times in five; None where it
                  would have found none up to 100
    needed        without a winner: what would decide it
    because_of    the targets that keep a winner from being named (see `Outcome`); `error_ratios`: their failed requests
    """

    family: Family
    protocol: str
    metric: Metric
    compared: tuple[str, str]
    outcome: Outcome
    winner: str | None = None
    offered_rate: float | None = None
    figures: tuple[Estimate, Estimate] | None = None
    ratio: float | None = None
    ci95: tuple[float, float] | None = None
    starts: int = 0
    p_value: float | None = None
    p_adjusted: float | None = None
    error: float | None = None
    detectable: float | None = None
    needed: Needed | None = None
    because_of: tuple[str, ...] = ()
    error_ratios: dict[str, float] = {}

    @property
    def has_ratio(self) -> bool:
        """Whether the two were compared at all."""
        return self.figures is not None

    @property
    def shows_no_difference(self) -> bool:
        """Whether they were compared fairly and no difference was shown."""
        return self.outcome in (Outcome.NO_DIFFERENCE_SHOWN, Outcome.NOT_AFTER_CORRECTION)

    @property
    def loser(self) -> str | None:
        """The other one, where there is a winner."""
        return None if self.winner is None else self.compared[self.compared[0] == self.winner]


class Standing(Record, frozen=True, kw_only=True):
    """A target's place in a `Ranking`: 1 + how many targets a verdict names the winner over it (``behind``); None where
    it was compared with none. Targets that were not told apart share a place."""

    target: str
    place: int | None
    behind: tuple[str, ...]


class Ranking(Record, frozen=True, kw_only=True):
    """All targets over a protocol by one metric, the best first; of one place in the run's order."""

    protocol: str
    metric: Metric
    standings: tuple[Standing, ...]


# --- the whole ---


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

    def target(self, name: str) -> TargetInfo:
        """A target by its name. Raises KeyError."""
        for target in self.targets:
            if target.name == name:
                return target
        raise KeyError(name)


# --- two runs ---


class Subject(enum.Enum):
    """What a difference between two runs is of."""

    EXPERIMENT = "experiment"
    ENVIRONMENT = "environment"
    TARGET = "target"
    MODEL = "model"


class Difference(Record, frozen=True, kw_only=True):
    """Something that is not measured and not the same in two runs.

    of        the target or the model, empty for experiment and environment
    key       what differs, dotted ("ladder.duration_s"); of a model: the file whose sha256 (its start) is given
    baseline, this  the value in each run, None where it has none
    """

    subject: Subject
    of: str = ""
    key: str
    baseline: Any
    this: Any


class NoCommonRate(Told, frozen=True):
    """A target was measured at no rate that both runs share, so only the capacities can be compared."""

    target: str


class LeftOut(Told, frozen=True):
    """A target was not measured in both runs and is left out."""

    target: str


class SlosDiffer(Told, frozen=True):
    """The runs had different SLOs: both are judged by that of the newer one, "this run"."""


class ModelsDiffer(Told, frozen=True):
    """The runs served different model files: what is compared is not the server alone."""


class PrecisionsDiffer(Told, frozen=True):
    """A target computed in another precision: what is compared is that, of the same weights where nothing else is said
    of the models."""

    target: str
    baseline: Precision
    this: Precision


ComparisonWarning = NoCommonRate | LeftOut | SlosDiffer | ModelsDiffer | PrecisionsDiffer


class RunInfo(Record, frozen=True, kw_only=True):
    """One of two runs: the name of its folder, its experiment's name, and when it started."""

    folder: str
    experiment: str | None
    started_at: float | None


class RunComparison(Record, frozen=True, kw_only=True):
    """A run against a baseline. ``comparisons``: target → a summary in which the two runs stand as targets (see
    `loadtest.analysis.two_runs`)."""

    format: int = FORMAT
    this: RunInfo
    baseline: RunInfo
    comparisons: dict[str, Summary]
    differences: tuple[Difference, ...]
    warnings: tuple[ComparisonWarning, ...]


# --- a gate: a run against a baseline ---


class GateOutcome(enum.Enum):
    """Whether a run is worse than a baseline by more than a tolerance.

    WORSE        its interval is wholly beyond the tolerance, and not by chance among all that the gate asks
    NO_WORSE     its interval is wholly below the tolerance
    NOT_DECIDED  neither, or it may not be said: `Undecided` says why
    """

    WORSE = "worse"
    NO_WORSE = "no-worse"
    NOT_DECIDED = "not-decided"


class Undecided(enum.Enum):
    """Why a gate's question is open.

    TOLERANCE_WITHIN  the interval holds the tolerance: more starts would tell
    MAY_BE_CHANCE     it lies beyond the tolerance, but as many questions as the gate asks may show that by chance
    TOO_FEW_STARTS    one of the runs has fewer than two valid starts
    TOO_FEW_ANSWERS   fewer than ten answers of one of the runs lie beyond the percentile
    NO_VALID_RATE     one of the measurements broke a rule of measurement, or this run has none any more
    NO_RATE_MET_SLO   the baseline met the SLO at no rate, so there is nothing to be worse than
    TOO_MANY_ERRORS   it is no worse, but fails more requests than the SLO allows
    PARITY_NOT_PROVEN it is no worse, but is not proven to serve the right model
    """

    TOLERANCE_WITHIN = "tolerance-within"
    MAY_BE_CHANCE = "may-be-chance"
    TOO_FEW_STARTS = "too-few-starts"
    TOO_FEW_ANSWERS = "too-few-answers"
    NO_VALID_RATE = "no-valid-rate"
    NO_RATE_MET_SLO = "no-rate-met-slo"
    TOO_MANY_ERRORS = "too-many-errors"
    PARITY_NOT_PROVEN = "parity-not-proven"


class GateQuestion(Record, frozen=True, kw_only=True):
    """Whether a target's run is worse than its baseline's, in its capacity over a protocol or in p99 at one rate.

    offered_rate    requests/s; None for a capacity
    baseline, this  the geometric means of the starts: requests/s, or milliseconds; None where there is none
    ratio           how many times worse this run is: baseline / this of capacities, this / baseline of p99. 1 is equal
    at_least        with 95 % confidence; so `at_most` (see `loadtest.analysis.regression`)
    tolerance       how many times worse it may be
    starts          of the run that has fewer
    why             where it is not decided
    needed          where the tolerance is within: on how many starts of each run such a ratio would be decided four
                    times in five; None where a thousand would not do
    """

    target: str
    protocol: str
    metric: Metric
    outcome: GateOutcome
    tolerance: float
    offered_rate: float | None = None
    baseline: float | None = None
    this: float | None = None
    ratio: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    starts: int = 0
    why: Undecided | None = None
    needed: int | None = None


class Gate(Record, frozen=True, kw_only=True):
    """A run judged against a baseline, question by question; ``warnings``: what a reader must know of the two."""

    this: RunInfo
    baseline: RunInfo
    outcome: GateOutcome
    questions: tuple[GateQuestion, ...]
    warnings: tuple[ComparisonWarning, ...] = ()
