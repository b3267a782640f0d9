"""What else happened on the machine during a trial: other programs on its cores, control groups that held it up, and a
server that ran out of file descriptors."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.experiment import cgroups, cpu_time
from loadtest.experiment.records import OtherUse, Throttling
from serving.target import Target
from serving.this_machine import boot_id

# What any program's log has of it: the C library's words.
_NO_FILES = os.strerror(errno.EMFILE).encode()


@dataclass(frozen=True)
class Seen:
    """What was seen; nothing where nothing can be seen, as of a server on another machine.

    others            who else used the cores
    throttled         how the generator's control groups held it up; `server_throttled`: the server's alone
    server_no_files   how often the server's log says that it had no file descriptor left
    """

    others: OtherUse | None = None
    throttled: Throttling | None = None
    server_throttled: Throttling | None = None
    server_no_files: int = 0


class HostWatch:
    """Watches from its making on. ``target``: the server, which is looked at where it is on this machine; ``cores``:
    the generator's, empty for any."""

    def __init__(self, target: Target, cores: Sequence[int]) -> None:
        here = bool(target.machine) and target.machine == boot_id()
        self._server = target.process if here else 0
        self._server_cores, self._cores = set(target.cores) if here else set(), set(cores)
        self._log = Path(target.log) if here and target.log else None
        self._read = self._log.stat().st_size if self._log and self._log.exists() else 0
        self._groups = cgroups.folders()
        of_server = cgroups.folders(self._server) if self._server else ()
        self._server_groups = tuple(one for one in of_server if one not in self._groups)
        self._throttled, self._server_throttled = map(cgroups.throttled, (self._groups, self._server_groups))
        self._before = cpu_time.snapshot()

    def seen(self) -> Seen:
        """What was seen until now."""
        return Seen(
            others=self._others(cpu_time.snapshot()),
            throttled=cgroups.since(self._throttled, cgroups.throttled(self._groups)),
            server_throttled=cgroups.since(self._server_throttled, cgroups.throttled(self._server_groups)),
            server_no_files=self._no_files(),
        )

    def _others(self, after: cpu_time.Snapshot) -> OtherUse | None:
        before, parent = self._before, os.getppid()
        # With all that the program which started this one has started: Prometheus, what keeps cores awake, workers.
        ours = [parent if parent > 1 else os.getpid()]
        servers = [self._server] if self._server else []
        of_server = cpu_time.spent_s(before, after, servers)
        of_us = cpu_time.spent_s(before, after, ours, without=servers)
        apart = not self._cores & self._server_cores and not (self._server and not self._server_cores)
        if apart:
            server = _share(before, after, self._server_cores, of_server) if self._server else None
            generator = _share(before, after, self._cores, of_us)
        elif self._server:
            everywhere = os.sched_getaffinity(self._server) | os.sched_getaffinity(0)
            server = generator = _share(before, after, everywhere, of_server + of_us)
        else:
            server = generator = None
        if server is None and generator is None:
            return None
        return OtherUse(server=server, generator=generator, by=cpu_time.others(before, after, [*ours, *servers]))

    def _no_files(self) -> int:
        if self._log is None:
            return 0
        try:
            with self._log.open("rb") as log:
                log.seek(self._read)
                return sum(line.count(_NO_FILES) for line in log)
        except OSError:
            return 0


def _share(before: cpu_time.Snapshot, after: cpu_time.Snapshot, cores: set[int], own_s: float) -> float | None:
    """The share of these cores' time that was used, but not by those who used ``own_s`` seconds of it."""
    used, passed = cpu_time.used_s(before, after, cores), after.at - before.at
    return round(max(0.0, used - own_s) / passed / len(cores), 4) if cores and used is not None and passed > 0 else None
