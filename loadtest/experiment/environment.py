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

from serving.engines import registry

# Beside those of the engines.
LIBRARIES = ("onnx", "onnxruntime", "grpcio", "locust", "gevent", "prometheus-client", "numpy")


def punctuality(cores: Sequence[int], seconds: float = 1.0) -> dict[str, Any]:
    """How late this machine wakes the load generator when it has asked to be woken every millisecond.

    Measured for `seconds`, before any load, in a process of its own on `cores` (empty: anywhere). Returns
    `generator_priority`, what this user may, and `wake_up_lateness_ms` {p50, p99, max}: no generator keeps its schedule
    better than that.
    """
    command = [sys.executable, "-m", "loadtest.generator.punctuality", ",".join(map(str, cores))]
    command.append(str(round(seconds * 1000)))
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=seconds * 10 + 30,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
        start_new_session=True,  # Ctrl-C is for this program, which then ends the measurement
    )
    priority, lateness = done.stdout.splitlines()
    late = sorted(map(float, lateness.split()))
    return {
        "generator_priority": priority,
        "wake_up_lateness_ms": {
            "p50": round(late[len(late) // 2], 3),
            "p99": round(late[len(late) * 99 // 100], 3),
            "max": round(late[-1], 3),
        },
    }


def describe() -> dict[str, Any]:
    """The machine and the software on it, as plain values."""
    return {
        "cpu_model": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cpu_count": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "os": _first("/etc/os-release", "PRETTY_NAME", "=") or platform.system(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "libraries": {name: version for name in _libraries() if (version := _version(name))},
        "git_commit": _git_commit(),
        "load_average_at_start": [round(value, 2) for value in os.getloadavg()],
        "started_at": time.time(),
    }


def _libraries() -> tuple[str, ...]:
    engines = (name for engine in registry.all() for name in engine.packages)
    return tuple(dict.fromkeys([*engines, *LIBRARIES]))


def _version(library: str) -> str | None:
    """A library's version; None where it is not installed (the load generator's image has no torch)."""
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


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
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None
