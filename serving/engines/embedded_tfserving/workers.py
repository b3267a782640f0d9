"""Threads that call TensorFlow, so that the event loop never waits for it.

TensorFlow releases the interpreter lock while it computes. Handing a job over costs one queue operation, handing
its result back one wake-up of the loop, which jobs that end together share.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

Work = Callable[[], Any]
Done = Callable[[Any, BaseException | None], None]

# When no job has ended for so long while others wait, one more thread is started.
STALL_S = 0.02


class Workers:
    """Threads, started as they are needed: `prompt` of them at once, and up to `limit` when jobs take long.

    More threads than CPUs only cost switches while jobs compute and are short; jobs that wait, or long ones that
    should not hold up the short ones, want more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, prompt: int, limit: int) -> None:
        self.loop = loop
        self.prompt = min(prompt, limit)
        self.limit = limit
        self.threads = 0
        self.busy = 0  # jobs handed over and not yet given back
        self.ended = 0
        self.relief_due = False
        self.jobs: SimpleQueue[tuple[Work, Done]] = SimpleQueue()
        self.finished: deque[tuple[Done, Any, BaseException | None]] = deque()

    def submit(self, work: Work, done: Done) -> None:
        """Call `work` on a thread, then `done(result, error)` on the event loop's thread."""
        self.busy += 1
        self.jobs.put((work, done))
        if self.busy > self.threads:
            if self.threads < self.prompt:
                self._start_thread()
            elif self.threads < self.limit and not self.relief_due:
                self.relief_due = True
                self.loop.call_later(STALL_S, self._relieve, self.ended)

    def _relieve(self, ended: int) -> None:
        """Start one more thread if jobs wait and none has ended since `ended` had."""
        self.relief_due = self.busy > self.threads
        if not self.relief_due:
            return
        if self.ended == ended:
            self._start_thread()
        if self.threads < self.limit:
            self.loop.call_later(STALL_S, self._relieve, self.ended)
        else:
            self.relief_due = False

    def _start_thread(self) -> None:
        self.threads += 1
        threading.Thread(target=self._run, name=f"worker-{self.threads}", daemon=True).start()

    def _run(self) -> None:
        while True:
            work, done = self.jobs.get()
            error: BaseException | None = None
            try:
                result = work()
            except Exception as caught:
                result, error = None, caught
            first = not self.finished
            self.finished.append((done, result, error))
            del work, done, result, error  # keep no request's memory while waiting for the next
            if first:
                try:
                    self.loop.call_soon_threadsafe(self._give_back)
                except RuntimeError:  # the loop has been closed: the server is gone
                    return

    def _give_back(self) -> None:
        while self.finished:
            done, result, error = self.finished.popleft()
            self.busy -= 1
            self.ended += 1
            done(result, error)
