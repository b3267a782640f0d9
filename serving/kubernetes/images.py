"""Brings our images to where the cluster's nodes find them: a registry, or the nodes of a cluster on this machine."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence

from models.bundle import Bundle
from models.problem import Problem
from serving.kubernetes import plan
from serving.kubernetes.kubectl import Cluster
from serving.kubernetes.settings import Settings

REFUSED = re.compile(r"denied|unauthorized|authentication required|no basic auth credentials|forbidden", re.IGNORECASE)
UNREACHABLE = re.compile(
    r"connection refused|no such host|i/o timeout|server gave HTTP response to HTTPS|x509", re.IGNORECASE
)


def publish(cluster: Cluster, settings: Settings, bundle: Bundle, say: Callable[[str], None]) -> None:
    """Tag and push the three images, or load them into the nodes of kind or minikube. Raises `Problem`."""
    for name in plan.OUR_IMAGES:
        reference = plan.image(settings, name)
        local = reference.removeprefix(f"{settings.registry.rstrip('/')}/") if settings.registry else reference
        _require_local(local, bundle)
        if settings.registry:
            _push(local, reference)
            say(f"pushed   {reference}")
        else:
            _load(cluster.context, reference)
            say(f"loaded   {reference} into {cluster.context}")


def _require_local(image: str, bundle: Bundle) -> None:
    if _docker("image", "inspect", image).returncode:
        raise Problem(
            f"image {image} is not on this machine: make images (for {bundle.model} version {bundle.version}), or "
            f'ARGS="--no-images" where the nodes have it'
        )


def _push(local: str, reference: str) -> None:
    _docker("tag", local, reference)
    done = _docker("push", reference)
    if done.returncode == 0:
        return
    lines = (done.stderr + done.stdout).strip().splitlines()
    host = reference.partition("/")[0]
    if REFUSED.search(done.stderr):
        raise Problem(
            f"{host} refuses {reference}: docker login {host}, with an account that may push there", lines[-3:]
        )
    if UNREACHABLE.search(done.stderr):
        raise Problem(f"{host} cannot be reached: is REGISTRY={host}/… right, and reachable from here?", lines[-3:])
    raise Problem(f"docker push {reference} failed: {lines[-1] if lines else 'docker said nothing'}", lines[:-1][-5:])


def _load(context: str, image: str) -> None:
    if context.startswith("kind-"):
        command = ["kind", "load", "docker-image", image, "--name", context.removeprefix("kind-")]
    elif context == "minikube" or context.startswith("minikube"):
        command = ["minikube", "image", "load", image, "--profile", context]
    else:
        raise Problem(
            f"{context} is neither kind nor minikube: give REGISTRY=registry.example.com/team, from which its nodes "
            f'can pull, or ARGS="--no-images" where they have the images already'
        )
    if shutil.which(command[0]) is None:
        raise Problem(f"{command[0]} is not on the PATH: it brings images into {context}")
    _run(command, f"loading {image} into {context}")


def _run(command: Sequence[str], doing: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr + done.stdout).strip().splitlines()
        raise Problem(f"{doing} failed: {lines[-1] if lines else 'it said nothing'}", lines[:-1][-5:])


def _docker(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("docker")
    if program is None:
        raise Problem(
            "docker is not on the PATH: it builds and pushes the images; where they are pushed already: --no-images"
        )
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False)
