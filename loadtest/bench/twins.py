"""A server compared with one of its own kind, over the whole pipeline: `make bench-aa` and `make bench-ab`.

Both sides are the same engine; a run calls them by the two targets' names. Servers are started anew in every block, in
the order A B B A, as in any comparison.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from loadtest.experiment import generator_process
from loadtest.experiment.file import Experiment
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.run import run
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.place import Here
from models import bundle as bundles
from models.bundle import Bundle
from models.problem import Problem
from serving import wire_parity
from serving.cores import split_cores
from serving.profile import ServingProfile
from serving.runtimes.process import launch
from serving.target import STACKS, Target

A, B = STACKS

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


class Twins:
    """Targets of a run that are one engine: `bundles` says what each side serves."""

    def __init__(
        self, folder: RunFolder, engine: str, bundles: Mapping[str, Bundle], protocols: tuple[str, ...]
    ) -> None:
        self._server_cores, self.generator_cores = split_cores(sorted(os.sched_getaffinity(0)))
        self.server_cores: tuple[int, ...] = ()  # no model of its own is measured
        self._folder, self._engine, self._bundles, self._protocols = folder, engine, bundles, protocols
        self._running: launch.RunningTarget | None = None
        self.side = ""

    def observe(self, prometheus: Prometheus | None) -> None:
        """Servers' own figures have no part in it."""

    def use(self, stack: str, now: Callable[[str], None]) -> None:
        """Start that side's server."""
        if self._running and self.side == stack:
            return
        self.stop()
        place = self._folder.new_folder("servers", stack)
        self._running = launch.start(
            self._engine, self._bundles[stack], ServingProfile(), place, cores=self._server_cores
        )
        self.side = stack
        known = self._folder.read("wire-parity.json", {"targets": {}})
        if stack not in known["targets"]:
            now(f"{stack}: wire parity")
            reference = self._bundles[stack].reference
            found = wire_parity.check(self._running.target, reference, protocols=self._protocols)
            proven = {**known["targets"], stack: msgspec.to_builtins(found, str_keys=True)}
            self._folder.write("wire-parity.json", {"tolerance": wire_parity.TOLERANCE, "targets": proven})

    def target(self, stack: str) -> Target:
        """The side that is up."""
        assert self._running is not None
        return self._running.target

    def check(self) -> None:
        """Raise `Problem` where it has died."""
        if self._running:
            self._running.check()

    def stop(self) -> None:
        """Stop it."""
        if self._running:
            self._running.stop()
            self._running = None


class _Named(Here):
    """This machine, where results are named after the side that is up, not after its engine."""

    def __init__(self, targets: Twins) -> None:
        self._targets = targets

    def run_phases(self, *arguments: Any, **options: Any) -> None:  # type: ignore[override]
        """See `Place`."""
        generator_process.run_phases(*arguments, **options, name=self._targets.side)


def compare(
    experiment: Experiment, engine: str, sides: Mapping[str, Bundle], results: Path, progress: RunProgress
) -> dict[str, Any]:
    """Run an experiment on two servers of one engine; the summary."""
    first = sides[A]
    folder = RunFolder.open(results, experiment, first.digest, fresh=True)
    targets = Twins(folder, engine, sides, experiment.protocols)
    run(experiment, [first], targets, folder, progress, _Named(targets))
    summary: dict[str, Any] = json.loads((folder.path / "summary.json").read_text())
    return summary


def with_delay(bundle: Bundle, seconds: float, folder: Path) -> Bundle:
    """A copy of a bundle in `folder` whose TorchServe handler waits so long before it answers a batch."""
    copy = folder / bundle.model / str(bundle.version)
    shutil.copytree(bundle.folder, copy)
    delayed = Bundle(copy, bundle.manifest)
    with zipfile.ZipFile(bundle.archive) as source, zipfile.ZipFile(delayed.archive, "w") as archive:
        for item in source.infolist():
            content = source.read(item)
            if item.filename == "handler.py":
                content += _DELAY.format(seconds=seconds).encode()
            archive.writestr(item, content)
    manifest = json.loads((copy / bundles.MANIFEST).read_text())
    entry = str(delayed.archive.relative_to(copy))
    manifest["files"][entry] = hashlib.sha256(delayed.archive.read_bytes()).hexdigest()
    (copy / bundles.MANIFEST).write_text(json.dumps(manifest))
    return bundles.load(copy)


def find_bundle(given: Path | None) -> Bundle:
    """The bundle that is named, or the first under artifacts/. Raises `Problem` where there is none."""
    found = [given] if given else sorted(path.parent for path in Path("artifacts").glob("*/*/manifest.json"))
    if not found:
        raise Problem("no bundle under artifacts/: make export DATASET=digits first, or name one with --bundle FOLDER")
    return bundles.load(found[0])
