"""Proves that a program is TensorFlow Serving: by what it says of itself when it is asked for its version."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from models import child_environment
from models.problem import Problem

# As tensorflow_model_server prints it (tensorflow_serving/model_servers/main.cc), on a line of its own.
MODEL_SERVER = re.compile(r"^TensorFlow ModelServer:[ \t]*(\S+)", re.MULTILINE)
LIBRARY = re.compile(r"^TensorFlow Library:[ \t]*(\S+)", re.MULTILINE)
TIMEOUT_S = 30.0  # the real one takes a quarter of a second; more where its file comes over a network
MOST_BYTES = 65_536  # of its output are read
SHOWN = 160  # characters of what it said
ELSE = "name the real one, or leave this one out (of the PATH, too), and the embedded server stands in"


@dataclass(frozen=True)
class Program:
    """What runs: the command to put flags behind, and its version."""

    command: tuple[str, ...]
    version: str


def identify(program: Path, fix: str = ELSE) -> Program:
    """``program``, by its absolute path, with the version that it gives; relative paths count from the working folder.

    Raises `Problem`, which ends with ``fix``, where it does not run, or does not say that it is TensorFlow Serving.
    """
    path = str(program.parent.resolve() / program.name)
    said = _version(path, fix)
    found = MODEL_SERVER.search(said)
    if not found:
        raise Problem(
            f"{path} is not TensorFlow Serving: its --version says {_first_line(said)}, not 'TensorFlow ModelServer: "
            f"...'; {fix}"
        )
    library = LIBRARY.search(said)
    return Program((path,), found[1] + (f" (tensorflow {library[1]})" if library else ""))


def _version(path: str, fix: str) -> str:
    """What the program prints when asked for its version, standard output first. Raises `Problem`."""
    try:
        status, said = _printed([path, "--version"])
    except TimeoutError:
        why = f"no end after {TIMEOUT_S:g} s"
    except OSError as error:
        why = error.strerror or str(error)
    else:
        if not status:
            return said
        last = _first_line("\n".join(reversed(said.splitlines())))
        how = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        why = f"{how}; it says {last}"
    raise Problem(f"{path} --version fails ({why}); {fix}")


def _printed(command: Sequence[str]) -> tuple[int, str]:
    """The exit status and the output of a command that is not trusted to end, or to stop printing: of standard output,
    then of standard error, `MOST_BYTES` at most. Raises OSError, and TimeoutError."""
    deadline = time.monotonic() + TIMEOUT_S
    child = subprocess.Popen(
        command,
        env=child_environment.measured(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # its children have our pipes, too
    )
    assert child.stdout is not None
    assert child.stderr is not None
    said = {child.stdout.fileno(): b"", child.stderr.fileno(): b""}
    with child.stdout, child.stderr, selectors.DefaultSelector() as waiting:
        for pipe in said:
            waiting.register(pipe, selectors.EVENT_READ)
        try:
            while waiting.get_map() and sum(map(len, said.values())) < MOST_BYTES:
                ready = waiting.select(max(0.0, deadline - time.monotonic()))
                if not ready:
                    raise TimeoutError
                for key, _ in ready:
                    chunk = os.read(key.fd, MOST_BYTES)
                    said[key.fd] += chunk
                    if not chunk:
                        waiting.unregister(key.fd)
            text = "\n".join(part.decode("utf-8", "replace") for part in said.values())
            if waiting.get_map():  # it goes on and on
                return 0, text
            return child.wait(max(0.0, deadline - time.monotonic())), text
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _first_line(said: str) -> str:
    """The first line of what it said that is not empty, quoted, short and printable; "nothing"."""
    line = next((one.strip() for one in said.splitlines() if one.strip()), "")
    shown = "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
    return f"'{shown if len(shown) <= SHOWN else shown[: SHOWN - 1] + '…'}'" if shown else "nothing"
