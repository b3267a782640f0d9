"""Servers that are up already on this machine: which processes they are, and which cores they leave to a generator."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace

from loadtest.experiment.records import ServerNotSeen
from loadtest.experiment.runtimes import listening
from loadtest.experiment.runtimes.listening import Found, Hidden
from serving.cores import MOST_FOR_GENERATOR
from serving.replaced import Replaced, Successor
from serving.target import Caveat, Target
from serving.this_machine import boot_id, process_start

CHECK_EVERY_S = 0.5
# Somebody who keeps a server up starts it anew within this time, or by hand.
SUCCESSOR_S = 10.0
POLL_S = 0.1


def located(targets: Sequence[Target]) -> list[Target]:
    """The targets, each of which is on this machine and does not say so with its process and the cores that it keeps
    to, as far as this user may know."""
    return [one if one.machine else _located(one) for one in targets]


def not_seen(targets: Sequence[Target]) -> list[ServerNotSeen]:
    """Those of the targets that are on this machine, and whose processes this user cannot see."""
    found = []
    for one in targets:
        if one.machine:
            continue
        for address in filter(None, (one.grpc, one.rest)):
            who = listening.at(address)
            if isinstance(who, Hidden):
                found.append(ServerNotSeen(target=one.name, address=address, forwarder=who.forwarder))
                break
    return found


def split(targets: Sequence[Target]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(The cores of the servers on this machine, those that they leave to the generator); both empty where there is no
    such server, or one that keeps to no cores, or leaves none."""
    here = [one for one in targets if one.machine and one.machine == boot_id()]
    if not here or not all(one.cores for one in here):
        return (), ()
    servers = {core for one in here for core in one.cores}
    left = sorted(os.sched_getaffinity(0) - servers)
    return (tuple(sorted(servers)), tuple(left[-MOST_FOR_GENERATOR:])) if left else ((), ())


def successor(target: Target) -> Target | None:
    """The target with the process that listens at its address by now, where that is another one than the target says;
    None where it is the same, is not on this machine, or nobody listens there."""
    if not target.instance or target.machine != boot_id() or process_start(target.process) == target.instance:
        return None
    found = _located(replace(target, machine="", process=0, cores=(), log="", instance=""))
    return found if found.instance not in ("", target.instance) else None


class Watch:
    """Notices where another process takes the place of a server on this machine. One that has ended without a
    successor shows as errors in the trial, as servers elsewhere do."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._checked_at = 0.0

    def check(self, *, fresh: bool = False) -> None:
        """Raise `Replaced` where that has happened; looks now and then, or (``fresh``) at once, and then waits for the
        successor of one that has ended."""
        if not fresh and time.monotonic() - self._checked_at < CHECK_EVERY_S:
            return
        self._checked_at = time.monotonic()
        if found := self._awaited() if fresh else successor(self._target):
            was, now = self._target.process, found.process
            name = self._target.name
            raise Replaced(Successor.PROCESS, f"target.{name}: process {now} listens in the place of process {was}")

    def _awaited(self) -> Target | None:
        deadline = time.monotonic() + SUCCESSOR_S
        while (found := successor(self._target)) is None and _has_ended(self._target) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return found


def _has_ended(target: Target) -> bool:
    own = bool(target.instance) and target.machine == boot_id()
    return own and process_start(target.process) != target.instance


def _located(target: Target) -> Target:
    asked = (listening.at(address) for address in (target.grpc, target.rest) if address)
    found = next((one for one in asked if isinstance(one, Found)), None)
    if found is None:
        return target
    try:
        cores = os.sched_getaffinity(found.pid)
    except OSError:
        return target
    pinned = cores < set(range(os.cpu_count() or 1)) and bool(os.sched_getaffinity(0) - cores)
    proxied = found.proxied and Caveat.DOCKER_PROXY not in target.caveats
    return replace(
        target,
        machine=boot_id(),
        process=found.pid,
        cores=tuple(sorted(cores)) if pinned else (),
        instance=process_start(found.pid),
        caveats=(*target.caveats, Caveat.DOCKER_PROXY) if proxied else target.caveats,
    )
