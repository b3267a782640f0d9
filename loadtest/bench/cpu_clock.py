"""CPU time of a process to the nanosecond: /proc counts in ticks of 10 ms, too coarse for an idle server."""

from __future__ import annotations

import time

_PROCESS_SCHED = 2  # CPUCLOCK_SCHED in Linux's include/linux/posix-timers.h, as clock_getcpuclockid(3) encodes it


def seconds(pid: int) -> float:
    """CPU time (s), of all its threads, that process ``pid`` has used so far. Raises `OSError` where there is none."""
    return time.clock_gettime((~pid << 3) | _PROCESS_SCHED)
