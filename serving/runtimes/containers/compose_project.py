"""A Compose project: its name and files, what is left of it, and its end."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from models.problem import Problem
from serving.runtimes.containers import base_images, docker_cli
from serving.runtimes.containers.docker_cli import Compose
from serving.runtimes.containers.images import ROOT

DEFAULT = "tandem"


def name(given: str | None = None) -> str:
    """The project's: the one given, the environment's, or ours."""
    return given or os.environ.get("COMPOSE_PROJECT_NAME") or DEFAULT


def files(gpu: bool) -> list[Path]:
    """The Compose files of a stack."""
    names = ["compose.yaml", *(["compose.gpu.yaml"] if gpu else [])]
    return [ROOT / "docker" / name for name in names]


def down(artifacts: Path, given: str | None = None) -> list[str]:
    """Stop a project and remove its containers, networks and volumes; returns what was there. Raises `Problem`."""
    docker_cli.require_engine()
    project = name(given)
    before = left(project)
    # Compose wants every variable, though nothing of them matters here; profiles are named, or v1 leaves theirs.
    variables = {**base_images.variables(), "COMPOSE_PROFILES": "embedded,triton,loadtest,gpu"}
    Compose(project, files(gpu=True), variables).run(
        "down", "--volumes", "--remove-orphans", doing="docker compose down"
    )
    folder = artifacts / "containers"
    (folder / "targets.json").unlink(missing_ok=True)
    if project != DEFAULT:
        shutil.rmtree(folder / project, ignore_errors=True)
    if still := left(project):
        raise Problem(f"still there: {', '.join(still)}; remove them with docker")
    return before


def left(project: str) -> list[str]:
    """The containers, networks and volumes of a project, by kind and name."""
    found = []
    label = f"label=com.docker.compose.project={project}"
    for kind, command in (
        ("container", ("ps", "--all", "--format", "{{.Names}}")),
        ("network", ("network", "ls", "--format", "{{.Name}}")),
        ("volume", ("volume", "ls", "--format", "{{.Name}}")),
    ):
        names = docker_cli.docker(*command, "--filter", label).stdout.split()
        found += [f"{kind} {name}" for name in names]
    return found
