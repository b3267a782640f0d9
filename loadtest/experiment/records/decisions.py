"""decisions.json: how a run's questions stand."""

from __future__ import annotations

from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.records.record import Record


class DecidedQuestion(Record, frozen=True, kw_only=True):
    """How a question stood when the run looked last (see `loadtest.experiment.decision`)."""

    metric: Metric
    family: Family
    protocol: str
    compared: tuple[str, str]
    rate: float
    starts: int
    decided: bool
    p_adjusted: float


class Decisions(Record, frozen=True, kw_only=True):
    """After how many starts of each target a run looks, and how its questions stand; `over`: when it has ended."""

    looks: tuple[int, ...]
    over: bool = False
    questions: tuple[DecidedQuestion, ...] = ()
