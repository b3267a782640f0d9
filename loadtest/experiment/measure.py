"""A run in its folder: the one that was interrupted, or a new one."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from loadtest.experiment.file import Experiment
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.run import run
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.targets import Targets
from loadtest.experiment.steps import Words
from models.bundle import Bundle
from models.problem import Problem
from serving.engines import kernels, registry


def measure(
    experiment: Experiment,
    bundles: Sequence[Bundle],
    results: Path,
    fresh: bool,
    servers: Callable[[RunFolder], Targets],
    words: Words,
) -> Path:
    """Measure all that is not measured yet, from this machine; returns the run's folder under ``results``.

    ``fresh``: a new run in any case; ``servers``: the targets of a run in that folder; ``words``: how the terminal
    says what happens. Raises `Problem`.
    """
    for bundle in bundles:
        experiment.profile.require(bundle)
        require_protocols(experiment, bundle)
        for target in experiment.targets:
            if target.endpoint is None and experiment.runtime != "remote":
                kernels.require(registry.engine(target.engine), bundle, experiment.profile_of(target.name))
    folder = RunFolder.open(results, experiment, " ".join(bundle.digest for bundle in bundles), fresh)
    with folder.alone(), RunProgress(words) as progress:
        progress.say(f"run    {os.path.relpath(folder.path)}")
        return run(folder.experiment(), bundles, servers(folder), folder, progress)


def require_protocols(experiment: Experiment, bundle: Bundle) -> None:
    """Raise `Problem` where a server of the bundle's model cannot be asked over one of the experiment's protocols."""
    for target in experiment.targets:
        engine = registry.engine(target.engine)
        for protocol in experiment.protocols:
            if why := engine.why_not(bundle, protocol):
                raise Problem(f"protocols has {protocol}, for {target.name}: {why}")
