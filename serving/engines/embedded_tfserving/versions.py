"""The versions of a model on disk, and which of them its version policy asks for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Contents = frozenset[tuple[str, int, int]]


@dataclass(frozen=True)
class OnDisk:
    """A version's folder. `contents`: name, size and time of each file, to see that it has changed."""

    number: int
    path: Path
    contents: Contents


def on_disk(base_path: str) -> list[OnDisk] | None:
    """The numbered folders under a model's base path, lowest first; None where it cannot be read."""
    found = {}
    try:
        with os.scandir(base_path) as entries:
            for entry in entries:
                if entry.name.isascii() and entry.name.isdecimal() and entry.is_dir():
                    found[int(entry.name)] = entry.path
    except OSError:
        return None
    return [OnDisk(number, Path(path), contents(Path(path))) for number, path in sorted(found.items())]


def chosen(config: Any, found: Sequence[OnDisk]) -> list[OnDisk]:
    """The versions that a `ModelConfig`'s policy picks: the latest one unless it says otherwise, none without a
    configuration."""
    if config is None:
        return []
    policy = config.model_version_policy
    kind = policy.WhichOneof("policy_choice")
    if kind == "all":
        return list(found)
    if kind == "specific":
        return [entry for entry in found if entry.number in policy.specific.versions]
    return list(found[-max(1, policy.latest.num_versions) :])


def contents(folder: Path) -> Contents:
    """Name, size and time of each file in a folder."""
    files = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            try:
                status = os.stat(path)
            except OSError:  # gone since it was listed
                continue
            files.append((os.path.relpath(path, folder), status.st_size, status.st_mtime_ns))
    return frozenset(files)
