"""A server compared with one of its own kind, over the whole pipeline: `make bench-aa` and `make bench-ab`.

Its targets are all the same engine, under names of their own. Servers are started anew in every block, in the order
A B B A, as in any comparison.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from loadtest.analysis import summary
from loadtest.analysis.records import Summary
from loadtest.experiment.file import Experiment
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.run import run
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.experiment.steps import Progress
from loadtest.experiment.target_specs import TargetSpec
from models import bundle as bundles
from models.bundle import Bundle
from models.problem import Problem
from serving.cores import split_cores

HANDLED = "torchserve"
"""The engine whose handler is ours: what it takes longer is known."""

# Awake: a sleep ends late, and lets the core sleep, by how much and how deep the machine decides.
_DELAY = """

import time as _time
_handle_at_once = handle


def handle(data, context):
    if data is not None:
        until = _time.perf_counter() + {seconds!r}
        while _time.perf_counter() < until:
            pass
    return _handle_at_once(data, context)
"""

# So that what the model takes does not add to it.
_LASTING = """

import time as _time
_handle_at_once = handle


def handle(data, context):
    until = _time.perf_counter() + {seconds!r}
    answers = _handle_at_once(data, context)
    while data is not None and _time.perf_counter() < until:
        pass
    return answers
"""


class Twins(LocalTargets):
    """Targets of a run that are one engine; `sides` says which bundle each one serves."""

    def __init__(
        self, folder: RunFolder, experiment: Experiment, sides: Mapping[str, Bundle], programs: Mapping[str, Path]
    ) -> None:
        cores = split_cores(sorted(os.sched_getaffinity(0)))
        super().__init__(folder, list(sides.values())[:1], experiment, cores, programs)
        self._sides = sides

    def observe(self, prometheus: Prometheus | None) -> None:
        """Servers' own figures have no part in it."""

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:
        """Start that side's server."""
        self._bundles = [self._sides[name]]
        super().use(name, now, offset)


def specs(engine: str, names: Sequence[str]) -> tuple[TargetSpec, ...]:
    """Targets of these names, all of one engine."""
    return tuple(TargetSpec(name, engine) for name in names)


def compare(
    experiment: Experiment,
    sides: Mapping[str, Bundle],
    results: Path,
    progress: Progress,
    programs: Mapping[str, Path] = MappingProxyType({}),
) -> Summary:
    """Run an experiment whose targets are servers of one engine, each with a bundle in `sides`; the summary.
    `programs`: engines' own, by their ids."""
    first = next(iter(sides.values()))
    folder = RunFolder.open(results, experiment, first.digest, fresh=True)
    without = {"problem": "a bench compares servers alone"}
    folder.write("model-time.json", dict.fromkeys(experiment.target_names, without))
    run(experiment, [first], Twins(folder, experiment, sides, programs), folder, progress)
    return summary.write(folder.path)


def with_delay(bundle: Bundle, seconds: float, folder: Path) -> Bundle:
    """A copy of a bundle in `folder` whose TorchServe handler waits so long before it answers a batch."""
    return _with_handler(bundle, _DELAY.format(seconds=seconds), folder)


def lasting(bundle: Bundle, seconds: float, folder: Path) -> Bundle:
    """A copy of a bundle in `folder` whose TorchServe handler takes so long for a batch, or as long as the model, where
    that is longer."""
    return _with_handler(bundle, _LASTING.format(seconds=seconds), folder)


def _with_handler(bundle: Bundle, more: str, folder: Path) -> Bundle:
    """A copy of a bundle whose handler ends with ``more``."""
    copy = folder / bundle.model / str(bundle.version)
    shutil.copytree(bundle.folder, copy)
    changed = Bundle(copy, bundle.manifest)
    with zipfile.ZipFile(bundle.archive) as source, zipfile.ZipFile(changed.archive, "w") as archive:
        for item in source.infolist():
            content = source.read(item)
            if item.filename == "handler.py":
                content += more.encode()
            archive.writestr(item, content)
    manifest = json.loads((copy / bundles.MANIFEST).read_text())
    entry = str(changed.archive.relative_to(copy))
    manifest["files"][entry] = hashlib.sha256(changed.archive.read_bytes()).hexdigest()
    (copy / bundles.MANIFEST).write_text(json.dumps(manifest))
    return bundles.load(copy)


def find_bundle(given: Path | None) -> Bundle:
    """The bundle that is named, or the first under artifacts/. Raises `Problem` where there is none."""
    found = [given] if given else sorted(path.parent for path in Path("artifacts").glob("*/*/manifest.json"))
    if not found:
        raise Problem("no bundle under artifacts/: make export DATASET=digits first, or name one with --bundle FOLDER")
    return bundles.load(found[0])
