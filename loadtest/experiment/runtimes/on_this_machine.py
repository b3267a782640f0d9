"""Servers that are up already on this machine: which processes they are, and which cores they leave to a generator."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import psutil

from serving.cores import MOST_FOR_GENERATOR
from serving.target import Target
from serving.this_machine import boot_id

_ANY = ("0.0.0.0", "::")


def located(targets: Sequence[Target]) -> list[Target]:
    """The targets, each of which is on this machine and does not say so with its process and the cores that it keeps
    to, as far as this user may know."""
    return [one if one.machine else _located(one) for one in targets]


def split(targets: Sequence[Target]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(The cores of the servers on this machine, those that they leave to the generator); both empty where there is no
    such server, or one that keeps to no cores, or leaves none."""
    here = [one for one in targets if one.machine and one.machine == boot_id()]
    if not here or not all(one.cores for one in here):
        return (), ()
    servers = {core for one in here for core in one.cores}
    left = sorted(os.sched_getaffinity(0) - servers)
    return (tuple(sorted(servers)), tuple(left[-MOST_FOR_GENERATOR:])) if left else ((), ())


def _located(target: Target) -> Target:
    pid = next((found for address in (target.grpc, target.rest) if (found := _listener(address))), 0)
    if not pid:
        return target
    try:
        cores = os.sched_getaffinity(pid)
    except OSError:
        return target
    pinned = cores < set(range(os.cpu_count() or 1)) and bool(os.sched_getaffinity(0) - cores)
    return replace(target, machine=boot_id(), process=pid, cores=tuple(sorted(cores)) if pinned else ())


def _listener(address: str) -> int:
    """The process that listens at "host:port", of several that share the socket the one that started them; 0 where it
    is not known."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError, ValueError, psutil.Error):
        resolved = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        asked = {str(where[0]) for *_, where in resolved} & _own_addresses()
        found = psutil.net_connections("tcp") if asked else []
        pid = next((one.pid for one in found if one.pid and _listens(one, int(port), asked)), 0)
        with contextlib.suppress(psutil.Error):
            while pid and (parent := psutil.Process(pid).parent()) and parent.pid > 1:
                if not any(_listens(one, int(port), asked) for one in parent.net_connections("tcp")):
                    break
                pid = parent.pid
        return pid
    return 0


def _listens(one: Any, port: int, asked: set[str]) -> bool:
    at = one.laddr.ip if one.laddr and one.laddr.port == port else ""
    return one.status == psutil.CONN_LISTEN and at in {*asked, *_ANY}


def _own_addresses() -> set[str]:
    return {one.address for several in psutil.net_if_addrs().values() for one in several}
