"""What happened to each request, in flat arrays that are cheap to write while the clock runs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

PENDING, OK, DROPPED = 0, 1, 2
# Kinds of error are numbered from here on.
FIRST_KIND = 3
_MOST_KINDS = 250
LONGEST_QUOTE = 500  # characters of an answer

# How a client reports an answer: (request, kind of error or None, `timer.clock` at its last byte, body where kept).
Finish = Callable[[int, str | None, float, bytes | None], None]


class Recording:
    """The requests of one phase, numbered from 0 in the order in which they were due.

    due, sent, done  seconds of `timer.clock`; 0.0: not yet (sent: the moment of the send call; what a server's flow
                     control holds back after it is latency, not slip)
    status           one byte a request: PENDING, OK, DROPPED (never sent: too many in flight) or an error's code
    bodies           answers kept for checking, by request
    first_error      the first answer to a request due from `counted_from` on that was an error: (request, what it said)
    finished         requests in the order in which they ended; a reader keeps its own position in it
    in_flight        requests sent and neither answered nor given up
    """

    def __init__(self, due: Sequence[float] | NDArray[np.float64] = ()) -> None:
        count = len(due)
        self.due = array("d", np.asarray(due, dtype=np.float64).tobytes())
        self.sent = array("d", bytes(8 * count))
        self.done = array("d", bytes(8 * count))
        self.status = bytearray(count)
        self.bodies: dict[int, bytes] = {}
        self.finished: list[int] = []
        self.counted_from = 0.0
        self.first_error: tuple[int, str] | None = None
        self.in_flight = 0
        self.offered = 0
        self._codes: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.status)

    def begin(self, at: float) -> None:
        """Turn due times relative to a start into times of `timer.clock`, given that start."""
        np.frombuffer(self.due, dtype=np.float64)[:] += at
        self.counted_from = at

    def offer(self, due: float) -> int:
        """Append one request that is due now (closed loop); its number."""
        self.due.append(due)
        self.sent.append(0.0)
        self.done.append(0.0)
        self.status.append(PENDING)
        return len(self.status) - 1

    def finish(self, request: int, kind: str | None, when: float, body: bytes | None = None) -> None:
        """A sent request has ended; a second end of the same request (an answer after its time-out) is ignored."""
        if self.status[request]:
            return
        self.status[request] = OK if kind is None else self.code(kind)
        self.done[request] = when
        self.in_flight -= 1
        self.finished.append(request)
        if kind is None:
            if body is not None:
                self.bodies[request] = body
        elif body and self.first_error is None and self.due[request] >= self.counted_from:
            self.first_error = request, quoted(body)

    def drop(self, request: int) -> None:
        """The bound on requests in flight forbids sending this one."""
        self.status[request] = DROPPED

    def code(self, kind: str) -> int:
        """The status code of a kind of error; beyond 250 kinds everything is "other"."""
        code = self._codes.get(kind)
        if code is None:
            if len(self._codes) >= _MOST_KINDS:
                return self.code("other") if "other" in self._codes else self._add("other")
            code = self._add(kind)
        return code

    def _add(self, kind: str) -> int:
        self._codes[kind] = FIRST_KIND + len(self._codes)
        return self._codes[kind]

    def kinds(self) -> dict[int, str]:
        """Status code to kind of error, for the errors seen so far."""
        return {code: kind for kind, code in self._codes.items()}

    def arrays(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
        """Views of (due, sent, done, status). While one is alive, `offer` raises BufferError: drop them soon."""
        return (
            np.frombuffer(self.due, dtype=np.float64),
            np.frombuffer(self.sent, dtype=np.float64),
            np.frombuffer(self.done, dtype=np.float64),
            np.frombuffer(self.status, dtype=np.uint8),
        )


def quoted(body: bytes) -> str:
    """What an answer says, on one line, as far as one reads it."""
    text = " ".join(body[: 8 * LONGEST_QUOTE].decode("utf-8", "replace").split())
    return text if len(text) <= LONGEST_QUOTE else text[: LONGEST_QUOTE - 1] + "…"
