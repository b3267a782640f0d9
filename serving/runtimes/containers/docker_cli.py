"""The docker and Compose command lines, and what their errors mean to a user."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from models import child_environment
from models.problem import Problem

INSTALL = "install it (https://docs.docker.com/engine/install, or apt-get install docker.io)"
WITHOUT = "or leave RUNTIME out: servers then run as processes and need no Docker"

# The first pattern found in what docker says wins: it is the cause, or the closest to it.
MEANINGS: tuple[tuple[str, str], ...] = (
    (
        r"permission denied while trying to connect|dial unix \S+: connect: permission denied|PermissionError\(13",
        "you may not use the Docker daemon: sudo usermod -aG docker $USER and log in again, or run as root",
    ),
    (
        r"Cannot connect to the Docker daemon|Couldn't connect to Docker daemon|Is the docker daemon running|"
        r"error during connect|Error while fetching server API version",
        f"the Docker daemon is not running{{host}}: sudo systemctl start docker, {WITHOUT}",
    ),
    (
        r"no space left on device|disk quota exceeded",
        "no disk space left for Docker: docker system prune frees what nothing uses (docker system df shows it)",
    ),
    (
        r"(?:Bind for \S+:(?P<port>\d+) failed: port is already allocated)|"
        r"(?:listen tcp\d? \S+:(?P<port2>\d+): bind: address already in use)",
        "port {port} is taken: stop what uses it (ss -ltnp shows it), or choose another with {variable}",
    ),
    (
        r"could not select device driver \S* ?with capabilities: \[\[gpu|unknown or invalid runtime name: nvidia|"
        r"nvidia-container-cli: .*(?:error|failed)",
        "no GPU for containers: install NVIDIA's driver and the NVIDIA Container Toolkit, or leave --gpu out",
    ),
    (
        r"no matching manifest for (?P<platform>\S+)|exec format error",
        "this image exists for amd64 only: use an amd64 machine",
    ),
)
CANNOT_PULL = re.compile(
    r"pull access denied|manifest unknown|manifest for \S+ not found|no such host|dial tcp|i/o timeout|TLS handshake|"
    r"toomanyrequests|Temporary failure in name resolution|connection refused|net/http: request canceled|x509:|"
    r"No such image|unauthorized: |failed to resolve|proxyconnect|EOF$",
    re.MULTILINE,
)


def program() -> str:
    """The docker command; raises `Problem` where there is none."""
    found = shutil.which("docker")
    if found is None:
        raise Problem(f"Docker is not installed: {INSTALL}, {WITHOUT}")
    return found


def explain(doing: str, output: str, *, pulling: str | None = None) -> Problem:
    """The `Problem` behind a docker command's output. ``pulling``: what to do where an image cannot be pulled."""
    host = os.environ.get("DOCKER_HOST")
    for pattern, meaning in MEANINGS:
        if found := re.search(pattern, output):
            groups = found.groupdict()
            values = {
                "host": f" at {host}" if host else "",
                "port": groups.get("port") or groups.get("port2"),
                "variable": "a TANDEM_..._PORT variable (docs/containers.md)",
            }
            return Problem(meaning.format(**values))
    lines = [line for line in output.splitlines() if line.strip()][-10:]
    if pulling and CANNOT_PULL.search(output):
        return Problem(f"{doing}: an image cannot be pulled: {pulling}", lines)
    return Problem(f"{doing} failed; docker's last words are above", lines)


def docker(*arguments: str, doing: str = "docker", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a short docker command; raises `Problem` where it fails and ``check`` is set."""
    done = subprocess.run(
        [program(), *arguments], env=child_environment.tool(), capture_output=True, text=True, check=False
    )
    if check and done.returncode:
        raise explain(doing, done.stderr + done.stdout)
    return done


def require_engine() -> None:
    """Raise `Problem` where no usable Docker engine answers, or it is not on amd64."""
    done = docker("version", "--format", "{{.Server.Arch}}", check=False)
    architecture = done.stdout.strip()
    if done.returncode or not architecture:
        raise explain("docker version", done.stderr + done.stdout)
    if architecture not in ("amd64", "x86_64"):
        raise Problem(
            f"this Docker engine runs on {architecture}: tensorflow/serving and the wheels exist for amd64 only; "
            "use an amd64 machine"
        )


def images_present(*names: str) -> list[str]:
    """Those of ``names`` that the engine has."""
    return [name for name in names if docker("image", "inspect", name, check=False).returncode == 0]


@functools.cache
def compose_command() -> tuple[str, ...]:
    """`docker compose` (the plugin), else `docker-compose`; raises `Problem` where there is neither."""
    plugin = docker("compose", "version", check=False)
    if plugin.returncode == 0 and "ompose" in plugin.stdout:
        return (program(), "compose")
    if standalone := shutil.which("docker-compose"):
        return (standalone,)
    raise Problem("Docker Compose is not installed: apt-get install docker-compose-plugin (or docker-compose)")


class Compose:
    """One Compose project: its files, name and variables."""

    def __init__(self, project: str, files: Sequence[Path], variables: Mapping[str, str]) -> None:
        self.project, self.variables = project, dict(variables)
        self._prefix = [*compose_command(), "-p", project]
        for file in files:
            self._prefix += ["-f", str(file)]

    def run(
        self,
        *arguments: str,
        doing: str = "docker compose",
        pulling: str | None = None,
        check: bool = True,
    ) -> str:
        """Run one Compose command and return its standard output; raises `Problem` where it fails."""
        done = subprocess.run(
            [*self._prefix, *arguments],
            capture_output=True,
            text=True,
            check=False,
            env={**child_environment.tool(), **self.variables},
        )
        if check and done.returncode:
            raise explain(doing, done.stderr + done.stdout, pulling=pulling)
        return done.stdout

    def container(self, service: str) -> str | None:
        """The id of a service's container, running or not; None where it has none."""
        filters = (f"label=com.docker.compose.project={self.project}", f"label=com.docker.compose.service={service}")
        arguments = [word for one in filters for word in ("--filter", one)]
        found = docker("ps", "--all", "--quiet", "--no-trunc", *arguments).stdout.split()
        return found[0] if found else None
