"""What a report rests on, at a glance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis.records import Measurement, Parity, Summary, TargetInfo
from loadtest.experiment.records import Environment
from loadtest.report import names, parity_words, warning_words, wording
from serving.engines import registry


@dataclass(frozen=True)
class Badge:
    """``state`` is "good", "caution" or "bad"."""

    state: str
    label: str
    detail: str


def badges(figures: Summary) -> list[Badge]:
    """The badges of a run: parity, validity, engines, and whether its servers were observed."""
    return [
        _parity(figures.parity),
        _validity(figures.measurements),
        _engines(figures.targets),
        _server_side(figures.environment),
    ]


def _parity(parity: Parity) -> Badge:
    if parity.proven:
        differs = f"answers differ by at most {wording.scientific(parity.max_abs_diff)}"
        return Badge("good", parity_words.label(parity), differs)
    return Badge("bad", parity_words.label(parity), warning_words.doubt(parity.why_not_proven[0]))


def _validity(measurements: Sequence[Measurement]) -> Badge:
    broken = sum(not item.valid for item in measurements)
    if not measurements:
        return Badge("bad", "No measurements", "no trial was saved")
    if broken:
        return Badge("bad", f"{broken} of {len(measurements)} measurements not valid", "struck below, with the reason")
    return Badge(
        "good", f"All {len(measurements)} measurements valid", "the generator kept its schedule, answers were right"
    )


def _engines(targets: Sequence[TargetInfo]) -> Badge:
    missing = [target for target in targets if not target.measured]
    if missing:
        name = wording.shorten(wording.target_name(missing[0].name), 30)
        return Badge("bad", f"{name} not measured", "it has no trial here")
    stand_ins = [wording.shorten(wording.target(target)) for target in targets if target.stands_in_for]
    if stand_ins:
        return Badge("caution", "Embedded stand-in", " and ".join(stand_ins))
    other = [target for target in targets if target.backend and target.backend.instead_of]
    if other:
        return Badge("caution", "Another backend", " and ".join(dict.fromkeys(map(names.product, other))))
    unknown = [target for target in targets if not target.engine or registry.find(target.engine) is None]
    if unknown:
        return Badge("caution", "Unknown engine", wording.shorten(wording.target(unknown[0])))
    engines = dict.fromkeys(wording.shorten(wording.engine(target), 40) for target in targets)
    return Badge("good", "Real engines", " and ".join(engines))


def _server_side(environment: Environment) -> Badge:
    if environment.prometheus:
        return Badge("good", "Observed by Prometheus", f"version {environment.prometheus}")
    return Badge("caution", "No server-side metrics", "Prometheus did not watch this run")
