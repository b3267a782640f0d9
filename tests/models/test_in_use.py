"""Folders that one process at a time may use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from models import in_use
from models.problem import Problem

ROOT = Path(__file__).resolve().parents[2]
HOLD = """
import sys, pathlib
from models import in_use
with in_use.alone(pathlib.Path(sys.argv[1]), "a", "b"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a folder, until its standard input is closed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_another_process_is_named_and_a_killed_one_holds_nothing(tmp_path):
    with another(tmp_path) as process:
        with pytest.raises(Problem, match=rf"it goes on \(process {process.pid}\); wait$"):
            in_use.alone(tmp_path, "it goes on", "wait").__enter__()
    for _ in range(2):
        with in_use.alone(tmp_path, "it goes on", "wait"):
            assert (tmp_path / in_use.FILE).read_text() == str(os.getpid())
    assert list(tmp_path.iterdir()) == []


def test_who_waits_goes_on_when_the_other_one_has_ended(tmp_path):
    said: list[str] = []
    told, done = threading.Event(), threading.Event()

    def say(process: str) -> None:
        said.append(process)
        told.set()

    def wait() -> None:
        with in_use.waited_for(tmp_path, say):
            done.set()

    with another(tmp_path) as process:
        waiting = threading.Thread(target=wait)
        waiting.start()
        assert told.wait(20)
        assert not done.is_set()
    assert done.wait(20)
    waiting.join()
    assert said == [str(process.pid)]
