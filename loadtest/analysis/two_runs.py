"""Two runs compared, target by target, with the statistics that compare two targets within a run: before and after a
change, CPU and GPU, two nodes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from loadtest.analysis import capacity, measurements, rankings, summary, verdicts
from loadtest.analysis.measurements import Measured
from loadtest.analysis.records import (
    ComparisonWarning,
    Difference,
    LeftOut,
    Measurement,
    ModelsDiffer,
    NoCommonRate,
    RunComparison,
    RunInfo,
    SlosDiffer,
    Subject,
    Summary,
)
from loadtest.analysis.saved_run import SavedRun
from loadtest.experiment.settings import Slo
from loadtest.experiment.starts import Figures
from models.problem import Problem

BASELINE, THIS = "baseline", "this run"
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


def compare(run: SavedRun, baseline: SavedRun) -> RunComparison:
    """``run`` against ``baseline``: for each target that was measured in both, a summary in which the two runs stand
    as the targets `BASELINE` and `THIS`.

    Both are judged by the SLO of ``run``. Ratios are baseline / this run. Raises `Problem` where the two have no
    measured target in common.
    """
    slo = run.experiment.slo
    ours, theirs = measurements.of(run, slo), measurements.of(baseline, slo)
    common = [name for name in run.target_names if all(_measured(items, name) for items in (ours, theirs))]
    if not common:
        raise Problem(
            f"{run.folder} and {baseline.folder}: no target was measured in both "
            f"({', '.join(run.target_names) or 'none'} against {', '.join(baseline.target_names) or 'none'})"
        )
    differences = _differences(run, baseline)
    sides = {BASELINE: (baseline, theirs), THIS: (run, ours)}
    return RunComparison(
        this=_describe(run),
        baseline=_describe(baseline),
        comparisons={name: _comparison(name, sides, slo) for name in common},
        differences=tuple(differences),
        warnings=tuple(_warnings(run, baseline, ours, theirs, common, differences)),
    )


def _measured(items: Sequence[Measured], target: str) -> list[Measurement]:
    return [item.figures for item in items if item.figures.target == target]


def _describe(run: SavedRun) -> RunInfo:
    return RunInfo(folder=run.folder.name, experiment=run.experiment.name, started_at=run.environment.started_at)


def _comparison(name: str, runs: Mapping[str, tuple[SavedRun, list[Measured]]], slo: Slo) -> Summary:
    """A summary of one target in both runs, each run under its label as if it were a target."""
    this = runs[THIS][0]
    targets, doubts, measured, limits = [], [], [], []
    figures: Figures = {}
    for label, (run, items) in runs.items():
        targets.append(msgspec.structs.replace(summary.describe(run, name), name=label))
        doubts += [msgspec.structs.replace(why, run=label) for why in summary.prove(run).why_not_proven]
        measured += [msgspec.structs.replace(one, target=label) for one in _measured(items, name)]
        found = summary.starts_of(run, slo)
        figures |= {replace(one, target=label): values for one, values in found.items() if one.target == name}
        entries = capacity.of(measurements.in_order(run), found, slo)
        limits += [msgspec.structs.replace(one, target=label) for one in entries if one.target == name]
    parity = msgspec.structs.replace(summary.prove(this), proven=not doubts, why_not_proven=tuple(doubts))
    protocols = list(dict.fromkeys(one.protocol for one in measured))
    rates = {protocol: _rates(this, protocol, measured) for protocol in protocols}
    asked = verdicts.questions([BASELINE, THIS], rates, _main(this, rates), summary.searched(limits))
    evidence = verdicts.Evidence(
        figures=figures,
        measurements={(one.target, one.protocol, one.scenario, one.offered_rate): one for one in measured},
        limits={(one.target, one.protocol): one for one in limits},
        proven=parity.proven,
        looks=(verdicts.most_starts(asked, figures),),
        start_s=None,
    )
    decided = verdicts.decide(asked, evidence, slo)
    return Summary(
        experiment=this.experiment,
        environment=this.environment,
        parity=parity,
        targets=tuple(targets),
        measurements=tuple(measured),
        capacity=tuple(limits),
        decomposition=(),
        verdicts=decided,
        rankings=rankings.of([BASELINE, THIS], decided),
        warnings=(),
    )


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
        for key, value in (*facts, *(knobs or target.settings.items())):
            yield (Subject.TARGET, name, key), value
    for model, manifest in (run.manifests or {"": run.manifest}).items():
        for name, digest in (manifest.files if manifest else {}).items():
            yield (Subject.MODEL, model, name), digest[:12]


def _flat(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}.{key}" if name else key, inner)
    else:
        yield name, value


def _warnings(
    run: SavedRun,
    baseline: SavedRun,
    ours: Sequence[Measured],
    theirs: Sequence[Measured],
    common: Sequence[str],
    differences: Sequence[Difference],
) -> list[ComparisonWarning]:
    found: list[ComparisonWarning] = []
    for name in common:
        loads = [{item.key[1:] for item in items if item.key[0] == name} for items in (ours, theirs)]
        if not loads[0] & loads[1]:
            found.append(NoCommonRate(name))
    either = dict.fromkeys([*run.target_names, *baseline.target_names])
    found += [LeftOut(name) for name in either if name not in common]
    if any(one.subject is Subject.EXPERIMENT and one.key.startswith("slo") for one in differences):
        found.append(SlosDiffer())
    if any(one.subject is Subject.MODEL for one in differences):
        found.append(ModelsDiffer())
    return found
