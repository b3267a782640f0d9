"""Where a run took place: the machine, its load, the versions, and which cores do what."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

LIBRARIES = (
    "torch",
    "torchserve",
    "tensorflow",
    "tensorflow-serving-api",
    "onnx",
    "onnxruntime",
    "grpcio",
    "locust",
    "gevent",
    "prometheus-client",
    "numpy",
)


def split_cores(available: Sequence[int]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Divide CPUs between the server under test and everything else (generator, Prometheus, this program).

    Returns (server cores, generator cores): disjoint, the generator's at most two and at most half; on one CPU both
    are empty, which means not pinned.
    """
    if len(available) < 2:
        return (), ()
    generator = min(2, len(available) // 2)
    return tuple(available[:-generator]), tuple(available[-generator:])


def wake_up_lateness_ms(cores: Sequence[int], seconds: float = 1.0) -> dict[str, float]:
    """How late this machine wakes a process that asked to be woken every millisecond, before there is any load.

    Measured for `seconds` in a process of its own on `cores` (empty: anywhere). Returns p50, p99 and max in
    milliseconds: no generator keeps its schedule better than that.
    """
    command = [sys.executable, "-I", "-S", "-c", _SLEEPER, ",".join(map(str, cores)), str(round(seconds * 1000))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds * 10 + 30, check=True)
    late = sorted(map(float, done.stdout.split()))
    return {
        "p50": round(late[len(late) // 2], 3),
        "p99": round(late[len(late) * 99 // 100], 3),
        "max": round(late[-1], 3),
    }


_SLEEPER = """
import os, sys, time
if sys.argv[1]:
    os.sched_setaffinity(0, map(int, sys.argv[1].split(",")))
late, due = [], time.monotonic()
for _ in range(int(sys.argv[2])):
    due += 0.001
    time.sleep(max(0.0, due - time.monotonic()))
    late.append((time.monotonic() - due) * 1000)
    due = max(due, time.monotonic() - 0.001)  # after a stall, go on from here
print(*late)
"""


def describe() -> dict[str, Any]:
    """The machine and the software on it, as plain values."""
    return {
        "cpu_model": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cpu_count": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": _first("/etc/os-release", "PRETTY_NAME", "=") or platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: metadata.version(name) for name in LIBRARIES},
        "git_commit": _git_commit(),
        "load_average_at_start": [round(value, 2) for value in os.getloadavg()],
        "started_at": time.time(),
    }


def _first(path: str, key: str, separator: str = ":") -> str | None:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(separator)
        if name.strip() == key:
            return value.strip().strip('"')
    return None


def _git_commit() -> str | None:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
