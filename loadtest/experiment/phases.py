"""What the load generator is to do, typed: phases of load, and the plan of them that it reads from a JSON file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from loadtest.experiment.arrival_shape import PROCESSES, Shape
from loadtest.experiment.early_stopping import LONGEST_S, lasting_s
from loadtest.experiment.staircase import HIGHEST_RATE
from models import whole_file
from models.problem import Problem
from serving.target import PROTOCOLS, Target

# How long each chunk of a warm-up's open load is.
SETTLING_CHUNK_S = 1.0
# A trial of a search tells a server that does its rate from one that lacks so much of it, a share.
OVERSHOOT = 0.05
# How often a search makes a trial of one rate that says nothing of the server.
MOST_ATTEMPTS = 2

Above0 = Annotated[float, msgspec.Meta(gt=0)]
AtLeast1 = Annotated[int, msgspec.Meta(ge=1)]


class _Phase(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="kind"):
    """What all phases have: a name, and the folder that its results are written to, whole."""

    id: str
    folder: Path


class WarmUpPhase(_Phase, frozen=True, kw_only=True, tag="warm-up"):
    """A closed loop at `concurrency` until successive windows of `window_s` agree within `tolerance`, for at least
    `min_s` and at most `max_s` seconds; `retries` times more where they did not. Then open load for at most `settle_s`
    seconds, until its latency agrees, too, and `min_requests` have been sent in all (see `settling`); with a `settle_s`
    of 0 the closed loop goes on until so many were answered, or `max_s`. `most_rate`: at most so many requests/s; 0: as
    many as are answered."""

    protocol: str
    seed: int
    concurrency: AtLeast1 = 32
    window_s: Above0 = 0.5
    min_s: float = 2.0
    max_s: Above0 = 20.0
    tolerance: Above0 = 0.05
    timeout_s: Above0 = 10.0
    batch: AtLeast1 = 1
    retries: int = 0
    settle_s: float = 0.0
    min_requests: int = 0
    most_rate: float = 0.0

    def __post_init__(self) -> None:
        _known_protocol(self.protocol)

    @property
    def expected_s(self) -> float:
        """Seconds that it will probably take, without overheads."""
        if self.min_requests and not self.settle_s:
            return (self.min_s + self.max_s) / 2
        return self.min_s + min(self.settle_s, 4 * SETTLING_CHUNK_S)

    @property
    def longest_s(self) -> float:
        """Seconds after which it has surely failed to end."""
        return (self.max_s + 30) * (1 + self.retries) + 2 * self.settle_s + 30


class OpenLoopPhase(_Phase, frozen=True, kw_only=True, tag="open-loop"):
    """Requests on a schedule fixed before the start: `rate` requests/s for `duration_s` seconds, after `lead_in_s`
    seconds at the same rate that are not counted. `arrival` names the process and `arrivals` shapes it. `check_share`
    of the answers are compared with the reference. A trial that the generator spoils is repeated `retries` times.
    `limit_ms` is the SLO's latency, beyond which an answer is late; None: late ones are not counted. It is given up
    once its p99 cannot be within `hopeless_ms` any more, whatever follows; None: never."""

    protocol: str
    seed: int
    rate: Above0
    duration_s: Above0
    scenario: str = "ladder"
    arrival: str = "poisson"
    arrivals: Shape = msgspec.field(default_factory=Shape)
    lead_in_s: float = 1.0
    limit_ms: Above0 | None = None
    hopeless_ms: Above0 | None = None
    max_in_flight: AtLeast1 = 1024
    timeout_s: Above0 = 10.0
    check_share: float = 0.05
    repetition: int = 1
    batch: AtLeast1 = 1
    warm_up: str | None = None
    retries: int = 0

    def __post_init__(self) -> None:
        _known_protocol(self.protocol)
        if self.arrival not in PROCESSES:
            raise ValueError(f"arrival = {self.arrival!r}: use one of {', '.join(PROCESSES)}")

    @property
    def expected_s(self) -> float:
        """Seconds that it will probably take, without overheads."""
        return self.lead_in_s + self.duration_s

    @property
    def longest_s(self) -> float:
        """Seconds after which it has surely failed to end."""
        return (self.expected_s + self.timeout_s + 30) * (1 + self.retries)


class ClosedLoopPhase(_Phase, frozen=True, kw_only=True, tag="closed-loop"):
    """`concurrency` requests in flight for `duration_s` seconds, after `lead_in_s` that are not counted. A request is
    due when it is sent, so its latency says nothing of waiting before that: for single-stream and offline only.
    `most_rate`: at most so many requests/s; 0: as many as are answered."""

    protocol: str
    seed: int
    scenario: str
    duration_s: Above0
    concurrency: AtLeast1 = 1
    lead_in_s: float = 1.0
    timeout_s: Above0 = 10.0
    check_share: float = 0.05
    repetition: int = 1
    batch: AtLeast1 = 1
    warm_up: str | None = None
    most_rate: float = 0.0

    def __post_init__(self) -> None:
        _known_protocol(self.protocol)

    @property
    def expected_s(self) -> float:
        """Seconds that it will probably take, without overheads."""
        return self.lead_in_s + self.duration_s

    @property
    def longest_s(self) -> float:
        """Seconds after which it has surely failed to end."""
        return self.expected_s + self.timeout_s + 30


class SearchPhase(_Phase, frozen=True, kw_only=True, tag="search"):
    """A search for the highest rate that meets `p99_ms` and `error_ratio`, by trials like `trial` at other rates, the
    first around the trial's rate (see `staircase`).

    trials     the folder in which each trial gets its own
    most       so many trials at most; `precision`: fewer where the capacity is known this well before
    most_rate  none of them at more requests/s; 0: at whatever rate tells the most
    """

    trials: Path
    trial: OpenLoopPhase
    p99_ms: Above0
    error_ratio: float
    most: AtLeast1
    precision: Above0
    most_rate: float = 0.0

    @property
    def protocol(self) -> str:
        """The protocol of its trials."""
        return self.trial.protocol

    @property
    def expected_s(self) -> float:
        """Seconds that it will probably take, without overheads: most end after half of their trials, sure enough."""
        return max(1.0, self.most / 2) * (self.trial.lead_in_s + self.lasting_s(self.trial.rate))

    def lasting_s(self, rate: float) -> float:
        """Measured seconds of a trial at a rate: so long that a server which is asked for `OVERSHOOT` more than it can
        do shows it, because as much work piles up as the SLO allows, and that one which is not can prove p99."""
        piled_up_s = self.p99_ms / 1000 / OVERSHOOT
        return lasting_s(rate, max(self.trial.duration_s, piled_up_s))

    @property
    def longest_s(self) -> float:
        """Seconds after which it has surely failed to end."""
        longest = self.trial.longest_s + max(LONGEST_S, self.lasting_s(HIGHEST_RATE))
        return MOST_ATTEMPTS * self.most * longest


TrialPhase = OpenLoopPhase | ClosedLoopPhase
"""A phase that is one trial."""

LoadPhase = WarmUpPhase | OpenLoopPhase | ClosedLoopPhase
"""A phase that puts one kind of load on the target."""

Phase = WarmUpPhase | OpenLoopPhase | ClosedLoopPhase | SearchPhase


class Traffic(msgspec.Struct, frozen=True):
    """One model's part of the requests: where they go, the bundle's reference.npz, and which share of all it is."""

    target: Target
    reference: Path
    share: float = 1.0


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Phases against one server.

    target, reference  what is asked for, and the bundle's reference.npz
    mix                the models that its server is asked for, where these are several
    payloads           distinct images to draw of each model
    most_errors        the load stops where a larger share of the latest requests failed; 1: never
    exporter_port      Prometheus exporter on loopback, 0 for none
    cores              CPUs to stay on, empty for any
    """

    target: Target
    reference: Path
    phases: tuple[Phase, ...]
    mix: tuple[Traffic, ...] = ()
    payloads: AtLeast1 = 256
    most_errors: float = 1.0
    exporter_port: int = 0
    cores: tuple[int, ...] = ()

    @property
    def traffic(self) -> tuple[Traffic, ...]:
        """All models that are asked for."""
        return self.mix or (Traffic(self.target, self.reference),)

    def write(self, path: Path) -> None:
        """Write the file that `load` reads."""
        whole_file.write_bytes(path, encode(self))


def load(path: Path) -> Plan:
    """Read a plan. Raises `Problem` naming the file and the key that is wrong."""
    try:
        return decode(path.read_bytes(), Plan)
    except OSError as error:
        raise Problem(f"{path}: cannot read the plan: {error.strerror}") from error
    except msgspec.ValidationError as error:
        raise Problem(f"{path}: {error}") from error
    except msgspec.DecodeError as error:
        raise Problem(f"{path}: not a plan: {error}") from error
    except Problem as problem:
        raise Problem(f"{path}: {problem}") from problem


_Kind = TypeVar("_Kind")


def encode(value: Any) -> bytes:
    """Phases, or something that holds them, as JSON."""
    return msgspec.json.encode(value, enc_hook=plain)


def decode(text: bytes, kind: type[_Kind]) -> _Kind:
    """The inverse of `encode`. Raises `msgspec.DecodeError` naming the key, and `Problem` for an impossible value."""
    return msgspec.json.decode(text, type=kind, dec_hook=typed)


def moved(phases: Sequence[Phase], old: Path, new: Path) -> tuple[Phase, ...]:
    """The phases with their folders below `old` (all of them, where that is empty) put below `new`."""
    return tuple(_moved(phase, old, new) for phase in phases)


def _moved(phase: Phase, old: Path, new: Path) -> Phase:
    def place(folder: Path) -> Path:
        return new / folder.relative_to(old)

    if isinstance(phase, SearchPhase):
        trial = msgspec.structs.replace(phase.trial, folder=place(phase.trial.folder))
        return msgspec.structs.replace(phase, folder=place(phase.folder), trials=place(phase.trials), trial=trial)
    return msgspec.structs.replace(phase, folder=place(phase.folder))


def _known_protocol(protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol = {protocol!r}: use one of {', '.join(PROTOCOLS)}")


def plain(value: Any) -> Any:
    """A path as text: msgspec's hook for what it does not know to encode."""
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(type(value))  # what msgspec asks a hook to raise


def typed(kind: Any, value: Any) -> Any:
    """The inverse of `plain`. Raises ValueError for what is no path."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise ValueError(f"Expected a path, got {value!r}")
