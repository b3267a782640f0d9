"""Starts a server that takes TensorFlow Serving's flags: the real one, or the embedded one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.problem import Problem
from serving import ports as tcp
from serving.engines.engine import Engine, Launch, Ports, Served, Site
from serving.profile import ServingProfile

if TYPE_CHECKING:
    from models.bundle import Bundle

ROOT = Path(__file__).resolve().parents[3]


@dataclass(frozen=True)
class Program:
    """What runs: the command to put flags behind, and its version."""

    command: tuple[str, ...]
    version: str


def find(name: str, named: Path | None = None) -> Program:
    """The real server: ``named``, else ``name`` on the PATH. Raises `Problem` where there is none, or one that does not
    run."""
    program = str(named) if named else shutil.which(name)
    if program is None:
        raise Problem(f"{name} is not on the PATH: install TensorFlow Serving, or name the program")
    try:
        done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise Problem(f"{program} --version fails ({error}): name a working {name}") from None
    found = re.search(r"ModelServer:\s*(\S+)", done.stdout)
    library = re.search(r"Library:\s*(\S+)", done.stdout)
    version = f"{found[1] if found else 'unknown'}" + (f" (tensorflow {library[1]})" if library else "")
    return Program((program,), version)


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
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return Launch(
        command=[*program.command, *rendering.arguments],
        environment={"PYTHONPATH": os.pathsep.join(paths), **rendering.environment},
        ports=chosen,
        version=program.version,
        rendering=rendering,
        ready=lambda _: True,  # it answers no prediction before
    )
