"""Two runs compared, target by target, with the statistics that compare two targets within a run: before and after a
change, CPU and GPU, two nodes."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from loadtest.analysis import capacity, measurements, rankings, summary, verdicts
from loadtest.analysis.records import (
    ComparisonWarning,
    Difference,
    LeftOut,
    ModelsDiffer,
    NoCommonRate,
    RunComparison,
    RunInfo,
    SlosDiffer,
    Subject,
    Summary,
)
from loadtest.analysis.saved_run import SavedRun
from loadtest.analysis.verdicts import Compared
from loadtest.experiment.settings import Slo
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


def _measured(items: Sequence[Compared], target: str) -> list[Compared]:
    return [item for item in items if item.figures.target == target]


def _describe(run: SavedRun) -> RunInfo:
    return RunInfo(folder=run.folder.name, experiment=run.experiment.name, started_at=run.environment.started_at)


def _comparison(name: str, runs: Mapping[str, tuple[SavedRun, list[Compared]]], slo: Slo) -> Summary:
    """A summary of one target in both runs, each run under its label as if it were a target."""
    relabelled, targets, doubts, searches, votes = [], [], [], [], []
    for label, (run, items) in runs.items():
        targets.append(msgspec.structs.replace(summary.describe(run, name), name=label))
        doubts += [msgspec.structs.replace(why, run=label) for why in summary.prove(run).why_not_proven]
        searches += [msgspec.structs.replace(one, target=label) for one in run.searches if one.target == name]
        votes += [replace(vote, target=label) for vote in summary.votes(run, slo) if vote.target == name]
        relabelled += [
            replace(item, figures=msgspec.structs.replace(item.figures, target=label))
            for item in _measured(items, name)
        ]
    this = runs[THIS][0]
    protocols = list(dict.fromkeys(item.figures.protocol for item in relabelled))
    parity = msgspec.structs.replace(summary.prove(this), proven=not doubts, why_not_proven=tuple(doubts))
    limits = capacity.of(votes, searches, slo)
    found = verdicts.decide([BASELINE, THIS], protocols, relabelled, limits, slo, parity)
    return Summary(
        experiment=this.experiment,
        environment=this.environment,
        parity=parity,
        targets=tuple(targets),
        measurements=tuple(item.figures for item in relabelled),
        capacity=limits,
        decomposition=(),
        verdicts=found,
        rankings=rankings.of([BASELINE, THIS], found),
        warnings=(),
    )


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
    ours: Sequence[Compared],
    theirs: Sequence[Compared],
    common: Sequence[str],
    differences: Sequence[Difference],
) -> list[ComparisonWarning]:
    found: list[ComparisonWarning] = []
    for name in common:
        loads = [{item.key[1:] for item in _measured(items, name)} for items in (ours, theirs)]
        if not loads[0] & loads[1]:
            found.append(NoCommonRate(name))
    either = dict.fromkeys([*run.target_names, *baseline.target_names])
    found += [LeftOut(name) for name in either if name not in common]
    if any(one.subject is Subject.EXPERIMENT and one.key.startswith("slo") for one in differences):
        found.append(SlosDiffer())
    if any(one.subject is Subject.MODEL for one in differences):
        found.append(ModelsDiffer())
    return found
