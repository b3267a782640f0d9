"""A server as a child process: pinned, logged, watched, and stopped for sure."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from models import child_environment
from models.problem import Problem, hurried
from serving.replaced import Replaced, Successor
from serving.runtimes.process import open_files

# Runs between us and the server, in a fresh interpreter instead of preexec_fn, which may deadlock where the parent has
# threads: dies with its parent (prctl 1 = PR_SET_PDEATHSIG), pins itself, may have as many files open as its user may,
# becomes the server.
_START = """
import ctypes, os, resource, signal, sys
parent, cores, files, command = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4:]
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
if os.getppid() != parent:
    sys.exit(1)
if cores:
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= soft < files:
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
os.execvp(command[0], command)
"""
LOG_LINES = 15
GRACE_S = 10.0
LEAST_BYTES = 65_536


class ServerProcess:
    """A child in its own process group, with stdout and stderr in one log file.

    It dies with the thread that started it (PR_SET_PDEATHSIG), so start servers from a thread that lives as long. Its
    `environment` is what `child_environment.measured` leaves of this process's, and what it is given besides.
    Raises `Problem` where a core does not exist or the program cannot be started.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str] | None = None,
        cores: Sequence[int] = (),
        folder: Path | None = None,
    ) -> None:
        self.name, self.log = name, log
        self.environment = {**child_environment.measured(), **(environment or {})}
        available = os.sched_getaffinity(0)
        if not set(cores) <= available:
            raise Problem(f"{name}: cores {sorted(cores)} are not all among this process's {sorted(available)}")
        wrapped = [sys.executable, "-I", "-S", "-c", _START, str(os.getpid()), ",".join(map(str, cores))]
        wrapped += [str(open_files.allowed()), *command]
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                wrapped,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                cwd=folder,
                start_new_session=True,
            )
        self._workers: list[psutil.Process] = []
        self._stopped = False

    @property
    def pid(self) -> int:
        """The server's process id, and its process group's."""
        return self._child.pid

    @property
    def status(self) -> int | None:
        """The exit status (negative: the signal that ended it), or None while it runs."""
        return self._child.poll()

    def check(self) -> None:
        """Raise `Problem`, with the last log lines, if the server has died; `Replaced` if one of its watched workers
        has, in whose place it may start another one."""
        status = self._child.poll()
        if status is not None:
            full = "; the disk of its log is full: make room" if _is_full(self.log.parent) else ""
            raise Problem(f"{self.name} died: {_reason(status)} (log: {self.log}){full}", self.last_lines())
        for worker in self._workers:
            if not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE:
                what = f"a worker process ({worker.pid}) of {self.name} died; out of memory?"
                raise Replaced(Successor.WORKER, f"{what} (log: {self.log})", self.last_lines())

    def watch_workers(self) -> None:
        """From now on `check` also misses the child processes that the server has at this moment."""
        self._workers = psutil.Process(self.pid).children(recursive=True)

    def wait_until(self, ready: Callable[[], bool], timeout_s: float) -> None:
        """Wait until ``ready`` returns True. Raises `Problem` if the server dies before, or does not get there."""
        deadline = time.monotonic() + timeout_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise Problem(f"{self.name} was not ready after {timeout_s:g} s (log: {self.log})", self.last_lines())
            time.sleep(0.05)

    def last_lines(self, count: int = LOG_LINES) -> list[str]:
        """The last lines of the log."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 32_768))
                lines = log.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return []
        return [line for line in lines if line.strip()][-count:]

    def stop(self, grace_s: float = GRACE_S) -> None:
        """SIGTERM to the whole group, then SIGKILL to what is left after ``grace_s`` seconds, or at once where the user
        asks for an end again. Idempotent."""
        if self._stopped:  # the number may be another group's by now
            return
        try:
            self._signal(signal.SIGTERM)
            deadline = time.monotonic() + grace_s
            while self._group_lives() and time.monotonic() < deadline and not hurried():
                time.sleep(0.02)
        finally:  # also where a second Ctrl-C cuts the grace short
            self._signal(signal.SIGKILL)
            self._child.wait()
            while self._group_lives():  # killed already: only until the kernel has reaped them
                time.sleep(0.02)
            self._stopped = True

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def _group_lives(self) -> bool:
        self._child.poll()
        for process in psutil.process_iter(["status"]):
            try:
                if os.getpgid(process.pid) == self.pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                    return True
            except (ProcessLookupError, psutil.Error):
                continue
        return False


def _is_full(folder: Path) -> bool:
    """Whether the disk that holds ``folder`` has no room for a few lines more."""
    return shutil.disk_usage(folder).free < LEAST_BYTES


def _reason(status: int) -> str:
    if status in (-signal.SIGKILL, 128 + signal.SIGKILL):
        return "killed by SIGKILL, as the kernel does to a process when memory runs out: give it more, or less to do"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"
