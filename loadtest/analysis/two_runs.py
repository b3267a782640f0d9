"""Two runs compared, target by target, with the statistics that compare two targets within a run: before and after a
change, CPU and GPU, two nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from loadtest.analysis import capacity, summary, verdicts, wording
from loadtest.analysis.saved_run import SavedRun
from loadtest.analysis.summary import DEFAULT_SLO
from loadtest.analysis.verdicts import Compared
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


def compare(run: SavedRun, baseline: SavedRun) -> dict[str, Any]:
    """``run`` against ``baseline``, as plain values.

    runs         what each is: folder, experiment, start
    comparisons  target → a summary (as summary.json) in which the two runs stand as the targets `BASELINE` and `THIS`
    differences  what else than the figures is not the same: {what, baseline, this}
    warnings     what a reader must know, one sentence each

    Both are judged by the SLO of ``run``. Ratios are baseline / this run. Raises `Problem` where the two have no
    measured target in common.
    """
    slo = {**DEFAULT_SLO, **run.experiment.get("slo", {})}
    ours, theirs = summary.measure(run, slo), summary.measure(baseline, slo)
    common = [stack for stack in run.stacks if all(_measured(items, stack) for items in (ours, theirs))]
    if not common:
        raise Problem(
            f"{run.folder} and {baseline.folder}: no target was measured in both "
            f"({', '.join(run.stacks) or 'none'} against {', '.join(baseline.stacks) or 'none'})"
        )
    differences = _differences(run, baseline)
    return {
        "runs": {THIS: _describe(run), BASELINE: _describe(baseline)},
        "comparisons": {
            stack: _comparison(stack, {BASELINE: (baseline, theirs), THIS: (run, ours)}, slo) for stack in common
        },
        "differences": differences,
        "warnings": _warnings(run, baseline, ours, theirs, common, differences),
    }


def _measured(items: list[Compared], stack: str) -> list[Compared]:
    return [item for item in items if item.key[0] == stack]


def _describe(run: SavedRun) -> dict[str, Any]:
    return {
        "folder": run.folder.name,
        "experiment": run.experiment.get("name"),
        "started_at": run.environment.get("started_at"),
    }


def _comparison(
    stack: str, runs: Mapping[str, tuple[SavedRun, list[Compared]]], slo: dict[str, float]
) -> dict[str, Any]:
    """A summary of one target in both runs, each run under its label as if it were a target."""
    relabelled, targets, doubts, searches, votes = [], [], [], [], []
    for label, (run, items) in runs.items():
        targets.append({**summary.describe(run, stack), "name": label})
        doubts += [f"{label}: {why}" for why in summary.prove(run)["why_not_proven"]]
        searches += [{**search, "target": label} for search in run.searches if search["target"] == stack]
        votes += [replace(vote, target=label) for vote in summary.votes(run, slo) if vote.target == stack]
        relabelled += [
            replace(item, key=(label, *item.key[1:]), figures={**item.figures, "target": label})
            for item in _measured(items, stack)
        ]
    this = runs[THIS][0]
    figures = [item.figures for item in relabelled]
    protocols = list(dict.fromkeys(item.key[1] for item in relabelled))
    parity = {**summary.prove(this), "proven": not doubts, "why_not_proven": doubts}
    limits = capacity.of(votes, searches, slo)
    return {
        "experiment": this.experiment,
        "environment": this.environment,
        "parity": parity,
        "targets": targets,
        "measurements": figures,
        "capacity": limits,
        "verdicts": verdicts.decide([BASELINE, THIS], protocols, relabelled, limits, slo, parity),
        "warnings": [],
    }


def _differences(run: SavedRun, baseline: SavedRun) -> list[dict[str, Any]]:
    ours, theirs = _facts(run), _facts(baseline)
    return [
        {"what": what, "baseline": theirs.get(what), "this": ours.get(what)}
        for what in dict.fromkeys([*theirs, *ours])
        if theirs.get(what) != ours.get(what)
    ]


def _facts(run: SavedRun) -> dict[str, Any]:
    """Everything of a run that is not measured, by name."""
    environment = {key: value for key, value in run.environment.items() if key not in _PASSING}
    facts = {**_flat("experiment", run.experiment), **_flat("environment", environment)}
    for target in run.targets:
        name = wording.stack(str(target.get("name")))
        facts |= {f"{name}: {key}": target.get(key) for key in ("engine", "engine_version", "runtime")}
        facts |= _flat(f"{name}: settings", target.get("settings") or {})
    for model, manifest in (run.manifests or {"": run.manifest}).items():
        files, whose = (manifest or {}).get("files", {}), f"{model} " if model else ""
        facts |= {f"model: sha256 of {whose}{name}": str(digest)[:12] for name, digest in files.items()}
    return facts


def _flat(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        parts = [_flat(f"{name}.{key}", inner) for key, inner in value.items()]
        return {key: inner for part in parts for key, inner in part.items()}
    return {name: value}


def _warnings(
    run: SavedRun,
    baseline: SavedRun,
    ours: list[Compared],
    theirs: list[Compared],
    common: list[str],
    differences: list[dict[str, Any]],
) -> list[str]:
    found = []
    for stack in common:
        rates = [{item.key[1:] for item in _measured(items, stack)} for items in (ours, theirs)]
        if not rates[0] & rates[1]:
            found.append(
                f"{wording.stack(stack)} was measured at no rate that both runs share, so only the highest rates "
                "within the SLO can be compared; to repeat the baseline’s rates: "
                f"make compare EXPERIMENT=results/{baseline.folder.name}/experiment.toml"
            )
    for stack in [stack for stack in dict.fromkeys([*run.stacks, *baseline.stacks]) if stack not in common]:
        found.append(f"{wording.shorten(wording.stack(stack))} was not measured in both runs and is left out")
    if any(item["what"].startswith("experiment.slo") for item in differences):
        found.append("the runs had different SLOs: both are judged by this run’s")
    if any(item["what"].startswith("model: ") for item in differences):
        found.append("the runs served different model files: what is compared is not the server alone")
    return found
