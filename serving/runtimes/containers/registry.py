"""Pushes our images to a registry, and says in a user's words why one cannot be pushed."""

from __future__ import annotations

import re
from dataclasses import dataclass

from models.problem import Problem
from serving.runtimes.containers import docker_cli

REFUSED = re.compile(r"denied|unauthorized|authentication required|no basic auth credentials|forbidden", re.IGNORECASE)
UNREACHABLE = re.compile(
    r"connection refused|no such host|i/o timeout|server gave HTTP response to HTTPS|x509|name resolution|"
    r"no route to host|TLS handshake timeout|Client\.Timeout exceeded",
    re.IGNORECASE,
)
NAME = re.compile(r"[A-Za-z0-9.-]+(:[0-9]+)?(/[a-z0-9._-]+)*")
DIGEST = re.compile(r"\bdigest: (sha256:[0-9a-f]{64})\b")


@dataclass(frozen=True)
class Pushed:
    """An image as a registry has it: its name with the tag, its manifest's digest, and its size unpacked (bytes)."""

    name: str
    digest: str
    size: int

    def __str__(self) -> str:
        return f"{self.name} {self.digest}, {self.size / 1e6:,.0f} MB"


def prefix(registry: str) -> str:
    """What stands before our images' names for a registry, such as "host:5000/team/"; "" for none. Raises `Problem`."""
    if registry and not NAME.fullmatch(registry.rstrip("/")):
        raise Problem(f"REGISTRY={registry}: use HOST/TEAM or HOST:PORT/TEAM, the team in lower case and no https://")
    return f"{registry.rstrip('/')}/" if registry else ""


def push(image: str) -> Pushed:
    """Push an image to the registry in its name. Raises `Problem`."""
    size = docker_cli.docker("image", "inspect", "--format", "{{.Size}}", image, doing=f"looking for {image}").stdout
    done = docker_cli.docker("push", image, check=False)
    if done.returncode == 0 and (digest := DIGEST.search(done.stdout)):
        return Pushed(image, digest[1], int(size))
    lines = (done.stderr + done.stdout).strip().splitlines()
    host = image.partition("/")[0]
    if REFUSED.search(done.stderr):
        raise Problem(f"{host} refuses {image}: docker login {host}, with an account that may push there", lines[-3:])
    if UNREACHABLE.search(done.stderr):
        raise Problem(f"{host} cannot be reached: is REGISTRY={host}/... right, and reachable from here?", lines[-3:])
    raise docker_cli.explain(f"docker push {image}", done.stderr + done.stdout)
