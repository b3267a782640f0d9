"""The verb run: an experiment against servers that are up already, those of make serve or any other."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.experiment import arguments, as_deployed, guard
from loadtest.experiment import file as experiments
from loadtest.experiment.file import Experiment
from loadtest.experiment.measure import measure
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import endpoint
from loadtest.experiment.runtimes.endpoint import EndpointTargets
from loadtest.experiment.runtimes.remote import RemoteTargets
from loadtest.experiment.runtimes.targets import Targets
from loadtest.experiment.scenarios import section
from loadtest.experiment.steps import Words
from loadtest.experiment.verb import Verb
from models import bundle as bundle_archive
from models.problem import Problem
from serving import serve
from serving.target import Target


def load_running(
    name: str,
    overrides: Mapping[str, Any],
    *,
    targets_file: Path,
    bundle_folder: Path | None,
    artifacts: Path,
    results: Path,
    fresh: bool = False,
    may_load: bool = False,
    words: Words = str,
) -> Path:
    """Run the named experiment against servers that are up already: as `serve` describes them in its targets.json, or
    at the addresses that the experiment gives, or a TOML file of targets.

    Servers of one model are asked for that; of several, for those that the experiment names. `bundle_folder`: the
    bundle of their only model (None: those of their models and versions in `artifacts`; endpoints need none);
    `may_load`: servers of other people may have more than a few requests (see `guard`); `words`: how the terminal
    says what happens. Returns the run's folder.
    """
    beside = targets_file if targets_file.suffix == ".toml" else None
    asked = experiments.load(name, {**overrides, "runtime": "remote"}, beside)
    if asked.endpoints or beside:
        given = {**overrides, "runtime": "remote"}
        return _load_endpoints(name, given, beside, bundle_folder, results, fresh, may_load, words)
    targets = serve.load_targets(targets_file)
    versions = _served(targets, targets_file)
    fixed: dict[str, object] = {"runtime": "remote"}
    experiment = experiments.load(name, {**overrides, **fixed})
    said, whose = experiments.said(name, overrides), str(targets_file)
    if len(versions) == 1 and not experiment.models:
        fixed["model"] = next(iter(versions))
        if said.get("model", fixed["model"]) != fixed["model"]:
            raise Problem(f"{targets_file}: its servers hold {fixed['model']}, and not {said['model']}")
        experiment = experiments.load(name, {**overrides, **fixed})
    missing = [model for model in experiment.mix if model not in versions]
    if missing:
        raise Problem(f"{targets_file}: its servers hold {', '.join(versions)}, and not {', '.join(missing)}")
    if bundle_folder and len(experiment.mix) > 1:
        raise Problem(f"--bundle {bundle_folder}: one bundle; those of several models are looked for in --artifacts")
    chosen = [
        bundle_archive.load(bundle_folder or artifacts / model / str(versions[model])) for model in experiment.mix
    ]
    for bundle in chosen:
        as_deployed.require_bundle(bundle, bundle_folder, versions, whose)
    datasets = {bundle.dataset for bundle in chosen}
    if len(datasets) > 1:
        raise Problem(f"{targets_file}: its models are of several data sets: {', '.join(sorted(datasets))}")
    (dataset,) = datasets
    as_deployed.require_said(said, f"the bundle of {whose}", dataset=dataset)
    measured = [target for target in targets if target.name in experiment.target_names]
    fixed |= as_deployed.profile(measured, whose, said)
    fixed |= {"dataset": dataset, "generator.most_rate": _most_rate(experiment, targets, may_load)}
    experiment = experiments.load(name, {**overrides, **fixed})
    first = [target for target in targets if target.model == chosen[0].model]
    up = {target.name for target in first}
    if absent := [name for name in experiment.target_names if name not in up]:
        there = ", ".join(sorted(up))
        raise Problem(f"{targets_file}: no server of it is called {', '.join(absent)}; there are {there}")

    for target in first:
        for scenario in experiment.scenarios:
            batch = experiment.scenario(scenario).batch
            if target.name in experiment.target_names and batch > target.max_batch_size:
                raise Problem(
                    f"{section(scenario)}.batch = {batch}: {target.name} of {targets_file} takes at most "
                    f"{target.max_batch_size} images in one request: use no more, or start it with a larger "
                    "--max-batch-size"
                )

    def servers(folder: RunFolder) -> Targets:
        return RemoteTargets(folder, chosen, experiment.protocols, first)

    return measure(experiment, chosen, results, fresh, servers, words)


def _load_endpoints(
    name: str,
    overrides: Mapping[str, Any],
    beside: Path | None,
    bundle_folder: Path | None,
    results: Path,
    fresh: bool,
    may_load: bool,
    words: Words,
) -> Path:
    """Measure servers at addresses that the experiment or the file `beside` it gives."""
    experiment = experiments.load(name, overrides, beside)
    for target in experiment.targets:
        if target.endpoint is None:
            raise Problem(
                f"target.{target.name}: give it a url or grpc address; make compare starts servers beside yours"
            )
    bundle = bundle_archive.load(bundle_folder) if bundle_folder else None
    if bundle:
        as_deployed.require_said(experiments.said(name, overrides), f"--bundle {bundle_folder}", dataset=bundle.dataset)
    models = {target.endpoint.model for target in experiment.targets if target.endpoint and target.endpoint.model}
    fixed = {
        "model": bundle.model if bundle else next(iter(models)) if len(models) == 1 else experiment.model,
        "dataset": bundle.dataset if bundle else "",
        "generator.most_rate": _most_rate(experiment, endpoint.named(experiment), may_load),
    }
    experiment = experiments.load(name, {**overrides, **fixed}, beside)
    up = endpoint.reached(experiment)
    targets = (
        endpoint.serving(up, bundle) if bundle else endpoint.described(up, experiment.protocols[0], experiment.inputs)
    )
    targets = endpoint.with_metrics(targets)  # after the models: what is wrong with both is told of these

    def servers(folder: RunFolder) -> Targets:
        if bundle:
            return RemoteTargets(folder, [bundle], experiment.protocols, targets)
        return EndpointTargets(folder, experiment, targets)

    return measure(experiment, [bundle] if bundle else [], results, fresh, servers, words)


def _most_rate(experiment: Experiment, targets: Sequence[Target], may_load: bool) -> float:
    return experiment.generator.most_rate if may_load else guard.most_rate(experiment, targets)


def _served(targets: Sequence[Target], file: Path) -> dict[str, int]:
    """The models that every server holds, and their versions. Raises `Problem` where the servers differ."""
    held: dict[str, dict[str, int]] = {}
    addresses: dict[str, set[tuple[str, str]]] = {}
    for target in targets:
        held.setdefault(target.name, {})[target.model] = target.version
        addresses.setdefault(target.name, set()).add((target.grpc, target.rest))
    different = {str(models) for models in held.values()}
    if len(different) != 1:
        raise Problem(f"{file}: its targets must serve the same models in the same versions, not {sorted(different)}")
    for name, found in addresses.items():
        if len(found) > 1:
            raise Problem(f"{file}: the models of {name} must be held by one server, not at {sorted(found)}")
    return next(iter(held.values()))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add(parser)
    parser.add_argument(
        "--targets",
        type=Path,
        default=Path("results/serve/targets.json"),
        help="what make serve wrote of them, or a TOML file with the addresses of yours (docs/endpoints.md)",
    )
    arguments.add_consent(parser)
    parser.add_argument("--bundle", type=Path, help="the bundle that they serve (default: found in --artifacts)")


def _run(options: argparse.Namespace) -> Path:
    return load_running(
        options.experiment,
        arguments.overrides(options),
        targets_file=options.targets,
        bundle_folder=options.bundle,
        artifacts=options.artifacts,
        results=options.results,
        fresh=options.fresh,
        may_load=options.may_load,
        words=options.words,
    )


VERB = Verb(
    "run", "an experiment against servers that are up already: make serve's, or any endpoints", _add_arguments, _run
)
