"""A server in the place of the one that was started, proven and warmed up."""

from __future__ import annotations

import enum
from collections.abc import Sequence

from models.problem import Problem


class Successor(enum.Enum):
    """What is another one than before.

    POD        the pod: the one before is gone, or is about to go
    CONTAINER  the container, or what runs in it
    PROCESS    the process that listens at the server's address
    WORKER     a process that the server computes in
    """

    POD = "pod"
    CONTAINER = "container"
    PROCESS = "process"
    WORKER = "worker"


class Replaced(Problem):
    """The server in use is not the one any more that was proven and warmed up: what is measured on it does not count.

    ``what`` is another one; ``reason`` in the words of whoever knows, such as "OOMKilled", and ``exit_status`` of the
    one before, where they are known.
    """

    def __init__(
        self,
        what: Successor,
        message: str,
        details: Sequence[str] = (),
        *,
        reason: str = "",
        exit_status: int | None = None,
    ) -> None:
        super().__init__(message, details)
        self.what, self.reason, self.exit_status = what, reason, exit_status
