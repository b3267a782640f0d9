"""From an experiment's name to a report: the bundle first (in a process of its own), then the run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loadtest import experiment as experiments
from loadtest import run_folder as run_folders
from loadtest.experiment import Experiment
from loadtest.progress import RunProgress
from loadtest.run import run
from loadtest.run_folder import RunFolder
from loadtest.runtimes import kubernetes
from loadtest.runtimes.container import ContainerTargets
from loadtest.runtimes.kubernetes import InCluster, KubernetesTargets
from loadtest.runtimes.process import LocalTargets
from loadtest.runtimes.remote import RemoteTargets
from loadtest.runtimes.targets import Targets
from models import bundle as bundles
from models.bundle import Bundle
from models.problem import Problem
from serving import serve
from serving.containers import docker_cli
from serving.containers.stack import Choice, Stack
from serving.cores import split_cores
from serving.kubernetes.kubectl import Cluster

ROOT = Path(__file__).resolve().parent.parent


def compare(
    name: str,
    overrides: Mapping[str, Any],
    *,
    artifacts: Path,
    results: Path,
    fresh: bool = False,
    tensorflow_model_server: Path | None = None,
    containers: Choice | None = None,
    context: str | None = None,
) -> Path:
    """Train, export, prove, serve, load and report the named experiment; returns the report's path.

    `containers`: what its stack is made of, where the experiment's runtime is "container"; `context`: the kubectl
    context (None: the current one), where it is "kubernetes".
    """
    experiment = experiments.load(name, overrides)
    if experiment.runtime == "remote":
        raise Problem(
            f"runtime = {experiment.runtime!r}: compare starts servers itself; for running ones use make loadtest"
        )
    if tensorflow_model_server and not os.access(tensorflow_model_server, os.X_OK):
        raise Problem(f"--tensorflow-model-server {tensorflow_model_server}: no executable file there")
    if experiment.runtime == "container":
        docker_cli.require_engine()  # before minutes of training
    if experiment.runtime == "kubernetes":
        return _in_cluster(experiment, Cluster(context), artifacts, results, fresh)
    bundle = export(experiment, artifacts)

    def servers(folder: RunFolder) -> Targets:
        if experiment.runtime == "container":
            stack = Stack(bundle, containers or Choice(), artifacts)
            return ContainerTargets(folder, bundle, experiment.profile, experiment.protocols, stack)
        cores = split_cores(sorted(os.sched_getaffinity(0)))
        return LocalTargets(folder, bundle, experiment.profile, experiment.protocols, cores, tensorflow_model_server)

    return _run(experiment, bundle, results, fresh, servers)


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

    `bundle_folder`: the bundle that they serve (None: the one of their model and version in `artifacts`). Returns the
    report's path.
    """
    targets = serve.load_targets(targets_file)
    served = {(target.model, target.version) for target in targets}
    if len(served) != 1:
        raise Problem(f"{targets_file}: its targets must serve one model in one version, not {sorted(served)}")
    model, version = served.pop()
    bundle = bundles.load(bundle_folder or artifacts / model / str(version))
    fixed = {"runtime": "remote", "model": model, "dataset": bundle.manifest["dataset"]["name"]}
    experiment = experiments.load(name, {**overrides, **fixed})

    def servers(folder: RunFolder) -> Targets:
        return RemoteTargets(folder, bundle, experiment.protocols, targets)

    return _run(experiment, bundle, results, fresh, servers)


def _in_cluster(experiment: Experiment, cluster: Cluster, artifacts: Path, results: Path, fresh: bool) -> Path:
    """Measure what is deployed; what an earlier, interrupted command left in the cluster is brought home first."""
    settings = kubernetes.deployed(cluster, experiment)
    bundle = bundles.load(artifacts / settings.model / str(settings.version))
    folder = RunFolder.open(results, experiment, bundle.digest, fresh)
    with RunProgress() as progress, InCluster(cluster, folder) as place:
        progress.say(f"run    {os.path.relpath(folder.path)} on {cluster.context}")
        place.agent.collect(progress.say)
        resolved = folder.experiment()
        targets = KubernetesTargets(folder, bundle, resolved.profile, resolved.protocols, cluster, settings)
        return run(resolved, bundle, targets, folder, progress, place)


def collect(run_folder: str, context: str | None) -> int:
    """Bring home what a run that lost its client has measured in the cluster; returns the number of blocks."""
    folder = RunFolder(run_folders.resolve(run_folder))
    cluster = Cluster(context)
    with RunProgress() as progress, InCluster(cluster, folder) as place:
        return place.agent.collect(progress.say)


def _run(experiment: Experiment, bundle: Bundle, results: Path, fresh: bool, servers: Any) -> Path:
    folder = RunFolder.open(results, experiment, bundle.digest, fresh)
    with RunProgress() as progress:
        progress.say(f"run    {os.path.relpath(folder.path)}")
        return run(folder.experiment(), bundle, servers(folder), folder, progress)


def export(experiment: Experiment, artifacts: Path) -> Bundle:
    """Have the bundle made by the models package in its own process: this one never imports torch or tensorflow.

    Raises `Problem`.
    """
    command = [sys.executable, "-m", "models", "export", "--model", experiment.model, "--dataset", experiment.dataset]
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
    return bundles.load(Path(output.strip().splitlines()[-1]))
