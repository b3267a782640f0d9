"""Servers that are up already on this machine: which processes they are, and which cores they leave to a generator."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from loadtest.experiment.records import ServerNotSeen
from loadtest.experiment.runtimes import listening
from loadtest.experiment.runtimes.listening import Found, Hidden
from serving.cores import MOST_FOR_GENERATOR
from serving.target import Caveat, Target
from serving.this_machine import boot_id


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
        caveats=(*target.caveats, Caveat.DOCKER_PROXY) if proxied else target.caveats,
    )
