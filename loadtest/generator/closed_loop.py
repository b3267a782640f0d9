"""The closed loop: so many requests in flight, each answer followed by the next request."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import gevent
import numpy as np
from numpy.typing import NDArray

from loadtest.generator.expiry import Client, Expiry
from loadtest.generator.recording import Recording
from loadtest.generator.timer import clock

_REFILL_S = 0.01


class ClosedLoop:
    """`concurrency` requests in flight: each success is followed by the next request at once, each failure by one at
    the next `refill`, so that a server that refuses everything is not hammered. At most `most_rate` requests/s are sent
    (0: as many as are answered).

    Payloads are sent in the order of `choice`, over and over; `keep[i]` (of as many) says whether to keep the answer.
    """

    def __init__(
        self,
        payloads: Sequence[bytes],
        concurrency: int,
        choice: Sequence[int] | None = None,
        keep: Sequence[bool] | None = None,
        most_rate: float = 0.0,
    ) -> None:
        self._most_rate, self._began = most_rate, 0.0
        self.recording = Recording()
        self.choice = list(choice if choice is not None else range(len(payloads)))
        self._payloads = payloads
        self._next = itertools.cycle(zip(self.choice, keep or [False] * len(self.choice), strict=True))
        self._concurrency = concurrency
        self._client: Client | None = None

    def run(self, client: Client, timeout_s: float, tick_s: float, tick: Callable[[float], bool]) -> None:
        """Send until `tick(now)`, called every `tick_s` seconds, returns False. Requests in flight then stay so."""
        expiry = Expiry(self.recording, client, timeout_s)
        self._client, self._began = client, clock()
        try:
            self.refill()
            edge = clock() + tick_s
            while True:
                while (now := clock()) < edge:
                    gevent.sleep(min(_REFILL_S, edge - now))
                    expiry.sweep(clock())
                    self.refill()
                edge += tick_s
                if not tick(now):
                    return
        finally:
            self._client = None

    def drain(self, client: Client, timeout_s: float) -> None:
        """Wait for what is in flight, up to its time-out."""
        expiry = Expiry(self.recording, client, timeout_s)
        while self.recording.in_flight:
            gevent.sleep(_REFILL_S)
            expiry.sweep(clock())

    def payloads_sent(self) -> NDArray[np.integer]:
        """Which payload each request carried."""
        return np.resize(self.choice, len(self.recording))

    def finish(self, request: int, kind: str | None, when: float, body: bytes | None) -> None:
        """A request has ended (called by the client)."""
        self.recording.finish(request, kind, when, body)
        if kind is None and self._client is not None and (not self._most_rate or self._allowed() > 0):
            self._send(self._client)

    def refill(self) -> None:
        """Replace the requests that failed, and those that were to wait."""
        if self._client is not None:
            for _ in range(self._concurrency - self.recording.in_flight):
                if self._most_rate and self._allowed() <= 0:
                    break
                self._send(self._client)

    def _allowed(self) -> int:
        """How many more requests the most rate allows by now."""
        return 1 + int((clock() - self._began) * self._most_rate) - self.recording.offered

    def _send(self, client: Client) -> None:
        recording = self.recording
        now = clock()
        request = recording.offer(now)
        recording.offered = request + 1
        recording.sent[request] = now
        recording.in_flight += 1
        payload, keep = next(self._next)
        client.send(request, self._payloads[payload], keep)
