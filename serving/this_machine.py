"""What tells this machine from others."""

from __future__ import annotations

from pathlib import Path


def boot_id() -> str:
    """What tells this machine from others until it is booted again; empty where the system does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
