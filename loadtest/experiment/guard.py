"""A guard against load on servers of other people: few requests, unless somebody says that they may have more."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable, Sequence

from loadtest.experiment.file import Experiment
from models.problem import Problem
from serving.target import Target

MOST_RATE = 100.0
FLAG = "--i-may-load-this"
# Loopback, private (RFC 1918), link-local and unique local (RFC 4193) addresses, and those that carriers share (RFC
# 6598), which clusters use for pods and services.
_NEAR = tuple(
    ipaddress.ip_network(text)
    for text in (
        *("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "100.64.0.0/10"),
        *("::1/128", "fe80::/10", "fc00::/7"),
    )
)


def far(address: str, *, unknown: str = "") -> str:
    """The first address behind "host:port" that is neither this machine's nor in a private network; empty where all
    are, and ``unknown`` where none is known."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError:
        return unknown
    return next((text for text in _texts(found) if not (is_near(text) or _is_ours(text))), "")


def _texts(found: Iterable[tuple[object, object, object, str, tuple[object, ...]]]) -> list[str]:
    return list(dict.fromkeys(str(where[0]) for *_, where in found))


def is_near(text: str) -> bool:
    """Whether an address is in one of the networks of private use."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return any(address.version == network.version and address in network for network in _NEAR)


def _is_ours(text: str) -> bool:
    """Whether this machine has the address: only then may a socket be bound to it."""
    with socket.socket(socket.AF_INET6 if ":" in text else socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((text, 0))
        except OSError:
            return False
    return True


def most_rate(experiment: Experiment, targets: Sequence[Target]) -> float:
    """What `generator.most_rate` is to be where nobody has said that the ``targets``, which are up already, may be
    loaded: the experiment's own, or `MOST_RATE` where one of them is somebody else's. Raises `Problem` where the file
    asks for more than that."""
    own = experiment.generator.most_rate
    for target in targets:
        for protocol in experiment.protocols:
            # A proxy may know a name that nobody here does; else whoever connects says so.
            where = far(target.address(protocol), unknown="a name that is not known here" if target.proxy else "")
            if not where:
                continue
            for key, rate in {**experiment.asked_rates, "generator.most_rate": own}.items():
                if rate > MOST_RATE:
                    raise Problem(
                        f"target.{target.name}: {target.url(protocol)} ({where}) is neither this machine nor in a "
                        f"private network, and {key} asks for {rate:g} requests/s: stay at {MOST_RATE:g}, or say {FLAG}"
                    )
            return own or MOST_RATE
    return own
