"""Brings our images to where the cluster's nodes find them: a registry, or the nodes of a cluster on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from models.bundle import Bundle
from models.problem import Problem
from serving.containers import docker_cli
from serving.containers import images as containers
from serving.kubernetes.settings import Settings

GPU_TORCH = "cu130"
REFUSED = re.compile(r"denied|unauthorized|authentication required|no basic auth credentials|forbidden", re.IGNORECASE)
UNREACHABLE = re.compile(
    r"connection refused|no such host|i/o timeout|server gave HTTP response to HTTPS|x509|name resolution",
    re.IGNORECASE,
)


def how(settings: Settings) -> containers.Build:
    """How the images of a deployment are built, and what they are called."""
    prefix = f"{settings.registry.rstrip('/')}/" if settings.registry else ""
    return containers.Build(gpu=settings.gpu, torch=GPU_TORCH if settings.gpu else "cpu", registry=prefix)


def publish(context: str, settings: Settings, bundle: Bundle, artifacts: Path, say: Callable[[str], None]) -> None:
    """Build the three images and push them, or load them into the nodes of kind or minikube. Raises `Problem`."""
    if not settings.registry:
        require_loadable(context)
    say(f"images   building for {bundle.model} version {bundle.version}")
    for name in containers.build(bundle, containers.chosen(embedded=settings.embedded), how(settings), artifacts):
        if settings.registry:
            push(name)
            say(f"pushed   {name}")
        else:
            _load(context, name)
            say(f"loaded   {name} into {context}")


def push(image: str) -> None:
    """Push an image to the registry in its name. Raises `Problem`."""
    done = docker_cli.docker("push", image, check=False)
    if done.returncode == 0:
        return
    lines = (done.stderr + done.stdout).strip().splitlines()
    host = image.partition("/")[0]
    if REFUSED.search(done.stderr):
        raise Problem(f"{host} refuses {image}: docker login {host}, with an account that may push there", lines[-3:])
    if UNREACHABLE.search(done.stderr):
        raise Problem(f"{host} cannot be reached: is REGISTRY={host}/... right, and reachable from here?", lines[-3:])
    raise docker_cli.explain(f"docker push {image}", done.stderr + done.stdout)


def _loader(context: str, image: str) -> list[str] | None:
    """The command that loads an image into the nodes of a cluster on this machine."""
    if context.startswith("kind-"):
        return ["kind", "load", "docker-image", image, "--name", context.removeprefix("kind-")]
    if context.startswith("minikube"):
        return ["minikube", "image", "load", image, "--profile", context]
    return None


def require_loadable(context: str) -> None:
    """Raise `Problem` where there is no registry and no way to bring images into the cluster's nodes."""
    command = _loader(context, "")
    if command is None:
        raise Problem(
            f"{context} is neither kind nor minikube: give REGISTRY=registry.example.com/team, from which nodes can "
            f'pull, or ARGS="--no-images" where they have the images already'
        )
    if shutil.which(command[0]) is None:
        raise Problem(f"{command[0]} is not on the PATH: it brings images into {context}")


def _load(context: str, image: str) -> None:
    command = _loader(context, image)
    assert command
    _run(command, f"loading {image} into {context}")


def _run(command: Sequence[str], doing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise Problem(f"{doing} failed: {lines[-1] if lines else 'it said nothing'}", lines[:-1][-5:])
