"""The wall clock, which somebody may set while a run goes on: waiting is by the monotonic one, and a step is noticed.

Prometheus stores samples by the wall clock, and takes none that are older than those that it has; so of a trial during
such a step it may know nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_S = 0.5  # NTP's slewing (500 ppm at most) comes to less between two looks, which are minutes apart


class WallClock:
    """How the wall clock goes beside the monotonic one."""

    def __init__(self, wall: Callable[[], float] = time.time, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._ahead = wall() - monotonic()

    def step_s(self) -> float:
        """Seconds that the wall clock was set forward (or the machine slept) since the last look, negative where it was
        set back; 0 where neither."""
        ahead = self._wall() - self._monotonic()
        step, self._ahead = ahead - self._ahead, ahead
        return step if abs(step) >= LEAST_S else 0.0
