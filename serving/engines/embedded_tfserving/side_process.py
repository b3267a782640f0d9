"""A process of its own for messages that take long to read or to write: meanwhile the event loop answers everybody
else.

A thread would not do: parsing 12 MB holds the interpreter for most of a second. The process is started when the first
job comes, does one after the other, and ends when the server does.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from serving.engines.embedded_tfserving.status import ServingError
from serving.engines.embedded_tfserving.workers import Workers
from serving.wire.grpc_status import Code

Done = Callable[[Any, ServingError | None], None]
Job = tuple[Callable[..., Any], tuple[Any, ...]]


class SideProcess:
    """Hands jobs to the process: functions of modules, and what pickle takes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.workers = Workers(loop, 1, 1)
        self.process: subprocess.Popen[bytes] | None = None

    def submit(self, work: Callable[..., Any], arguments: tuple[Any, ...], done: Done) -> None:
        """Call ``done(result, error)`` on the event loop's thread, with what ``work(*arguments)`` returns there."""

        def ended(result: Any, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, ServingError):
                error = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
            done(result, error)

        self.workers.submit(partial(self._ask, (work, arguments)), ended)

    def _ask(self, job: Job) -> Any:
        """On the worker's thread."""
        if self.process is None:
            command = [sys.executable, "-m", __name__]
            self.process = subprocess.Popen(
                command,
                env={**os.environ},  # the server's, which was made for it
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        process = self.process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(job, process.stdin, pickle.HIGHEST_PROTOCOL)
            process.stdin.flush()
            result, refusal = pickle.load(process.stdout)
        except (OSError, EOFError, pickle.UnpicklingError):  # killed, for its memory perhaps: the next job gets another
            self.process = None
            process.kill()
            process.wait()
            raise ServingError(Code.INTERNAL, "the process for large messages has ended") from None
        if refusal is not None:
            raise ServingError(*refusal)
        return result


def _main() -> None:
    """Do the jobs that come, until no more can."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which finishes its calls
    asked, answers = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            work, arguments = pickle.load(asked)
        except EOFError:
            return
        result, refusal = None, None
        try:
            result = work(*arguments)
        except ServingError as error:
            refusal = (error.code, error.message)
        except Exception as error:
            refusal = (Code.INTERNAL, f"{type(error).__name__}: {error}")
        del work, arguments
        try:
            pickle.dump((result, refusal), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
        except BrokenPipeError:  # the server is gone; the interpreter would try once more
            os._exit(0)
        del result, refusal


if __name__ == "__main__":
    _main()
