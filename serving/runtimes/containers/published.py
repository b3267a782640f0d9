"""The ports that a stack publishes on this host's loopback, and the environment variables that choose others."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass

from models.problem import Problem
from serving import ports
from serving.runtimes.containers.servers import container_of, engines


@dataclass(frozen=True)
class Published:
    """A port on loopback.

    variable  of docker/compose.yaml; an environment variable of that name wins over ``default``
    services  those that may publish it; what stands in for another has that one's ports
    purpose   what people find there
    """

    variable: str
    default: int
    services: tuple[str, ...]
    purpose: str

    def by(self, services: Collection[str]) -> str | None:
        """Which of these services publishes it, if any does."""
        return next((one for one in self.services if one in services), None)

    def url(self, port: int) -> str:
        """Where people find it, at ``port``."""
        return f"{'' if 'GRPC' in self.variable else 'http://'}localhost:{port}"


BESIDE = (
    Published("TANDEM_PROMETHEUS_PORT", 9090, ("prometheus",), "Prometheus"),
    Published("TANDEM_ALERTMANAGER_PORT", 9093, ("alertmanager",), "Alertmanager"),
    Published("TANDEM_GRAFANA_PORT", 3000, ("grafana",), "Grafana"),
    Published("TANDEM_LOCUST_PORT", 8089, ("loadtest",), "Locust's web page"),
)


def known() -> tuple[Published, ...]:
    """Every port that docker/compose.yaml publishes: the servers', then the others'."""
    servers: dict[str, Published] = {}
    for container in map(container_of, engines()):
        for one in container.published:
            before = servers[one.variable].services if one.variable in servers else ()
            servers[one.variable] = Published(one.variable, one.port, (*before, container.image), one.purpose)
    return (*servers.values(), *BESIDE)


def chosen() -> dict[str, int]:
    """The ports to publish, by variable. Raises `Problem` for a value in the environment that is none, or that another
    has, too."""
    found = {one.variable: _port(one.variable, one.default) for one in known()}
    variables: dict[int, str] = {}
    for variable, port in found.items():
        if port in variables:
            raise Problem(f"{variable}={port}: {variables[port]} is the same port; choose another for one of them")
        variables[port] = variable
    return found


def require_free(one: Published, port: int) -> None:
    """Raise `Problem` where ``port`` is taken."""
    try:
        ports.require_free(port, one.purpose)
    except Problem:
        raise Problem(
            f"port {port} for {one.purpose} is taken: stop what uses it (ss -ltnp shows it), or choose another: "
            f"{one.variable}=... make up"
        ) from None


def _port(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Problem(f"{name}={text}: use a port from 1 to 65535")
    return int(text)
