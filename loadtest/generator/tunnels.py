"""The way of the generator's connections to a target that is reached through a proxy."""

from __future__ import annotations

from dataclasses import dataclass

from loadtest.generator.connection import NewTunnel, Tunnel
from serving import proxies
from serving.target import Target


@dataclass(frozen=True)
class Through:
    """A proxy: its "host:port", which connections go to, and what each of them asks for a tunnel; None: nothing, as
    requests name the whole URL."""

    proxy: str
    tunnel: NewTunnel | None


def through(target: Target, protocol: str) -> Through | None:
    """For connections to ``target`` over ``protocol``; None: they go straight there. Raises `Problem`."""
    way = proxies.way(target, protocol)
    if way is None:
        return None
    connect, named = way.connect, way.named

    def refused(answer: bytes) -> str:
        return proxies.refusal(target, protocol, way, answer)

    return Through(way.proxy, (lambda: Tunnel(connect, named, refused)) if connect else None)
