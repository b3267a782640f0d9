"""Why a measurement does not count, and what to know of one that does."""

from __future__ import annotations

from loadtest.analysis.records.record import Record, Told
from loadtest.experiment.own_errors import Lack
from loadtest.experiment.records import ConnectionsLost, OtherProcess, ServerDied, ServerOutOfFiles


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
