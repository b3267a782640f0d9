"""TCP ports on the loopback interface."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack

from models.problem import Problem

LOOPBACK = "127.0.0.1"


def free(count: int) -> list[int]:
    """``count`` different ports that nothing listens on. Another process may still take one before it is used."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]


def require_free(port: int, purpose: str) -> int:
    """``port`` itself; raises `Problem` where something listens on it already."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            raise Problem(f"port {port} for {purpose} is taken: stop what uses it, or choose another port") from None
    return port


def choose(wanted: Sequence[tuple[int, str]]) -> list[int]:
    """A port for each (port, its purpose): the one named, or a free one where that is 0. Raises `Problem` where one is
    taken, or named twice."""
    purposes: dict[int, str] = {}
    for port, purpose in wanted:
        if port in purposes:
            raise Problem(f"port {port} is given for {purposes[port]} and for {purpose}: choose two")
        if port:
            purposes[port] = purpose
    return [
        require_free(port, purpose) if port else spare
        for (port, purpose), spare in zip(wanted, free(len(wanted)), strict=True)
    ]


def answers(host: str, port: int, timeout_s: float = 1.0) -> bool:
    """Whether something accepts connections at ``host``:``port``."""
    try:
        with socket.create_connection((host, port), timeout_s):
            return True
    except OSError:
        return False
