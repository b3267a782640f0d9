"""The verb compare: from an experiment's name to its run, with the bundle made first, in a process of its own."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from loadtest.experiment import arguments, guard
from loadtest.experiment import file as experiments
from loadtest.experiment.file import Experiment
from loadtest.experiment.measure import measure, require_protocols
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.records import StoodIn
from loadtest.experiment.run import run
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import container, endpoint, kubernetes
from loadtest.experiment.runtimes.container import ContainerTargets
from loadtest.experiment.runtimes.kubernetes import InCluster, KubernetesTargets
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.experiment.runtimes.targets import Targets
from loadtest.experiment.steps import Noted, Words
from loadtest.experiment.verb import Verb
from models import bundle as bundle_archive
from models import child_environment, declaration
from models.bundle import Bundle
from models.encoding import Encoding
from models.problem import Problem
from serving.cores import split_cores
from serving.engines import programs as engine_programs
from serving.engines import registry
from serving.engines.engine import Engine
from serving.runtimes.containers import docker_cli
from serving.runtimes.containers.command_line import build_arguments, build_of
from serving.runtimes.containers.stack import Choice, Stack
from serving.runtimes.kubernetes.kubectl import Cluster
from serving.runtimes.kubernetes.settings import Settings
from serving.runtimes.process import launch, obtain
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
    may_load: bool = False,
    words: Words = str,
) -> Path:
    """Train, export, prove, serve, and load the named experiment; returns the run's folder.

    `programs`: engines' own programs (see `serving.engines.programs`); `containers`: what its stack is made of, where
    the experiment's runtime is "container"; `context`: the kubectl context (None: the current one), where it is
    "kubernetes"; `may_load`: endpoints of others may have more than a few requests (see `guard`); `words`: how the
    terminal says what happens.
    """
    experiment = experiments.load(name, overrides)
    if experiment.runtime == "remote":
        raise Problem(
            f"runtime = {experiment.runtime!r}: compare starts servers itself; for running ones use make loadtest"
        )
    if experiment.endpoints and not may_load:
        most = guard.most_rate(experiment, endpoint.named(experiment))
        experiment = experiments.load(name, {**overrides, "generator.most_rate": most})
    stood_in: Sequence[StoodIn] = ()
    up: Sequence[Target] = ()
    # What cannot be is said before minutes of training.
    if experiment.runtime == "process":
        own = [target for target in experiment.targets if target.endpoint is None]
        if not own:
            raise Problem("target: all of them are up already; to put load on them use make loadtest")
        engines = [registry.engine(target.engine) for target in own]
        stood_in = _stood_in(engines, programs)
        for note in stood_in:
            print(words(Noted(note)), flush=True)
        for target in own:
            launch.require_environment(experiment.profile_of(target.name))
            launch.require_gpu(experiment.profile_of(target.name))
        launch.require(engines, programs)
        up = endpoint.with_metrics(endpoint.reached(experiment))
    if experiment.runtime == "container":
        container.engines(experiment, embedded=bool(containers and containers.embedded))
        docker_cli.require_engine()
    if experiment.runtime == "kubernetes":
        cluster = Cluster(context)
        settings = kubernetes.deployed(cluster, experiment)
        there = kubernetes.on_its_device(experiment, settings, overrides.get("profile.device"))
        return _in_cluster(there, settings, cluster, artifacts, results, fresh, words)
    bundles = [export(experiment, model, artifacts) for model in experiment.models or (experiment.model,)]

    def servers(folder: RunFolder) -> Targets:
        if experiment.runtime == "container":
            (bundle,) = bundles
            stack = Stack(bundle, containers or Choice(), artifacts)
            return ContainerTargets(folder, bundle, experiment, stack)
        cores = split_cores(sorted(os.sched_getaffinity(0)))
        return LocalTargets(
            folder, bundles, experiment, cores, programs, stood_in, endpoint.serving(up, bundles[0]) if up else ()
        )

    return measure(experiment, bundles, results, fresh, servers, words)


def _stood_in(engines: Sequence[Engine], programs: Mapping[str, Path]) -> list[StoodIn]:
    """Have the engines' own programs at hand, fetched where need be; returns what stands in for those that are not."""
    return [
        StoodIn(engine=one.engine.id, stand_in=one.stand_in.id, reason=one.why, detail=one.detail)
        for one in obtain.provide(engines, programs)
    ]


def _in_cluster(
    experiment: Experiment,
    settings: Settings,
    cluster: Cluster,
    artifacts: Path,
    results: Path,
    fresh: bool,
    words: Words,
) -> Path:
    """Measure what is deployed; what an earlier, interrupted command left in the cluster is brought home first."""
    bundle = bundle_archive.load(artifacts / settings.model / str(settings.version))
    kubernetes.require_same(experiment, settings, bundle)
    require_protocols(experiment, bundle)
    if bundle.encoding is not Encoding.NONE:
        raise Problem(
            f"{bundle.folder}: its clients send {bundle.encoding} files, for runtime = 'process' only; deploy another"
        )
    folder = RunFolder.open(results, experiment, bundle.digest, fresh)
    with folder.alone(), RunProgress(words) as progress, InCluster(cluster, folder) as origin:
        progress.say(f"run    {os.path.relpath(folder.path)} on {cluster.context}")
        origin.collect(progress.say)
        resolved = folder.experiment()
        targets = KubernetesTargets(folder, bundle, resolved, cluster, settings)
        return run(resolved, [bundle], targets, folder, progress, origin)


def export(experiment: Experiment, model: str, artifacts: Path) -> Bundle:
    """Have a model's bundle made by the models package in its own process: this one never imports torch or tensorflow.

    Raises `Problem`.
    """
    command = [sys.executable, "-m", "models", "export", "--model", model, "--dataset", experiment.dataset]
    place = artifacts if Path.cwd() == ROOT else artifacts.resolve()  # it runs in another folder than the user
    command += ["--seed", str(experiment.seed), "--artifacts", str(place)]
    command += ["--precision", experiment.profile.precision, "--encoding", experiment.encoding]
    told = experiment.is_told_of(model)
    for key in experiments.BROUGHT:
        if (path := getattr(experiment, key)) and (told or key not in experiments.OF_ONE):
            command += [f"--{key}", str(Path(path).resolve())]
    for key, value in experiment.declared.items() if told else ():
        command.append(f"--{key}={experiment.preprocessing.to_text() if key == 'preprocessing' else value}")
    # In a session of its own: Ctrl-C reaches it as SIGTERM from here, which is clean even while its interpreter starts.
    export = subprocess.Popen(
        command,
        cwd=ROOT,
        env=child_environment.export() | (_finding() if declaration.is_factory(model) else {}),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = export.communicate()
    except KeyboardInterrupt:
        export.terminate()
        export.wait()
        raise
    if export.returncode:
        raise Problem("the model could not be exported; the reason stands above")
    return bundle_archive.load(Path(output.strip().splitlines()[-1]))


def _finding() -> dict[str, str]:
    """A PYTHONPATH that finds a user's module from another folder than theirs."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    folders = [str(Path(folder).resolve()) for folder in ("", *filter(None, given))]
    return {"PYTHONPATH": os.pathsep.join(dict.fromkeys(folders))}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add(parser)
    parser.add_argument(
        "--engines",
        metavar="A,B,C",
        help=f"compare these engines, in place of the experiment's targets: some of {', '.join(registry.ids())}",
    )
    engine_programs.add_flags(parser)
    arguments.add_consent(parser)
    build_arguments(parser.add_argument_group("with runtime = container"))
    cluster = parser.add_argument_group("with runtime = kubernetes")
    cluster.add_argument("--context", help="the kubectl context (default: the current one)")


def _overrides(options: argparse.Namespace) -> dict[str, object]:
    """What the command line gives, the engines as targets that run them. Raises `Problem`."""
    given = arguments.overrides(options)
    if options.engines is None:
        return given
    if "targets" in given:
        raise Problem("--engines and --set targets: give one of them")
    ids = [id.strip() for id in options.engines.split(",") if id.strip()]
    return {**given, "targets": [registry.engine(id).default_target for id in ids]}


def _compare(options: argparse.Namespace) -> Path:
    return compare(
        options.experiment,
        _overrides(options),
        artifacts=options.artifacts,
        results=options.results,
        fresh=options.fresh,
        programs=engine_programs.named(options),
        containers=Choice(embedded=options.embedded, gpu=options.gpu, build=build_of(options)),
        context=options.context,
        may_load=options.may_load,
        words=options.words,
    )


VERB = Verb("compare", "from nothing to a measured comparison and its report", _add_arguments, _compare)
