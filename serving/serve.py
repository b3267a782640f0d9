"""Keeps servers up until Ctrl-C, and tells how to call them."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np

from models import whole_file
from models.problem import Problem
from serving import reference_file, requests
from serving.engines import kernels, registry
from serving.engines.engine import Body, Ports
from serving.profile import ServingProfile
from serving.runtimes.process import launch, prometheus
from serving.target import Target

if TYPE_CHECKING:
    from models.bundle import Bundle

CHECK_EVERY_S = 0.5


def choose_bundle(folder: Path | None, artifacts: Path, model: str) -> Bundle:
    """The bundle in ``folder``, else the highest version of ``model`` in ``artifacts``; raises `Problem`."""
    from models import bundle

    if folder is None:
        versions = bundle.versions(artifacts, model)
        if not versions:
            raise Problem(f"{artifacts / model}: no exported bundle; run make export, or name one with --bundle")
        folder = artifacts / model / str(versions[-1])
    return bundle.load(folder)


def choose_bundles(folders: Sequence[Path], artifacts: Path, models: Sequence[str]) -> list[Bundle]:
    """The bundles in ``folders``, else the newest of each of ``models``; no model twice. Raises `Problem`."""
    if folders:
        chosen = [choose_bundle(folder, artifacts, "") for folder in folders]
    else:
        chosen = [choose_bundle(None, artifacts, model) for model in models]
    names = [one.model for one in chosen]
    if len(set(names)) < len(names):
        raise Problem(f"models {', '.join(names)}: name each once; a server holds one version of a model here")
    return chosen


def load_targets(path: Path) -> list[Target]:
    """The running targets that `run` (or a comparison) wrote to ``path``, one for each server and model; raises
    `Problem`."""
    try:
        return [Target.from_dict(one) for one in json.loads(path.read_text("utf-8-sig"))]
    except (OSError, ValueError, TypeError) as error:
        raise Problem(f"{path}: no list of targets ({error}); is `make serve` running?") from None


@contextlib.contextmanager
def started(
    bundle: Bundle,
    profile: ServingProfile,
    folder: Path,
    *,
    beside: Sequence[Bundle] = (),
    targets: Iterable[str],
    ports: Mapping[str, Ports] = MappingProxyType({}),
    cores: Sequence[int] = (),
    programs: Mapping[str, Path] = MappingProxyType({}),
) -> Iterator[list[launch.RunningTarget]]:
    """The default ``targets`` of so many engines running, each with its configuration and log in ``folder``; stopped at
    the end in any case.

    ``beside``: bundles of other models that each server is to hold; ``ports``: by target, else free ones; ``programs``:
    see `launch.start`.
    """
    chosen = list(targets)
    engines = [registry.of_target(name) for name in chosen]
    launch.require(engines, programs)
    for one, engine in itertools.product([bundle, *beside], engines):  # before the first of them is started
        kernels.require(engine, one, profile)
    with contextlib.ExitStack() as running:
        up = []
        for name in chosen:
            print(f"starting {name} ...", file=sys.stderr, flush=True)
            target = launch.start(
                name,
                bundle,
                profile,
                folder / name,
                beside=beside,
                cores=cores,
                programs=programs,
                fixed_ports=ports.get(name, launch.ANY),
            )
            up.append(running.enter_context(target))
        yield up


def run(
    bundles: Sequence[Bundle],
    profile: ServingProfile,
    folder: Path,
    *,
    targets: Iterable[str],
    ports: Mapping[str, Ports] = MappingProxyType({}),
    cores: Sequence[int] = (),
    programs: Mapping[str, Path] = MappingProxyType({}),
) -> int:
    """Serve ``bundles`` until KeyboardInterrupt; ``folder``/targets.json names the endpoints for as long.

    Raises `Problem`.
    """
    folder = folder.resolve()  # the curl lines work from any folder
    listing = folder / "targets.json"
    try:
        with contextlib.ExitStack() as running:
            servers = started(
                *(bundles[0], profile, folder),
                beside=bundles[1:],
                targets=targets,
                ports=ports,
                cores=cores,
                programs=programs,
            )
            up = running.enter_context(servers)
            _watched(running, up, folder / "prometheus")
            held = [one.target.asked_for(bundle) for one in up for bundle in bundles]
            for target in held:
                sample = (
                    folder / target.name / f"sample.{requests.call(target, 'rest').content_type.rpartition('/')[2]}"
                )
                what = write_sample(bundles[0], target, sample)
                print(describe(target, sample))
            print(f"\nEach sample holds {what}. Endpoints: {listing}. Ctrl-C stops the servers.", flush=True)
            whole_file.write_json(listing, [target.to_dict() for target in held])
            while True:
                for one in up:
                    one.check()
                time.sleep(CHECK_EVERY_S)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 0
    finally:
        listing.unlink(missing_ok=True)


def _watched(running: contextlib.ExitStack, up: Sequence[launch.RunningTarget], folder: Path) -> None:
    """A Prometheus that scrapes the servers, where it is installed: `make watch` shows what it knows."""
    shutil.rmtree(folder, ignore_errors=True)  # an earlier session's data say nothing of this one
    beside = os.sched_getaffinity(0) - {core for one in up for core in one.target.cores}
    scraper = prometheus.start(folder, tuple(sorted(beside)) if any(one.target.cores for one in up) else ())
    if scraper is None:
        print("Prometheus is not installed: make watch will have nothing to show", file=sys.stderr)
        return
    running.callback(scraper.stop)
    scraper.watch_servers([(one.target, one.process.pid) for one in up])
    print(f"\nPrometheus {scraper.version}: {scraper.url}  (make watch shows the servers live)")


def write_sample(bundle: Bundle, target: Target, path: Path) -> str:
    """Write the first test image as a body that ``target`` takes; returns what it shows, in words."""
    with np.load(bundle.reference) as saved:
        images, labels = reference_file.samples(saved).images[:1], saved["labels"][:1]
    body = requests.call(target, "rest").encode(images)
    path.write_bytes(body.content if isinstance(body, Body) else body)
    label = int(labels[0])
    return f"the first test image: class {label}, {bundle.class_names[label]!r}"


def describe(target: Target, sample: Path) -> str:
    """How to call ``target``, with a curl line ready to paste."""
    url = f"http://{target.rest}{requests.rest_path(target)}"
    cores = ", ".join(map(str, target.cores))
    kind = requests.call(target, "rest").content_type
    curl = f"curl -s -H 'Content-Type: {kind}' --data-binary @{shlex.quote(str(sample))} {url}"
    return (
        f"\n{target.name}: {target.engine} {target.engine_version}\n"
        f"  gRPC     {target.grpc}  {requests.grpc_method(target)}\n"
        f"  REST     {url}\n"
        f"  metrics  {target.metrics}\n"
        f"{f'  cores    {cores}; a load test takes others{chr(10)}' if cores else ''}"
        f"  try      {curl}"
    )
