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

import msgspec

from loadtest.experiment import cgroups, cpu_time
from loadtest.experiment.records import Environment, Lateness
from models import child_environment
from serving.engines import registry
from serving.runtimes.process import open_files

# Beside those of the engines.
LIBRARIES = ("onnx", "onnxruntime", "grpcio", "locust", "gevent", "prometheus-client", "numpy")


def of_generator(cores: Sequence[int]) -> Environment:
    """This machine as the load generator finds it on `cores` (empty: anywhere), and who else is at work on it."""
    before = cpu_time.snapshot()
    priority, lateness = punctuality(cores)
    after, ours = cpu_time.snapshot(), [os.getpid()]
    found, passed = describe(), after.at - before.at
    used = cpu_time.used_s(before, after, found.cpus)
    busy = None if used is None else max(0.0, used - cpu_time.spent_s(before, after, ours)) / passed / len(found.cpus)
    return msgspec.structs.replace(
        found,
        generator_priority=priority,
        wake_up_lateness_ms=lateness,
        busy_at_start=None if busy is None else round(busy, 4),
        busy_by=cpu_time.others(before, after, ours),
    )


def punctuality(cores: Sequence[int], seconds: float = 1.0) -> tuple[str, Lateness]:
    """How late this machine wakes the load generator when it has asked to be woken every millisecond.

    Measured for `seconds`, before any load, in a process of its own on `cores` (empty: anywhere). Returns the priority
    that this user may have, and the lateness: no generator keeps its schedule better than that.
    """
    command = [sys.executable, "-m", "loadtest.generator.punctuality", ",".join(map(str, cores))]
    command.append(str(round(seconds * 1000)))
    done = subprocess.run(
        command,
        env=child_environment.measured(),
        capture_output=True,
        text=True,
        timeout=seconds * 10 + 30,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
        start_new_session=True,  # Ctrl-C is for this program, which then ends the measurement
    )
    priority, lateness = done.stdout.splitlines()
    late = sorted(map(float, lateness.split()))
    middle, tail, largest = (round(value, 3) for value in (late[len(late) // 2], late[len(late) * 99 // 100], late[-1]))
    return priority, Lateness(p50=middle, p99=tail, max=largest)


def describe() -> Environment:
    """The machine and the software on it."""
    return Environment(
        cpu_model=_first("/proc/cpuinfo", "model name") or platform.processor(),
        cpu_count=len(os.sched_getaffinity(0)),
        cpus=tuple(sorted(os.sched_getaffinity(0))),
        cpu_quota=cgroups.quota(cgroups.folders()),
        open_files=open_files.allowed(),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        os=_first("/etc/os-release", "PRETTY_NAME", "=") or platform.system(),
        kernel=platform.release(),
        python=platform.python_version(),
        libraries={name: version for name in _libraries() if (version := _version(name))},
        git_commit=_git_commit(),
        load_average_at_start=tuple(round(value, 2) for value in os.getloadavg()),
        started_at=time.time(),
    )


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
        done = subprocess.run(
            command,
            env=child_environment.tool(),
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None
