"""A process of its own for JSON that takes long: while it is read or written the event loop answers everybody else.

A thread would not do: parsing 12 MB holds the interpreter for most of a second. The process is started when the first
such document comes, takes one after the other, and ends when the server does.
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

import numpy as np

from serving.engines.embedded_tfserving import json_tensors
from serving.engines.embedded_tfserving.compression import rest_body
from serving.engines.embedded_tfserving.signature import Signature, Signatures, rest_signature
from serving.engines.embedded_tfserving.status import ServingError
from serving.engines.embedded_tfserving.workers import Workers
from serving.wire.grpc_status import Code

Refusal = tuple[Code, str]
Done = Callable[[Any, ServingError | None], None]


class JsonProcess:
    """Hands documents to the process. Each `done(result, error)` is called on the event loop's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.workers = Workers(loop, 1, 1)
        self.process: subprocess.Popen[bytes] | None = None

    def read(self, body: bytes, limit: int | None, signatures: Signatures | ServingError, done: Done) -> None:
        """A predict request to the name of its signature, its arrays, and whether it is in row format.

        `limit`: the body is gzip of at most so many bytes; None: it is not. A `ServingError` for the signatures is
        raised where they would be looked at.
        """
        known = (signatures.code, signatures.message) if isinstance(signatures, ServingError) else dict(signatures)
        self._submit((_read, (body, limit, known)), done)

    def write(self, signature: Signature, outputs: list[np.ndarray], row_format: bool, done: Done) -> None:
        """A predict answer's JSON."""
        self._submit((json_tensors.write, (signature, outputs, row_format)), done)

    def _submit(self, job: tuple[Callable[..., Any], tuple[Any, ...]], done: Done) -> None:
        def ended(result: Any, error: BaseException | None) -> None:
            if error is not None and not isinstance(error, ServingError):
                error = ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}")
            done(result, error)

        self.workers.submit(partial(self._ask, job), ended)

    def _ask(self, job: tuple[Callable[..., Any], tuple[Any, ...]]) -> Any:
        """On the worker's thread."""
        if self.process is None:
            command = [sys.executable, "-m", __name__]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
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
            raise ServingError(Code.INTERNAL, "the process that reads and writes large JSON has ended") from None
        if refusal is not None:
            raise ServingError(*refusal)
        return result


def _read(
    body: bytes, limit: int | None, signatures: dict[str, Signature] | Refusal
) -> tuple[str, list[np.ndarray], bool]:
    def find(name: str) -> Signature:
        if isinstance(signatures, tuple):
            raise ServingError(*signatures)
        return rest_signature(signatures, name)

    signature, arrays, row_format = json_tensors.read(body if limit is None else rest_body(body, limit), find)
    return signature.name, arrays, row_format


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
