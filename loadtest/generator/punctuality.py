"""Keeping a schedule: real-time priority for the generator, on cores that never sleep.

    python -m loadtest.generator.punctuality CORES COUNT

prints the way that was possible, then how late each of COUNT wake-ups was, in milliseconds.

An idle core goes to sleep, and a virtual one is taken away by its host: waking it takes up to several milliseconds. So
a process that spins at the lowest priority keeps each core awake, and the generator interrupts it at once, which only a
real-time process may. Both are usual where latency is measured (cf. cyclictest and the kernel's `idle=poll`).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import psutil

from models.problem import Problem
from serving.runtimes.process.server_process import ServerProcess

REAL_TIME = "real-time priority, cores kept awake"
HIGH = "high priority"
ORDINARY = "ordinary priority"
_NICENESS = -10
# A spinlock that its owner locks again waits for ever, with the processor's own pause instruction.
_SPIN = """
import ctypes, os
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
library, lock = ctypes.CDLL(None), ctypes.c_int()
library.pthread_spin_init(ctypes.byref(lock), 0)
library.pthread_spin_lock(ctypes.byref(lock))
library.pthread_spin_lock(ctypes.byref(lock))
"""


@contextmanager
def punctual(cores: Sequence[int]) -> Iterator[str]:
    """Run the body on `cores` as punctually as this user may; yields which of the three ways that is.

    Real-time priority needs cores of its own (elsewhere it would starve the server) and the right to it: root or
    CAP_SYS_NICE. Raises `Problem` where a core does not exist.
    """
    if not cores:
        yield HIGH if _high_priority() else ORDINARY
        return
    try:
        os.sched_setaffinity(0, cores)
    except OSError as error:
        raise Problem(f"cores = {list(cores)}: cannot stay on them: {error.strerror}") from error
    if not _real_time():
        yield HIGH if _high_priority() else ORDINARY
        return
    with kept_awake(cores):
        yield REAL_TIME


@contextmanager
def kept_awake(cores: Sequence[int]) -> Iterator[None]:
    """While the body runs, a process that gives way to any other keeps each of these cores awake."""
    with ExitStack() as spinning:
        for core in cores:
            command = [sys.executable, "-I", "-S", "-c", _SPIN]
            keeper = ServerProcess("what keeps a core awake", command, Path(os.devnull), cores=[core])
            spinning.callback(keeper.stop)
            keeper.wait_until(partial(_is_idle_class, keeper.pid), timeout_s=10)
        yield


def stolen_share(since: tuple[float, float] | None = None) -> tuple[tuple[float, float], float]:
    """The share of this machine's CPU time that its host gave to others since an earlier call (Linux' "steal").

    Returns (what to pass to the next call, the share; 0 for the first call and where there is no host).
    """
    cpus = psutil.cpu_times(percpu=True)
    now = time.monotonic(), sum(getattr(cpu, "steal", 0.0) for cpu in cpus)
    if since is None or now[0] <= since[0]:
        return now, 0.0
    return now, (now[1] - since[1]) / (now[0] - since[0]) / len(cpus)


def wake_ups_ms(count: int) -> list[float]:
    """How late each of `count` wake-ups was, asked for every millisecond; in milliseconds."""
    late, due = [], time.monotonic()
    for _ in range(count):
        due += 0.001
        time.sleep(max(0.0, due - time.monotonic()))
        late.append((time.monotonic() - due) * 1000)
        due = max(due, time.monotonic() - 0.001)  # after a stall, go on from here
    return late


def _real_time() -> bool:
    try:
        # Children get an ordinary priority.
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        return False
    return True


def _is_idle_class(pid: int) -> bool:
    return os.sched_getscheduler(pid) == os.SCHED_IDLE


def _high_priority() -> bool:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, _NICENESS)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    with punctual([int(core) for core in sys.argv[1].split(",") if core]) as how:
        print(how)
        print(*wake_ups_ms(int(sys.argv[2])))
