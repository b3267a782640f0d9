"""Folders that one process at a time may use: another one is told which does, or waits for it.

Imports the standard library and `models.problem` only: it is part of images that hold no package.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from models.problem import Problem

FILE = ".in-use"
"""Its owner's process id. What it says counts while a process holds a lock on it, which goes with the process."""


@contextmanager
def alone(folder: Path, doing: str, otherwise: str) -> Iterator[None]:
    """Hold ``folder`` while the body runs. Raises `Problem` where another process does: "FOLDER: ``doing`` (process
    4711); ``otherwise``". On a file system without locks (some NFS) nobody is kept away."""

    def refuse(owner: str) -> None:
        raise Problem(f"{folder}: {doing} (process {owner}); {otherwise}")

    with _held(folder, refuse):
        yield


@contextmanager
def waited_for(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold ``folder`` while the body runs, after any other process that does. ``say`` gets that one's id, once."""
    with _held(folder, say):
        yield


@contextmanager
def _held(folder: Path, taken: Callable[[str], None]) -> Iterator[None]:
    """``taken`` is called with the owner's id where there is one, which is waited for if that returns."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    while True:
        with path.open("a+", encoding="utf-8") as lock:
            _lock(lock, taken)
            if not _is(lock, path):  # its owner has removed it meanwhile
                continue
            try:
                lock.truncate(0)
                lock.write(str(os.getpid()))
                lock.flush()
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _lock(lock: IO[str], taken: Callable[[str], None]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.seek(0)
        taken(lock.read(32).strip() or "unknown")
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        return


def _is(lock: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
