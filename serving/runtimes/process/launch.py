"""Starts a target as a process of this machine, from a bundle and a profile, and stops it for sure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from models.problem import Problem
from serving import ports
from serving.client import Client, RequestFailed
from serving.engines.tensorflow_serving import config as tensorflow_serving
from serving.engines.torchserve import config as torchserve_config
from serving.engines.torchserve.server import TorchServe
from serving.profile import ServingProfile
from serving.runtimes.process.server_process import ServerProcess
from serving.target import STACKS, Target

if TYPE_CHECKING:
    from models.bundle import Bundle

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class FixedPorts:
    """Ports of a target on loopback; 0 picks a free one. TF Serving serves its metrics on the REST port."""

    grpc: int = 0
    rest: int = 0
    metrics: int = 0


class RunningTarget:
    """A target that answers predictions; a context manager that stops it."""

    def __init__(self, target: Target, process: ServerProcess, stop: Callable[[], None]) -> None:
        self.target = target
        self.process = process
        self._stop = stop

    def check(self) -> None:
        """Raise `Problem`, with the server's last log lines, if it or one of its workers died."""
        self.process.check()

    def stop(self) -> None:
        """Stop the server and everything that it started. Idempotent."""
        self._stop()

    def __enter__(self) -> RunningTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    stack: str,
    bundle: Bundle,
    profile: ServingProfile,
    folder: Path,
    *,
    beside: Sequence[Bundle] = (),
    cores: Sequence[int] = (),
    tensorflow_model_server: Path | None = None,
    startup_timeout_s: float = 120,
    fixed_ports: FixedPorts = FixedPorts(),
) -> RunningTarget:
    """Start ``stack`` and return once every model answers a prediction over gRPC and over REST.

    ``beside``: bundles of other models that the same server is to hold (see `Target.asked_for`). ``folder`` receives
    the rendered configuration, the log (server.log) and target.json. ``cores`` pins the server and all that it starts.
    Raises `Problem` where it cannot be started, or dies, or is not ready in time.
    """
    if stack not in STACKS:
        raise Problem(f"target {stack!r}: use one of {', '.join(STACKS)}")
    folder.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "name": stack,
        "runtime": "process",
        "model": bundle.model,
        "version": bundle.version,
        "input_shape": tuple(bundle.input_shape),
        "classes": bundle.classes,
        "cores": tuple(cores),
    }
    deadline = time.monotonic() + startup_timeout_s
    bundles = [bundle, *beside]
    if stack == "pytorch":
        running = _start_torchserve(bundles, profile, folder, cores, fixed_ports, common, deadline)
    else:
        running = _start_tensorflow(bundles, profile, folder, cores, tensorflow_model_server, fixed_ports, common)
    try:
        for one in bundles:
            ready = partial(answers, running.target.asked_for(one))
            running.process.wait_until(ready, deadline - time.monotonic())
        running.process.watch_workers()
        running.target.save(folder / "target.json")
    except BaseException:
        running.stop()
        raise
    return running


def _start_torchserve(
    bundles: Sequence[Bundle],
    profile: ServingProfile,
    folder: Path,
    cores: Sequence[int],
    fixed: FixedPorts,
    common: dict[str, Any],
    deadline: float,
) -> RunningTarget:
    spare = ports.free(5)
    chosen = torchserve_config.Ports(
        rest=_port(fixed.rest, spare[0], "TorchServe's REST API"),
        management=spare[1],
        metrics=_port(fixed.metrics, spare[2], "TorchServe's metrics"),
        grpc=_port(fixed.grpc, spare[3], "TorchServe's gRPC API"),
        grpc_management=spare[4],
    )
    available = len(cores) or len(os.sched_getaffinity(0))
    server = TorchServe({one.model: one.archive for one in bundles}, profile, folder, chosen, cores, available)
    try:
        server.process.wait_until(server.model_loaded, deadline - time.monotonic())
    except BaseException:
        server.stop()
        raise
    target = Target(
        **common,
        engine="torchserve",
        engine_version=server.version,
        grpc=f"{ports.LOOPBACK}:{chosen.grpc}",
        rest=f"{ports.LOOPBACK}:{chosen.rest}",
        metrics=f"http://{ports.LOOPBACK}:{chosen.metrics}{torchserve_config.METRICS_PATH}",
        settings=server.rendering.settings,
        notes=server.rendering.notes,
    )
    return RunningTarget(target, server.process, server.stop)


def _start_tensorflow(
    bundles: Sequence[Bundle],
    profile: ServingProfile,
    folder: Path,
    cores: Sequence[int],
    model_server: Path | None,
    fixed: FixedPorts,
    common: dict[str, Any],
) -> RunningTarget:
    engine = tensorflow_serving.find_engine(model_server)
    spare = ports.free(2)
    grpc_port = _port(fixed.grpc, spare[0], "TF Serving's gRPC API")
    rest_port = _port(fixed.rest, spare[1], "TF Serving's REST API")
    rendering = tensorflow_serving.render(
        profile,
        model=bundles[0].model,
        model_base_path=str(bundles[0].savedmodel.resolve()),
        beside={one.model: str(one.savedmodel.resolve()) for one in bundles[1:]},
        configuration=str(folder.resolve()),
        grpc_port=grpc_port,
        rest_port=rest_port,
    )
    rendering.write(folder)
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = ServerProcess(
        engine.name,
        tensorflow_serving.command_line(engine, rendering),
        folder / "server.log",
        environment={"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(profile.threads)},
        cores=cores,
        folder=folder,
    )
    target = Target(
        **common,
        engine=engine.name,
        engine_version=engine.version,
        grpc=f"{ports.LOOPBACK}:{grpc_port}",
        rest=f"{ports.LOOPBACK}:{rest_port}",
        metrics=f"http://{ports.LOOPBACK}:{rest_port}{tensorflow_serving.METRICS_PATH}",
        settings=rendering.settings,
        notes=(*rendering.notes, *engine.notes, *tensorflow_serving.sharing(engine, len(bundles))),
    )
    return RunningTarget(target, process, process.stop)


def _port(fixed: int, spare: int, purpose: str) -> int:
    return ports.require_free(fixed, purpose) if fixed else spare


def answers(target: Target, timeout_s: float = 5.0) -> bool:
    """Whether the model answers one blank image over REST and gRPC, each in ``timeout_s`` seconds."""
    image = np.zeros((1, *target.input_shape), np.uint8)
    try:
        with Client(target, timeout_s=timeout_s) as client:
            return all(len(client.predict(protocol, image)) == 1 for protocol in ("rest", "grpc"))
    except RequestFailed:
        return False
