"""What tells this machine, and a process on it, from others."""

from __future__ import annotations

from pathlib import Path

PROC = Path("/proc")


def boot_id() -> str:
    """What tells this machine from others until it is booted again; empty where the system does not say."""
    try:
        return (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
    except OSError:
        return ""


def process_start(pid: int) -> str:
    """What tells a process from a later one, also of the same number: the number, and when it started, in ticks since
    the boot, which no clock that is set moves (proc_pid_stat(5)). Empty where it has ended."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if not fields or fields[0] in "ZXx" else f"{pid}@{fields[19]}"
