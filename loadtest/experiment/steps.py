"""What a run tells of itself as it goes on: typed steps. Their words are the report's (`report.progress_words`)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from loadtest.experiment.meter_records import GpuMemory
from loadtest.experiment.records import CoresTaken, RunNote, SaysNothing, SearchRecord, SentLate, SloMiss, TrialRecord


@dataclass(frozen=True)
class Noted:
    """A reader of the results should know this; it is written down, too."""

    note: RunNote


@dataclass(frozen=True)
class Resumed:
    """So many trials were measured before."""

    measured: int


@dataclass(frozen=True)
class StartingServer:
    """A target's server is about to be started."""

    target: str


@dataclass(frozen=True)
class TimingModel:
    """The model alone is measured, as a target would call it."""

    target: str


@dataclass(frozen=True)
class Probed:
    """What a target answered over each protocol, in requests/s, with `concurrency` requests in flight."""

    target: str
    throughput: Mapping[str, float]
    concurrency: int


@dataclass(frozen=True)
class WarmingUp:
    """A warm-up has begun."""

    target: str
    protocol: str


@dataclass(frozen=True)
class WarmUpNotSteady:
    """A warm-up reached its cap of so many seconds, so that what follows is not valid."""

    target: str
    protocol: str
    cap_s: float


@dataclass(frozen=True)
class UnderLoad:
    """A second of load: requests/s offered (None: by a closed loop), answered, and their p99 (None: none was)."""

    target: str
    protocol: str
    offered_rate: float | None
    ok: int
    p99_ms: float | None


@dataclass(frozen=True)
class RateTried:
    """A capacity search has tried a rate. `why_not`: see `events.Tried`."""

    target: str
    protocol: str
    rate: float
    why_not: SaysNothing | SloMiss | None


@dataclass(frozen=True)
class TrialSpoiled:
    """The generator sent late, or others used its cores, and the trial is repeated."""

    target: str
    protocol: str
    why: SentLate | CoresTaken


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended."""

    trial: TrialRecord


@dataclass(frozen=True)
class SearchEnded:
    """A capacity search has ended."""

    search: SearchRecord


@dataclass(frozen=True)
class RatesChosen:
    """At which rates latencies will be compared: requests/s by protocol."""

    rates: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Looked:
    """After so many starts of each target so many of all questions are decided; `over`: the run has ended."""

    starts: int
    decided: int
    asked: int
    over: bool


@dataclass(frozen=True)
class GpuMemoryExpected:
    """What a target will have of its GPU's memory."""

    target: str
    memory: GpuMemory


Step = (
    Noted
    | Resumed
    | StartingServer
    | TimingModel
    | Probed
    | WarmingUp
    | WarmUpNotSteady
    | UnderLoad
    | RateTried
    | TrialSpoiled
    | TrialEnded
    | SearchEnded
    | RatesChosen
    | GpuMemoryExpected
    | Looked
)

LASTING = (
    *(Noted, Resumed, Probed, WarmUpNotSteady, TrialSpoiled, TrialEnded, SearchEnded, RatesChosen, Looked),
    GpuMemoryExpected,
)
"""Steps that stay on the screen; the others are what happens right now."""

Words = Callable[[Step], str]
"""A step as people read it."""


class Progress(Protocol):
    """Follows a run."""

    def plan(self, seconds: float) -> None:
        """So many more seconds of work are planned from here."""

    def advance(self, seconds: float) -> None:
        """That many seconds of the planned work are done."""

    def tell(self, step: Step) -> None:
        """This has happened, or happens now."""

    def now(self, text: str) -> None:
        """What a runtime does right now."""
