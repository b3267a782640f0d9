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
"""Its owner's process id. It stays: the kernel knows whether a process holds it, and forgets that with the process."""


@contextmanager
def alone(folder: Path, doing: str, otherwise: str) -> Iterator[None]:
    """Hold ``folder`` while the body runs. Raises `Problem` where another process does: "FOLDER: ``doing`` (process
    4711); ``otherwise``". On a file system without locks (some NFS) nobody is kept away."""
    with _opened(folder) as lock:
        try:
            _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(f"{folder}: {doing} (process {_owner(lock)}); {otherwise}") from None
        yield


@contextmanager
def waited_for(folder: Path, say: Callable[[str], None]) -> Iterator[None]:
    """Hold ``folder`` while the body runs, after any other process that does. ``say`` gets that one's id, once."""
    with _opened(folder) as lock:
        try:
            _take(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(_owner(lock))
            _take(lock, fcntl.LOCK_EX)
        yield


def _opened(folder: Path) -> IO[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / FILE).open("a+", encoding="utf-8")


def _take(lock: IO[str], how: int) -> None:
    try:
        fcntl.flock(lock, how)
    except BlockingIOError:
        raise
    except OSError:
        return
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()


def _owner(lock: IO[str]) -> str:
    lock.seek(0)
    return lock.read(32).strip() or "unknown"
