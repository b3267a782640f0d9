"""Two runs compared, target by target, with the statistics that compare two targets within a run: before and after a
change, CPU and GPU, two nodes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from loadtest.analysis import capacity, measurements, rankings, summary, verdicts
from loadtest.analysis.measurements import Measured
from loadtest.analysis.records import (
    Capacity,
    ComparisonWarning,
    Difference,
    LeftOut,
    Measurement,
    ModelsDiffer,
    NoCommonRate,
    Parity,
    PrecisionsDiffer,
    RunComparison,
    RunInfo,
    SlosDiffer,
    Subject,
    Summary,
    TargetInfo,
)
from loadtest.analysis.saved_run import SavedRun
from loadtest.analysis.verdicts import Evidence
from loadtest.experiment.questions import Question
from loadtest.experiment.settings import Slo
from loadtest.experiment.starts import Figures
from models.problem import Problem

BASELINE, THIS = "baseline", "this run"
CHECKPOINT = "checkpoint.pt"  # the weights, whatever their graphs compute in
# What differs between any two runs and explains nothing.
_PASSING = (
    "started_at",
    "finished_at",
    "order",
    "warnings",
    "load_average_at_start",
    "wake_up_lateness_ms",
)
# What a difference is of: its subject, the target's or the model's name, and a dotted key.
_Key = tuple[Subject, str, str]


@dataclass(frozen=True)
class Sides:
    """One target in both runs, each run under its label as if it were a target.

    asked   the questions between the two, and the ``evidence`` on them
    parity  of both: what is doubtful in either
    """

    targets: tuple[TargetInfo, ...]
    measurements: tuple[Measurement, ...]
    limits: tuple[Capacity, ...]
    asked: tuple[Question, ...]
    evidence: Evidence
    parity: Parity


def compare(run: SavedRun, baseline: SavedRun) -> RunComparison:
    """``run`` against ``baseline``: for each target that was measured in both, a summary in which the two runs stand
    as the targets `BASELINE` and `THIS`.

    Both are judged by the SLO of ``run``. Ratios are baseline / this run. Raises `Problem` where the two have no
    measured target in common.
    """
    found = sides(run, baseline)
    return RunComparison(
        this=describe(run),
        baseline=describe(baseline),
        comparisons={name: _summary(run, one) for name, one in found.items()},
        differences=tuple(_differences(run, baseline)),
        warnings=warnings(run, baseline, found),
    )


def sides(run: SavedRun, baseline: SavedRun) -> dict[str, Sides]:
    """Each target that was measured in both runs, judged by the SLO of ``run``. Raises as `compare`."""
    slo = run.experiment.slo
    measured = {label: measurements.of(one, slo) for label, one in ((BASELINE, baseline), (THIS, run))}
    names = {label: {item.figures.target for item in items} for label, items in measured.items()}
    common = [name for name in run.target_names if name in names[BASELINE] & names[THIS]]
    if not common:
        raise Problem(
            f"{run.folder} and {baseline.folder}: no target was measured in both "
            f"({', '.join(run.target_names) or 'none'} against {', '.join(baseline.target_names) or 'none'})"
        )
    return {name: _sides(name, {BASELINE: baseline, THIS: run}, measured, slo) for name in common}


def _sides(name: str, runs: Mapping[str, SavedRun], items: Mapping[str, Sequence[Measured]], slo: Slo) -> Sides:
    targets, doubts, measured, limits = [], [], [], []
    figures: Figures = {}
    for label, run in runs.items():
        own = [item.figures for item in items[label] if item.figures.target == name]
        targets.append(msgspec.structs.replace(summary.describe(run, name), name=label))
        doubts += [msgspec.structs.replace(why, run=label) for why in summary.prove(run).why_not_proven]
        measured += [msgspec.structs.replace(one, target=label) for one in own]
        found = summary.starts_of(run, slo)
        figures |= {replace(one, target=label): values for one, values in found.items() if one.target == name}
        entries = capacity.of(measurements.in_order(run), found, slo)
        limits += [msgspec.structs.replace(one, target=label) for one in entries if one.target == name]
    this = runs[THIS]
    parity = msgspec.structs.replace(summary.prove(this), proven=not doubts, why_not_proven=tuple(doubts))
    rates = {one: _rates(this, one, measured) for one in dict.fromkeys(one.protocol for one in measured)}
    asked = verdicts.questions([BASELINE, THIS], rates, _main(this, rates), summary.searched(limits))
    evidence = Evidence(
        figures=figures,
        measurements={(one.target, one.protocol, one.scenario, one.offered_rate): one for one in measured},
        limits={(one.target, one.protocol): one for one in limits},
        proven=parity.proven,
        looks=(verdicts.most_starts(asked, figures),),
        start_s=None,
    )
    return Sides(tuple(targets), tuple(measured), tuple(limits), tuple(asked), evidence, parity)


def _summary(this: SavedRun, found: Sides) -> Summary:
    decided = verdicts.decide(found.asked, found.evidence, this.experiment.slo)
    return Summary(
        experiment=this.experiment,
        environment=this.environment,
        parity=found.parity,
        targets=found.targets,
        measurements=found.measurements,
        capacity=found.limits,
        decomposition=(),
        verdicts=decided,
        rankings=rankings.of([BASELINE, THIS], decided),
        warnings=(),
    )


def describe(run: SavedRun) -> RunInfo:
    """A run by its folder's name."""
    return RunInfo(folder=run.folder.name, experiment=run.experiment.name, started_at=run.environment.started_at)


def _rates(this: SavedRun, protocol: str, measured: Sequence[Measurement]) -> list[float]:
    """The ladder's rates that both runs measured over a protocol; where they share none, that of ``this`` run's own
    main question."""
    ladder = this.experiment.ladder_asked
    by_run: dict[str, set[float]] = {BASELINE: set(), THIS: set()}
    for one in measured:
        if (one.protocol, one.scenario) == (protocol, "ladder"):
            by_run[one.target].add(one.offered_rate)
    shared = (by_run[BASELINE] & by_run[THIS]) - {ladder.overload_rates.get(protocol)}
    return sorted(shared) or [*verdicts.main_rates(ladder, [protocol]).values()]


def _main(this: SavedRun, rates: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """For each protocol the main rate of ``this`` run where both have it, else the middle one that they share."""
    own = verdicts.main_rates(this.experiment.ladder_asked, rates)
    return {
        protocol: own[protocol] if own.get(protocol) in found else found[len(found) // 2]
        for protocol, found in rates.items()
        if found
    }


def _differences(run: SavedRun, baseline: SavedRun) -> list[Difference]:
    ours, theirs = dict(_facts(run)), dict(_facts(baseline))
    return [
        Difference(subject=key[0], of=key[1], key=key[2], baseline=theirs.get(key), this=ours.get(key))
        for key in dict.fromkeys([*theirs, *ours])
        if theirs.get(key) != ours.get(key)
    ]


def _facts(run: SavedRun) -> Iterable[tuple[_Key, Any]]:
    """Everything of a run that is not measured."""
    for key, value in _flat("", tomllib.loads(run.experiment_text)):
        yield (Subject.EXPERIMENT, "", key), value
    environment = msgspec.to_builtins(run.environment)
    for key, value in _flat("", {key: value for key, value in environment.items() if key not in _PASSING}):
        yield (Subject.ENVIRONMENT, "", key), value
    for target in run.targets:
        name = str(target.name)
        facts = (("engine", target.engine), ("engine_version", target.engine_version), ("runtime", target.runtime))
        knobs = [(knob.native_key or knob.name, knob.value) for knob in target.knobs]
        switches = [(f"in force: {one.name}", one.value) for one in target.switches]
        for key, value in (*facts, *(knobs or target.settings.items()), *switches):
            yield (Subject.TARGET, name, key), value
    for model, manifest in (run.manifests or {"": run.manifest}).items():
        for name, digest in (manifest.files if manifest else {}).items():
            yield (Subject.MODEL, model, name), digest[:12]


def _precisions(name: str, sides: Sides) -> PrecisionsDiffer:
    """What a target computed in, in both runs: of the same weights, every other file of a model follows from it."""
    by_label = {one.name: one.precision for one in sides.targets}
    return PrecisionsDiffer(name, by_label[BASELINE], by_label[THIS])


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else key, inner)
    else:
        yield name, value


def warnings(run: SavedRun, baseline: SavedRun, compared: Mapping[str, Sides]) -> tuple[ComparisonWarning, ...]:
    """What a reader of the two runs must know; ``compared``: their `sides`."""
    differences = _differences(run, baseline)
    found: list[ComparisonWarning] = []
    for name, one in compared.items():
        loads: dict[str, set[tuple[str, str, float]]] = {BASELINE: set(), THIS: set()}
        for item in one.measurements:
            loads[item.target].add((item.protocol, item.scenario, item.offered_rate))
        if not loads[BASELINE] & loads[THIS]:
            found.append(NoCommonRate(name))
    either = dict.fromkeys([*run.target_names, *baseline.target_names])
    found += [LeftOut(name) for name in either if name not in compared]
    if any(one.subject is Subject.EXPERIMENT and one.key.startswith("slo") for one in differences):
        found.append(SlosDiffer())
    other = [_precisions(name, one) for name, one in compared.items()]
    found += [one for one in other if one.baseline is not one.this]
    models = {one.key for one in differences if one.subject is Subject.MODEL}
    if models and (CHECKPOINT in models or all(one.baseline is one.this for one in other)):
        found.append(ModelsDiffer())
    return tuple(found)
