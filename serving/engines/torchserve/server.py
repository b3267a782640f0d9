"""Starts TorchServe itself: Java directly, so that its whole process group is ours to stop."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from models.problem import Problem
from serving import ports as tcp
from serving.engines.engine import Launch, Ports, Served, Site
from serving.engines.torchserve import java, rendering
from serving.ports import LOOPBACK
from serving.profile import ServingProfile

if TYPE_CHECKING:
    from models.bundle import Bundle

# What TorchServe logs when a worker dies while it loads the model; it would try again for minutes.
FAILED = re.compile(r"Backend worker process died|WorkerInitializationException|Load model failed")
# No proxy leads to this machine, whatever HTTP_PROXY says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def launch(
    bundles: Sequence[Bundle], profile: ServingProfile, folder: Path, *, ports: Ports, cores: Sequence[int]
) -> Launch:
    """TorchServe with the archives of ``bundles``; see `Engine.launch`."""
    runtime = java.find()
    archives = {one.model: one.archive for one in bundles}
    rest, management, metrics, grpc, grpc_management = tcp.choose(
        [
            (ports.rest, "TorchServe's REST API"),
            (ports.management, "TorchServe's management API"),
            (ports.metrics, "TorchServe's metrics"),
            (ports.grpc, "TorchServe's gRPC API"),
            (ports.grpc_management, "TorchServe's gRPC management API"),
        ]
    )
    described = [f"http://{LOOPBACK}:{management}/models/{name}" for name in archives]
    # Not below `folder`: a worker's Unix socket lies here, and its path may have no more than 107 characters.
    # Gone when it is released, and at the end of this process at the latest.
    made = tempfile.TemporaryDirectory(prefix="tandem-", ignore_cleanup_errors=True)
    scratch, release = Path(made.name), made.cleanup
    try:
        store = _store(archives, scratch)
        site = Site(
            host=LOOPBACK,
            ports=Ports(rest, grpc, metrics, management, grpc_management),
            configuration=str(folder.resolve()),
            models=str(store),
            cores=len(cores) or len(os.sched_getaffinity(0)),
        )
        served = [
            Served(name, rendering.archive_version(archive), str(archive.resolve()))
            for name, archive in archives.items()
        ]
        rendered = rendering.render(profile, served, site)
        rendered.write(folder)
        return Launch(
            command=command_line(runtime, folder.resolve(), store, scratch),
            environment={**rendered.environment, **scratch_settings(scratch)},
            ports=site.ports,
            version=versions(runtime),
            rendering=rendered,
            ready=lambda log: _loaded(log, described),
            release=release,
        )
    except BaseException:
        release()
        raise


def _loaded(log: str, described: Sequence[str]) -> bool:
    """Whether every worker has loaded its model. Raises `Problem` where one failed: TorchServe would just retry."""
    if FAILED.search(log):
        raise Problem("TorchServe cannot load the model")
    return all(map(_ready, described))


def _store(archives: Mapping[str, Path], scratch: Path) -> Path:
    """The folder that holds all archives: the only one's own, or links in one below ``scratch``."""
    if len(archives) == 1:
        return next(iter(archives.values())).parent.resolve()
    store = scratch / "store"
    store.mkdir()
    for archive in archives.values():
        (store / archive.name).symlink_to(archive.resolve())
    return store


def _ready(description: str) -> bool:
    """Whether all workers of the model described at this address are ready."""
    try:
        with _DIRECT.open(description, timeout=5) as answer:
            workers = json.load(answer)[0]["workers"]
    except (OSError, ValueError, KeyError, IndexError):
        return False
    return bool(workers) and all(worker["status"] == "READY" for worker in workers)


def command_line(runtime: java.Java, configuration: Path, model_store: Path, scratch: Path) -> list[str]:
    """The command that starts TorchServe with the files that `Rendering.write` wrote into ``configuration``.

    ``scratch``: a writable folder with a short path, for the unpacked model and the workers' sockets. Raises `Problem`
    where TorchServe is not installed, or could not load its library for those sockets.
    """
    home = _home()
    return [
        str(runtime.executable),
        f"-Dmodel_server_home={home}",
        f"-Dlog4j.configurationFile={(configuration / 'log4j2.xml').as_uri()}",
        f"-Djava.io.tmpdir={scratch}",
        f"-Dio.netty.native.workdir={_for_libraries(scratch, configuration)}",
        *("-cp", str(home / "ts" / "frontend" / "*")),
        "org.pytorch.serve.ModelServer",
        *("--python", sys.executable),
        *("-f", str(configuration / "config.properties")),
        *("-s", str(model_store)),
        "-ncs",
    ]


def _for_libraries(*places: Path) -> Path:
    """The first of these folders that libraries load from. Raises `Problem` where none is: there TorchServe would
    speak to its workers over TCP ports from 9000 on, in place of Unix sockets, and not say so."""
    for place in places:
        if os.access(place, os.W_OK) and not os.statvfs(place).f_flag & os.ST_NOEXEC:
            return place
    raise Problem(
        f"{places[0]}: on a mount with noexec, where TorchServe cannot load its library for its workers' sockets: "
        "name another temporary folder with TMPDIR, or mount it with exec"
    )


def scratch_settings(scratch: Path) -> dict[str, str]:
    """Where TorchServe may write: environment variables for `scratch`."""
    return {"LOG_LOCATION": str(scratch), "METRICS_LOCATION": str(scratch)}


def versions(runtime: java.Java) -> str:
    """TorchServe's version, with those of torch and Java. Raises `Problem` where it is not installed."""
    _home()
    return f"{version('torchserve')} (torch {version('torch')}, Java {runtime.version})"


def _home() -> Path:
    """The folder that holds TorchServe's package; raises `Problem` where it is not installed."""
    spec = importlib.util.find_spec("ts")
    if spec is None or not spec.submodule_search_locations:
        raise Problem("TorchServe is not installed: pip install torchserve")
    return Path(next(iter(spec.submodule_search_locations))).resolve().parent
