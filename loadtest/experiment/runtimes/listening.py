"""Which process of this machine answers at an address, also where it is in a container (Linux' /proc; proc(5)).

A container has network interfaces of its own, which its processes' /proc/PID/net shows to everybody. Its published
ports are passed on to it by the kernel or, from this machine itself, by a program that listens in its place.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

from loadtest.experiment import cpu_time

PROC = Path("/proc")
DOCKER_PROXY = "docker-proxy"
# Programs that pass connections on and don't say where to: of containers without root, of tunnels.
FORWARDERS = ("rootlessport", "slirp4netns", "pasta", "pasta.avx2", "gvproxy", "kubectl", "ssh", "socat")
_ANY = ("0.0.0.0", "::")
_LISTEN = "0A"  # in /proc/PID/net/tcp


@dataclass(frozen=True)
class Found:
    """The process that all others of the server descend from; `proxied`: it is behind Docker's proxy process."""

    pid: int
    proxied: bool = False


@dataclass(frozen=True)
class Hidden:
    """Something on this machine answers there, and this user cannot see which server. `forwarder`: the program that
    passes connections on, where that is why; empty: its process is another user's, or the kernel passes them on."""

    forwarder: str = ""


def at(address: str) -> Found | Hidden | None:
    """Who listens at "host:port"; None where that is none of this machine's addresses, nor of a container's on it."""
    host, _, number = address.rpartition(":")
    try:
        port = int(number)
        resolved = {str(where[0]) for *_, where in socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)}
    except (OSError, ValueError):
        return None
    own = resolved & {one.address for several in psutil.net_if_addrs().values() for one in several}
    if not own:
        inside = (found for ip in resolved if (found := container(ip, port)))
        return next(inside, None)
    return _here(own, port)


def _here(asked: set[str], port: int) -> Found | Hidden:
    """Who listens at one of this machine's own addresses."""
    if through := published(asked, port):
        found = container(*through)
        return Found(found.pid, proxied=True) if isinstance(found, Found) else Hidden(DOCKER_PROXY)
    with contextlib.suppress(OSError, psutil.Error):
        listeners = (one.pid for one in psutil.net_connections("tcp") if one.pid and _listens(one, port, asked))
        if pid := next(listeners, 0):
            name = psutil.Process(pid).name()
            return Hidden(name) if name in FORWARDERS else Found(_first(pid, port, asked))
    return Hidden()  # or the kernel passes it on


def published(asked: set[str], port: int, proc: Path = PROC) -> tuple[str, int] | None:
    """The container's address and port behind one that Docker publishes on this machine; None where it does not."""
    for folder in proc.iterdir():
        if not folder.name.isdigit() or _text(folder / "comm").strip() != DOCKER_PROXY:
            continue
        words = _text(folder / "cmdline").split("\0")
        said = dict(pairwise(words))
        here = said.get("-host-ip") in {*asked, *_ANY} and said.get("-host-port") == str(port)
        if here and said.get("-proto", "tcp") == "tcp":
            return said.get("-container-ip", ""), int(said.get("-container-port", 0))
    return None


def container(ip: str, port: int, proc: Path = PROC) -> Found | Hidden | None:
    """Who listens at an address of a container of this machine, which is in another network namespace; None where there
    is none."""
    ours = _interfaces(proc / "self")
    known: dict[tuple[str, str], bool] = {}
    members: set[int] = set()
    parents: dict[int, int] = {}
    for pid, process in cpu_time.snapshot(proc).processes.items():
        parents[pid] = process.parent
        shown = _interfaces(proc / str(pid))
        if shown == ours or not any(shown):
            continue
        if shown not in known:
            known[shown] = ip in _addresses(*shown)
        if known[shown] and _sockets(proc / str(pid), port):
            members.add(pid)
    return _server(members, parents, port, proc) if members else None


def _server(members: set[int], parents: Mapping[int, int], port: int, proc: Path) -> Found | Hidden:
    """Of all processes of a network namespace, the first of those that hold the listening socket. A pod has several
    containers, and a command run inside one has no parent there either."""
    firsts = {pid for pid in members if parents[pid] not in members}
    if len(firsts) == 1:
        return Found(firsts.pop())
    holders = {_top(pid, members, parents) for pid in members if _holds(proc / str(pid), port)}
    return Found(holders.pop()) if len(holders) == 1 else Hidden()


def _top(pid: int, members: set[int], parents: Mapping[int, int]) -> int:
    while parents[pid] in members:
        pid = parents[pid]
    return pid


def _first(pid: int, port: int, asked: set[str]) -> int:
    """The process that started a listener, as far up as one shares its socket, or is in its container."""
    with contextlib.suppress(psutil.Error):
        while (parent := psutil.Process(pid).parent()) and parent.pid > 1:
            if not (
                any(_listens(one, port, asked) for one in parent.net_connections("tcp"))
                or _same_container(pid, parent.pid)
            ):
                break
            pid = parent.pid
    return pid


def _same_container(pid: int, parent: int) -> bool:
    try:
        own, other, ours = (os.readlink(PROC / str(one) / "ns" / "pid") for one in (pid, parent, "self"))
    except OSError:
        return False
    return own == other != ours


def _listens(one: Any, port: int, asked: set[str]) -> bool:
    at = one.laddr.ip if one.laddr and one.laddr.port == port else ""
    return one.status == psutil.CONN_LISTEN and at in {*asked, *_ANY}


def _interfaces(process: Path) -> tuple[str, str]:
    """What tells a network namespace's own addresses, of IPv4 and IPv6."""
    return _text(process / "net" / "fib_trie"), _text(process / "net" / "if_inet6")


def _addresses(trie: str, inet6: str) -> set[str]:
    found: set[str] = set()
    last = ""
    for line in trie.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "|--":
            last = rest
        elif word == "/32" and rest == "host LOCAL":
            found.add(last)
    for line in inet6.splitlines():
        digits = line.partition(" ")[0]
        if len(digits) == 32:
            found.add(str(ipaddress.IPv6Address(int(digits, 16))))
    return {one for one in found if not ipaddress.ip_address(one).is_loopback}


def _sockets(process: Path, port: int) -> set[str]:
    """The inodes of the sockets that listen on a port in a process' network namespace."""
    found: set[str] = set()
    for name in ("tcp", "tcp6"):
        for line in _text(process / "net" / name).splitlines()[1:]:
            fields = line.split()
            if len(fields) > 9 and fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                found.add(fields[9])
    return found


def _holds(process: Path, port: int) -> bool:
    wanted = {f"socket:[{inode}]" for inode in _sockets(process, port)}
    with contextlib.suppress(OSError):
        for file in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.readlink(file) in wanted:
                    return True
    return False


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
