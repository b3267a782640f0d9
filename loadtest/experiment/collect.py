"""The verb collect: bring home what a run measured in a cluster after its client was gone."""

from __future__ import annotations

import argparse

from loadtest.experiment import run_folder as run_folders
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.kubernetes import InCluster
from loadtest.experiment.verb import Verb
from serving.runtimes.kubernetes.kubectl import Cluster


def collect(run_folder: str, context: str | None) -> int:
    """Bring home what a run that lost its client has measured in the cluster; returns the number of blocks."""
    folder = RunFolder(run_folders.resolve(run_folder))
    cluster = Cluster(context)
    with folder.alone(), RunProgress() as progress, InCluster(cluster, folder) as origin:
        return origin.collect(progress.say)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", default="results/latest", help="the run's folder")
    parser.add_argument("--context", help="the kubectl context (default: the current one)")


def _collect(options: argparse.Namespace) -> int:
    found = collect(options.run, options.context)
    print(f"{found} block{'' if found == 1 else 's'} of trials brought home; the same make compare goes on from there")
    return 0


VERB = Verb(
    "collect", "bring home what a run measured in a cluster after its client was gone", _add_arguments, _collect
)
