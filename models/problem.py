"""Errors that the user can mend, and how a command line shows them."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

# What would break a line, or command the terminal: names in a user's file may hold anything.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")
# What a disk can say to a program that writes, and what to do.
_FULL = {
    errno.ENOSPC: "no space is left there: make room",
    errno.EDQUOT: "your quota is used up: make room",
    errno.EFBIG: "no file may be as large (ulimit -f): allow more",
}
_REFUSED = {
    errno.EROFS: "it is on a read-only file system: name another folder",
    errno.EACCES: "permission denied: have it made yours, or name another",
    errno.EPERM: "not permitted: have it made yours, or name another",
    errno.EIO: "the disk fails: it is broken, or gone",
}
# Libraries that write with code of their own tell of a full disk in words alone.
_FULL_IN_WORDS = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|"
    r"file write failed|inline_container\.cc:\d+\] \. unexpected pos"  # PyTorch's
)


class Problem(Exception):
    """Something the user can mend.

    ``str(problem)`` is the whole message: one line that names the file, key or value at fault and the fix; control
    characters in it are escaped.
    ``details`` are lines of evidence shown above it, such as the last log lines of a server that died.
    """

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(_CONTROL.sub(lambda found: repr(found[0])[1:-1], message))
        self.details = tuple(details)


def run(main: Callable[[], int | None], status: int = 1) -> int:
    """Call ``main`` and return its exit status, turning a `Problem`, and a disk that takes nothing, into one line on
    stderr (exit status ``status``) and Ctrl-C into a clean stop (130)."""
    _write_any_letter()
    with _interruptible():
        try:
            return main() or 0
        except Problem as problem:
            for line in problem.details:
                print(f"    {line}", file=sys.stderr)
            print(f"error: {problem}", file=sys.stderr)
            return status
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            return 130
        except BrokenPipeError:
            return 141
        except Exception as error:
            refused = of_disk(error)
            if refused is None:
                raise
            print(f"error: {refused}", file=sys.stderr)
            return status


def of_disk(error: BaseException) -> Problem | None:
    """What a disk that takes nothing means to the user, where that is behind ``error``; else None."""
    if isinstance(error, OSError) and error.errno in _REFUSED and error.filename:
        return Problem(f"{_text(error.filename2 or error.filename)}: {_REFUSED[error.errno]}")
    return full_disk(error)


def full_disk(error: BaseException) -> Problem | None:
    """What a full disk means to the user, where that is behind ``error``; else None."""
    one: BaseException | None = error
    seen: list[BaseException] = []
    while one is not None and one not in seen:
        if isinstance(one, OSError) and one.errno in _FULL:
            where = one.filename2 or one.filename or "a file that was to be written"
            return Problem(f"{_text(where)}: {_FULL[one.errno]}; then give the same command again")
        if _FULL_IN_WORDS.search(str(one)):
            said = str(one)
            number = next((number for number in _FULL if os.strerror(number) in said), errno.ENOSPC)
            first = said.splitlines()[0][:200]
            return Problem(f"a file could not be written ({first}): {_FULL[number]}; then give the command again")
        seen.append(one)
        one = one.__cause__ or one.__context__
    return None


def _text(path: object) -> str:
    return path.decode("utf-8", "replace") if isinstance(path, bytes) else str(path)


def _write_any_letter() -> None:
    """A terminal whose encoding lacks a letter gets a question mark, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and stream.errors == "strict":
            reconfigure(errors="replace")


class _Asked:
    """How often the user has asked for an end."""

    times = 0


def hurried() -> bool:
    """Whether the user has asked for an end more than once: what waits for good will then waits no longer."""
    return _Asked.times > 1


@contextmanager
def _interruptible() -> Iterator[None]:
    """The first Ctrl-C or SIGTERM ends the body by KeyboardInterrupt. Further ones only make cleaning up hurry (see
    `hurried`): none of them may cut that off."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [one for one in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(one) is not signal.SIG_IGN]
    before = {one: signal.signal(one, _interrupt) for one in numbers}
    _Asked.times = 0
    try:
        yield
    finally:
        for number, handler in before.items():
            if not (_Asked.times and number == signal.SIGINT):  # the interpreter's own cleaning up is still to come
                signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    _Asked.times += 1
    if _Asked.times == 1:
        raise KeyboardInterrupt
