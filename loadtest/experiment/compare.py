"""From an experiment's name to a report: the bundle first (in a process of its own), then the run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loadtest.experiment import file as experiments
from loadtest.experiment import run_folder as run_folders
from loadtest.experiment.file import Experiment
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.run import run
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import kubernetes
from loadtest.experiment.runtimes.container import ContainerTargets
from loadtest.experiment.runtimes.kubernetes import InCluster, KubernetesTargets
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.experiment.runtimes.remote import RemoteTargets
from loadtest.experiment.runtimes.targets import Targets
from models import bundle as bundle_archive
from models.bundle import Bundle
from models.problem import Problem
from serving import serve
from serving.cores import split_cores
from serving.runtimes.containers import docker_cli
from serving.runtimes.containers.stack import Choice, Stack
from serving.runtimes.kubernetes.kubectl import Cluster
from serving.target import Target

ROOT = Path(__file__).resolve().parents[2]


def compare(
    name: str,
    overrides: Mapping[str, Any],
    *,
    artifacts: Path,
    results: Path,
    fresh: bool = False,
    programs: Mapping[str, Path] = MappingProxyType({}),
    containers: Choice | None = None,
    context: str | None = None,
) -> Path:
    """Train, export, prove, serve, load and report the named experiment; returns the report's path.

    `programs`: engines' own programs (see `serving.engines.programs`); `containers`: what its stack is made of, where
    the experiment's runtime is "container"; `context`: the kubectl context (None: the current one), where it is
    "kubernetes".
    """
    experiment = experiments.load(name, overrides)
    if experiment.runtime == "remote":
        raise Problem(
            f"runtime = {experiment.runtime!r}: compare starts servers itself; for running ones use make loadtest"
        )
    if experiment.runtime == "container":
        docker_cli.require_engine()  # before minutes of training
    if experiment.runtime == "kubernetes":
        return _in_cluster(experiment, Cluster(context), artifacts, results, fresh)
    bundles = [export(experiment, model, artifacts) for model in experiment.mix]

    def servers(folder: RunFolder) -> Targets:
        if experiment.runtime == "container":
            (bundle,) = bundles
            stack = Stack(bundle, containers or Choice(), artifacts)
            return ContainerTargets(folder, bundle, experiment.profile, experiment.protocols, stack)
        cores = split_cores(sorted(os.sched_getaffinity(0)))
        return LocalTargets(folder, bundles, experiment, cores, programs)

    return _run(experiment, bundles, results, fresh, servers)


def load_running(
    name: str,
    overrides: Mapping[str, Any],
    *,
    targets_file: Path,
    bundle_folder: Path | None,
    artifacts: Path,
    results: Path,
    fresh: bool = False,
) -> Path:
    """Run the named experiment against servers that are up already, as `serve` describes them in its targets.json.

    Servers of one model are asked for that; of several, for those that the experiment names. `bundle_folder`: the
    bundle of their only model (None: those of their models and versions in `artifacts`). Returns the report's path.
    """
    targets = serve.load_targets(targets_file)
    versions = _served(targets, targets_file)
    fixed: dict[str, Any] = {"runtime": "remote"}
    experiment = experiments.load(name, {**overrides, **fixed})
    if len(versions) == 1 and not experiment.models:
        fixed["model"] = next(iter(versions))
        experiment = experiments.load(name, {**overrides, **fixed})
    missing = [model for model in experiment.mix if model not in versions]
    if missing:
        raise Problem(f"{targets_file}: its servers hold {', '.join(versions)}, and not {', '.join(missing)}")
    if bundle_folder and len(experiment.mix) > 1:
        raise Problem(f"--bundle {bundle_folder}: one bundle; those of several models are looked for in --artifacts")
    chosen = [
        bundle_archive.load(bundle_folder or artifacts / model / str(versions[model])) for model in experiment.mix
    ]
    datasets = {str(bundle.manifest["dataset"]["name"]) for bundle in chosen}
    if len(datasets) > 1:
        raise Problem(f"{targets_file}: its models are of several data sets: {', '.join(sorted(datasets))}")
    experiment = experiments.load(name, {**overrides, **fixed, "dataset": datasets.pop()})
    first = [target for target in targets if target.model == chosen[0].model]
    up = {target.name for target in first}
    if absent := [name for name in experiment.target_names if name not in up]:
        there = ", ".join(sorted(up))
        raise Problem(f"{targets_file}: no server of it is called {', '.join(absent)}; there are {there}")

    def servers(folder: RunFolder) -> Targets:
        return RemoteTargets(folder, chosen, experiment.protocols, first)

    return _run(experiment, chosen, results, fresh, servers)


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


def _in_cluster(experiment: Experiment, cluster: Cluster, artifacts: Path, results: Path, fresh: bool) -> Path:
    """Measure what is deployed; what an earlier, interrupted command left in the cluster is brought home first."""
    settings = kubernetes.deployed(cluster, experiment)
    bundle = bundle_archive.load(artifacts / settings.model / str(settings.version))
    folder = RunFolder.open(results, experiment, bundle.digest, fresh)
    with RunProgress() as progress, InCluster(cluster, folder) as place:
        progress.say(f"run    {os.path.relpath(folder.path)} on {cluster.context}")
        place.agent.collect(progress.say)
        resolved = folder.experiment()
        targets = KubernetesTargets(folder, bundle, resolved.profile, resolved.protocols, cluster, settings)
        return run(resolved, [bundle], targets, folder, progress, place)


def collect(run_folder: str, context: str | None) -> int:
    """Bring home what a run that lost its client has measured in the cluster; returns the number of blocks."""
    folder = RunFolder(run_folders.resolve(run_folder))
    cluster = Cluster(context)
    with RunProgress() as progress, InCluster(cluster, folder) as place:
        return place.agent.collect(progress.say)


def _run(experiment: Experiment, bundles: Sequence[Bundle], results: Path, fresh: bool, servers: Any) -> Path:
    folder = RunFolder.open(results, experiment, " ".join(bundle.digest for bundle in bundles), fresh)
    with RunProgress() as progress:
        progress.say(f"run    {os.path.relpath(folder.path)}")
        return run(folder.experiment(), bundles, servers(folder), folder, progress)


def export(experiment: Experiment, model: str, artifacts: Path) -> Bundle:
    """Have a model's bundle made by the models package in its own process: this one never imports torch or tensorflow.

    Raises `Problem`.
    """
    command = [sys.executable, "-m", "models", "export", "--model", model, "--dataset", experiment.dataset]
    command += ["--seed", str(experiment.seed), "--artifacts", str(artifacts)]
    # In a session of its own: Ctrl-C reaches it as SIGTERM from here, which is clean even while its interpreter starts.
    export = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        output, _ = export.communicate()
    except KeyboardInterrupt:
        export.terminate()
        export.wait()
        raise
    if export.returncode:
        raise Problem("the model could not be exported; the reason stands above")
    return bundle_archive.load(Path(output.strip().splitlines()[-1]))
