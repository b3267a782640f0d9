"""Brings our images to where the cluster's nodes find them: a registry, or the nodes of a cluster on this machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from models import child_environment
from models.bundle import Bundle
from models.problem import Problem
from serving.runtimes.containers import images as containers
from serving.runtimes.containers import registry
from serving.runtimes.kubernetes.settings import Settings

GPU_TORCH = "cu130"


def how(settings: Settings, *, digests: bool = True) -> containers.Build:
    """How the images of a deployment are built, and what they are called; ``digests``: of the base images."""
    torch = GPU_TORCH if settings.gpu else "cpu"
    prefix = registry.prefix(settings.registry)
    return containers.Build(gpu=settings.gpu, torch=torch, digests=digests, registry=prefix)


def publish(
    context: str,
    settings: Settings,
    bundle: Bundle,
    artifacts: Path,
    say: Callable[[str], None],
    *,
    digests: bool = True,
) -> None:
    """Build the images and push them, or load them into the nodes of kind or minikube. Raises `Problem`."""
    if not settings.registry:
        require_loadable(context)
    say(f"images   building for {bundle.model} version {bundle.version}")
    chosen = (*map(containers.of, settings.servers.values()), containers.LOADTEST)
    build = how(settings, digests=digests)
    if not settings.registry:
        for name in containers.build(bundle, chosen, build, artifacts):
            _load(context, name)
            say(f"loaded   {name} into {context}")
        return
    # Compressing an image for a push takes one core and longer than building the next: both at once.
    with ThreadPoolExecutor(len(chosen)) as pool:
        pushes: list[Future[registry.Pushed]] = []
        for image in chosen:
            for failed in (one for one in pushes if one.done() and one.exception()):
                failed.result()
            (name,) = containers.build(bundle, [image], build, artifacts)
            pushes.append(pool.submit(registry.push, name))
        for push in pushes:
            say(f"pushed   {push.result()}")


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
    done = subprocess.run(command, env=child_environment.tool(), capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise Problem(f"{doing} failed: {lines[-1] if lines else 'it said nothing'}", lines[:-1][-5:])
