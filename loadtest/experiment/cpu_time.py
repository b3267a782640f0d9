"""Who used the CPUs of this machine: what passed on them against what processes say that they used (Linux' /proc).

A CPU was used for as long as it was neither idle nor served interrupts, which the kernel knows to the microsecond where
it stops its tick on idle CPUs (proc(5), /proc/stat); what the host gave to others ("steal") is in it. A process' time
is read with that of its children that have ended, so that nothing is lost with one that ends meanwhile.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from loadtest.experiment.records import OtherProcess

PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_KERNEL = 2  # kthreadd, the parent of the kernel's own threads
_IDLE, _IOWAIT, _IRQ, _SOFTIRQ = 3, 4, 5, 6
NAMED = 3
FEWEST_CPUS = 0.02  # of a process that is worth a name


@dataclass(frozen=True)
class Process:
    """A process: its parent, its name, and the CPU seconds that it and its ended children have used, and it alone."""

    parent: int
    name: str
    used_s: float
    own_s: float


@dataclass(frozen=True)
class Snapshot:
    """One moment: its time (monotonic), the seconds that each CPU has not been used, and the processes by number."""

    at: float
    unused_s: Mapping[int, float]
    processes: Mapping[int, Process]


def snapshot(proc: Path = PROC) -> Snapshot:
    """This moment. What the system does not show is missing."""
    return Snapshot(time.monotonic(), _unused_s(proc), _processes(proc))


def used_s(before: Snapshot, after: Snapshot, cpus: Iterable[int]) -> float | None:
    """Seconds that these CPUs were used between two moments; None where one of them is not known."""
    passed, total = after.at - before.at, 0.0
    for cpu in cpus:
        if cpu not in before.unused_s or cpu not in after.unused_s:
            return None
        total += max(0.0, passed - (after.unused_s[cpu] - before.unused_s[cpu]))
    return total


def tree(moment: Snapshot, roots: Collection[int]) -> set[int]:
    """These processes and all that descend from them."""
    children: dict[int, list[int]] = {}
    for pid, process in moment.processes.items():
        children.setdefault(process.parent, []).append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in moment.processes]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return found


def spent_s(before: Snapshot, after: Snapshot, roots: Collection[int], without: Collection[int] = ()) -> float:
    """CPU seconds that these processes and their descendants used between two moments, ``without`` those of others
    among them."""

    def total(moment: Snapshot) -> float:
        return sum(moment.processes[pid].used_s for pid in tree(moment, roots) - tree(moment, without))

    return max(0.0, total(after) - total(before))


def others(before: Snapshot, after: Snapshot, ours: Collection[int]) -> tuple[OtherProcess, ...]:
    """Who used most CPU time between two moments besides ``ours`` and their descendants, those of one name together."""
    known, passed = tree(after, ours), after.at - before.at
    found: dict[str, tuple[float, int]] = {}
    for pid, process in after.processes.items():
        if pid in known or process.parent == _KERNEL:
            continue
        earlier = before.processes.get(pid)
        # Not those of its children: with one that ends comes all that it has ever used.
        cpus = (process.own_s - (earlier.own_s if earlier else 0.0)) / passed if passed > 0 else 0.0
        sum_cpus, biggest = found.get(process.name, (0.0, 0))
        found[process.name] = sum_cpus + cpus, biggest or pid
    most = sorted(found.items(), key=lambda one: -one[1][0])[:NAMED]
    return tuple(
        OtherProcess(name=name, pid=pid, cpus=round(cpus, 2)) for name, (cpus, pid) in most if cpus >= FEWEST_CPUS
    )


def _unused_s(proc: Path) -> dict[int, float]:
    found = {}
    try:
        lines = (proc / "stat").read_text().splitlines()
    except OSError:
        return {}
    for line in lines:
        name, *ticks = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and len(ticks) > _SOFTIRQ:
            times = [int(one) for one in ticks]
            found[int(name[3:])] = (times[_IDLE] + times[_IOWAIT] + times[_IRQ] + times[_SOFTIRQ]) * _TICK_S
    return found


def _processes(proc: Path) -> dict[int, Process]:
    found = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "stat").read_text(errors="replace")
        except OSError:  # it has ended
            continue
        name, _, rest = text.partition("(")[2].rpartition(")")  # a name may hold brackets
        fields = rest.split()
        user, system, *of_children = (int(one) * _TICK_S for one in fields[11:15])
        found[int(folder.name)] = Process(int(fields[1]), name, user + system + sum(of_children), user + system)
    return found
