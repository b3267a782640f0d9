"""What control groups leave a process of the CPUs, and how often it had to wait for more (cgroup v1 and v2; Linux'
Documentation/scheduler/sched-bwc.rst and admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from loadtest.experiment.records import Throttling

PROC, MOUNTS = Path("/proc"), Path("/sys/fs/cgroup")


def folders(pid: int | str = "self", proc: Path = PROC, mounts: Path = MOUNTS) -> tuple[Path, ...]:
    """The folders of the groups that a process' CPU time is counted in, from its own to the outermost that is visible;
    none where the system does not say."""
    try:
        lines = (proc / str(pid) / "cgroup").read_text().splitlines()
    except OSError:
        return ()
    found: list[Path] = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        named = (mounts / controllers, mounts / "cpu") if controllers else (mounts, mounts / "unified")
        mount = next((one for one in named if (one / ("cpu.stat" if controllers else "cgroup.procs")).exists()), None)
        if mount is None:
            continue
        own = mount / path.lstrip("/")
        if ".." in own.parts or not own.is_dir():  # a container may see its own group as the outermost
            own = mount
        found += [own, *(above for above in own.parents if above.is_relative_to(mount))]
    return tuple(dict.fromkeys(found))


def quota(groups: Iterable[Path]) -> float | None:
    """How many CPUs' time the tightest of these groups allows; None where none sets a limit."""
    limits = [limit for folder in groups if (limit := _limit(folder)) is not None]
    return min(limits, default=None)


def throttled(groups: Iterable[Path]) -> Throttling:
    """How often, and for how many seconds, these groups have been stopped until their next period."""
    periods, seconds = 0, 0.0
    for folder in groups:
        values = dict(line.split(" ", 1) for line in _text(folder / "cpu.stat").splitlines() if " " in line)
        periods += int(values.get("nr_throttled", 0))
        seconds += int(values.get("throttled_usec", 0)) / 1e6 + int(values.get("throttled_time", 0)) / 1e9
    return Throttling(periods=periods, seconds=seconds)


def since(before: Throttling, now: Throttling) -> Throttling | None:
    """What was added between two answers of `throttled`; None where nothing was."""
    periods = now.periods - before.periods
    return Throttling(periods=periods, seconds=round(now.seconds - before.seconds, 3)) if periods > 0 else None


def _limit(folder: Path) -> float | None:
    allowed, _, period = _text(folder / "cpu.max").strip().partition(" ")
    if not allowed:
        allowed, period = (_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period"))
    if not allowed.isdigit() or not period.isdigit() or int(period) == 0:  # "max", -1, or none
        return None
    return int(allowed) / int(period)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
