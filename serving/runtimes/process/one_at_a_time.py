"""One process at a time fetches into a folder of the cache."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from serving.runtimes.process.download_bar import DownloadProgress


@contextmanager
def alone(folder: Path, progress: DownloadProgress) -> Iterator[None]:
    """The others wait until this one has what it fetches into ``folder``, or gives up. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress.say("another run fetches it; waiting for that one")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
