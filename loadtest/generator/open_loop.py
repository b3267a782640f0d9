"""The open loop: each request leaves when it is due, whatever the server does."""

from __future__ import annotations

import gc
import math
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import gevent
import numpy as np
from gevent import get_hub
from numpy.typing import NDArray

from loadtest.generator.expiry import Client, Expiry
from loadtest.generator.recording import Recording
from loadtest.generator.timer import clock, precise_timer

TICK_S = 0.1
# Sends in a row before answers get a turn, when the generator is behind its schedule.
_BURST = 32
# From all being ready to the first request of the lead-in.
START_MARGIN_S = 0.05


class OpenLoop:
    """Sends `payloads[choice[i]]` at `schedule[i]` seconds after the start of the measured part.

    At most `max_in_flight` requests wait for an answer; an arrival beyond that is dropped and counted. A request
    unanswered `timeout_s` after it was due has failed. `keep[i]`: keep the answer of request i. The measured part
    starts at `started` (seconds of `timer.clock`), which is `started_at` in Unix time; `run` sets both.
    """

    def __init__(
        self,
        schedule: NDArray[np.float64],
        payloads: Sequence[bytes],
        choice: NDArray[np.integer],
        keep: NDArray[np.bool_],
        *,
        lead_in_s: float,
        max_in_flight: int,
        timeout_s: float,
    ) -> None:
        self.started = math.nan
        self.started_at = math.nan
        self.recording = Recording(schedule)
        self._lead_in_s = lead_in_s
        self._payloads = payloads
        self._choice = array("I", choice.astype(np.uint32).tobytes())
        self._keep = keep.tobytes()
        self._max_in_flight = max_in_flight
        self._timeout_s = timeout_s
        self._next_due = math.inf
        self._until = len(self.recording)  # requests are sent before this one
        self._client: Client | None = None
        self._failure: Exception | None = None
        self._timer = precise_timer(get_hub().loop, self._dispatch)

    def between(self) -> None:
        """Send what has become due; clients call it after each piece of their own work."""
        if clock() >= self._next_due:
            self._dispatch()

    def give_up(self) -> None:
        """Send no more; what is in flight is waited for."""
        self._until = self.recording.offered
        self._arm()

    @property
    def given_up_at(self) -> float:
        """When the first request that was not sent any more was due, seconds of `timer.clock`; infinite: all were."""
        return self.recording.due[self._until] if self._until < len(self.recording) else math.inf

    def run(self, client: Client, tick: Callable[[float], None], started: float | None = None) -> float:
        """Send everything and wait for the last answer or time-out, calling `tick(now)` all the while.

        `started`: when the measured part starts (seconds of `timer.clock`); None: as soon as the lead-in allows.
        Returns the share of one core that this process used, from the first request to the last.
        """
        self._client = client
        self.started = clock() + self._lead_in_s + START_MARGIN_S if started is None else started
        self.started_at = time.time() + self.started - clock()
        recording = self.recording
        recording.begin(self.started)
        expiry = Expiry(recording, client, self._timeout_s)
        with _no_garbage_collection():
            began, cpu = clock(), time.process_time()
            busy = 0.0
            try:
                self._arm()
                while recording.offered < self._until or recording.in_flight:
                    if recording.offered < self._until:
                        busy = (time.process_time() - cpu) / max(clock() - began, 1e-9)
                    gevent.sleep(TICK_S if recording.offered < self._until else TICK_S / 10)
                    if self._failure is not None:
                        raise self._failure
                    now = clock()
                    expiry.sweep(now)
                    tick(now)
            finally:
                self._timer.close()
        return busy

    def _arm(self) -> None:
        request = self.recording.offered
        if request < self._until:
            self._next_due = self.recording.due[request]
            self._timer.set(self._next_due)
        else:
            self._next_due = math.inf
            self._timer.close()

    def _dispatch(self) -> None:
        try:
            self._send_due()
        except Exception as failure:
            # The event loop would print it and call again for ever.
            self._failure = failure
            self._next_due = math.inf
            self._timer.close()

    def _send_due(self) -> None:
        recording, client = self.recording, self._client
        assert client is not None
        due, sent = recording.due, recording.sent
        request = recording.offered
        last = min(self._until, request + _BURST)
        now = clock()
        while request < last and due[request] <= now:
            if recording.in_flight >= self._max_in_flight:
                recording.drop(request)
            else:
                recording.in_flight += 1
                sent[request] = now
                client.send(request, self._payloads[self._choice[request]], bool(self._keep[request]))
                now = clock()
            request += 1
            recording.offered = request
        self._arm()


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """A collection pauses everything for milliseconds; nothing on the hot path makes cycles."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
