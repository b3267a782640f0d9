"""Files that appear under their names whole or not at all, whoever reads meanwhile and whenever the writer is killed.

Imports the standard library only: it is part of images that hold no package.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside ``path`` to write to (a file, a symbolic link, or a folder where there is none yet).

    It takes the place of ``path`` at the end, and is gone where the block fails.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}-{time.monotonic_ns()}")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:  # a write that fails names no file
        error.filename = error.filename or str(path)
        raise
    finally:
        if partial.is_dir() and not partial.is_symlink():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


@contextmanager
def within(folder: Path) -> Iterator[Path]:
    """A folder for what the block writes, made where there is none; where the block fails, the folders that were made
    and are empty are gone again."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        for one in made:
            with contextlib.suppress(OSError):  # not empty
                one.rmdir()
        raise


def write_bytes(path: Path, content: bytes | memoryview) -> Path:
    """Write a file; returns its path."""
    with replacing(path) as partial:
        partial.write_bytes(content)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a text file in UTF-8; returns its path."""
    return write_bytes(path, text.encode())


def write_json(path: Path, values: object) -> Path:
    """Write plain values as indented JSON; returns the file's path."""
    return write_text(path, json.dumps(values, indent=2) + "\n")
