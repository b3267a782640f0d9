"""What a run found, on one screen: one sentence, at most three questions with their answers, what happened to the
machine, whether the weights were trained, and what was computed in where not in float32. Terminal, report.md and page
show it, each whole and in this order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from loadtest.analysis.records import Summary
from loadtest.report import conditions, headline, host_words, wording
from loadtest.report import names as naming
from loadtest.report.host_words import Host
from loadtest.report.rows import Row, rows
from loadtest.report.verdict_words import Names
from models.bundle import Weights
from models.precision import Precision


@dataclass(frozen=True)
class FirstScreen:
    """The first screen of a run; ``weights``: what those that were not trained, or of which that is not known, mean for
    it, and ``precision``: what was computed in, where not in float32; empty where there is nothing to say."""

    sentence: str
    rows: tuple[Row, ...]
    host: Host
    weights: str = ""
    precision: str = ""


def build(figures: Summary, names: Names | None = None) -> FirstScreen:
    """The first screen of a run's summary; ``names``: what its targets are called, where not as usual."""
    names = naming.of(figures.targets) if names is None else names
    return FirstScreen(
        headline.sentence(figures, names),
        rows(figures, names),
        host_words.host(figures),
        untrained(figures),
        shorter(figures),
    )


def untrained(figures: Summary) -> str:
    """What it means that weights were drawn from a seed or made by a user's factory; empty where none were."""
    said = []
    if made := _whose(figures, Weights.FACTORY):
        whose = f" of {wording.listed(made)}" if len(figures.weights) > 1 else ""
        said.append(
            f"Weights{whose} as the model's factory made them, trained or not: speed and parity are real either way."
        )
    if seeded := _whose(figures, Weights.SEEDED):
        whose = f" of {wording.listed(seeded)}" if len(figures.weights) > 1 else ""
        said.append(f"Untrained weights{whose}: speed and parity are real, accuracy is not.")
    return " ".join(said)


def _whose(figures: Summary, weights: Weights) -> list[str]:
    """The models whose weights come from there."""
    return [wording.isolated(model) for model, found in figures.weights.items() if found is weights]


def shorter(figures: Summary) -> str:
    """What was computed in, and how far that lies from float32; empty where that is what it was."""
    each = {target.name: target.precision for target in figures.targets if target.measured}
    known = list(dict.fromkeys(each.values()))
    if known in ([], [Precision.FP32]):
        return ""
    if len(known) > 1:
        return f"Computed in {conditions.precision(figures)}."
    distance = figures.parity.from_fp32
    if distance is None:
        return f"Computed in {known[0]}."
    return (
        f"Computed in {known[0]}: probabilities lie up to {wording.scientific(distance.max_abs_diff)} from float32’s, "
        f"the best class is the same for {wording.precise_share(distance.top1_agreement)} of the images."
    )


def values(screen: FirstScreen) -> dict[str, Any]:
    """The first screen as plain values; each line with its whole ``text``."""
    plain: dict[str, Any] = msgspec.to_builtins(screen)
    for row, shown in zip(plain["rows"], screen.rows, strict=True):
        for line, told in zip(row["lines"], shown.lines, strict=True):
            line["text"] = told.text
    return plain
