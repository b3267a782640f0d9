"""A run against another one."""

from __future__ import annotations

import enum
from typing import Any

from loadtest.analysis.records.record import FORMAT, Record, Told
from loadtest.analysis.records.summary import Summary
from models.precision import Precision


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
