"""Starts a server that takes TensorFlow Serving's flags: the real one, or the embedded one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from models import child_environment
from models.problem import Problem
from serving import ports as tcp
from serving.engines.engine import Engine, Launch, Ports, Served, Site
from serving.engines.tensorflow_serving.identity import Program, identify
from serving.profile import ServingProfile

if TYPE_CHECKING:
    from models.bundle import Bundle

ROOT = Path(__file__).resolve().parents[3]


def find(name: str, named: Path | None = None) -> Program:
    """The real server: ``named``, else ``name`` on the PATH. Raises `Problem` where there is none, or one that does not
    run, or that is something else."""
    program = named or shutil.which(name)
    if program is None:
        raise Problem(f"{name} is not on the PATH: install TensorFlow Serving, or name the program")
    return identify(Path(program))


def launch(
    engine: Engine,
    program: Program,
    bundles: Sequence[Bundle],
    profile: ServingProfile,
    folder: Path,
    *,
    ports: Ports,
    cores: Sequence[int],
) -> Launch:
    """``program`` as it serves ``bundles`` with what ``engine`` renders; see `Engine.launch`. Its metrics are on the
    REST port."""
    if ports.rest and ports.metrics not in (0, ports.rest):
        raise Problem(
            f"port {ports.metrics} for {engine.title}'s metrics: they are on its REST port, {ports.rest}; leave one out"
        )
    wanted = [(ports.grpc, f"{engine.title}'s gRPC API"), (ports.rest or ports.metrics, f"{engine.title}'s REST API")]
    grpc, rest = tcp.choose(wanted)
    chosen = Ports(rest=rest, grpc=grpc, metrics=rest)
    site = Site(
        host=tcp.LOOPBACK,
        ports=chosen,
        configuration=str(folder.resolve()),
        models="",
        cores=len(cores) or len(os.sched_getaffinity(0)),
    )
    served = [Served(one.model, str(one.version), str(one.savedmodel.resolve())) for one in bundles]
    rendering = engine.render(profile, served, site)
    rendering.write(folder)
    # Also where engines lie that the user adds, as all of the project asks for those.
    paths = [str(ROOT), *filter(None, [child_environment.measured().get("PYTHONPATH")])]
    return Launch(
        command=[*program.command, *rendering.arguments],
        environment={"PYTHONPATH": os.pathsep.join(paths), **rendering.environment},
        ports=chosen,
        version=program.version,
        rendering=rendering,
        ready=lambda _: True,  # it answers no prediction before
    )
