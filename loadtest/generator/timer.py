"""A timer that keeps microseconds: libev's own timers round to whole milliseconds."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from typing import Any, Protocol

# Both read CLOCK_MONOTONIC on Linux, so a due time means the same to Python and to the kernel's timer.
clock = time.monotonic

_TFD_NONBLOCK = os.O_NONBLOCK
_TFD_TIMER_ABSTIME = 1
_READ = 1


class Timer(Protocol):
    """Calls back once, in the event loop, when a set time has come."""

    def set(self, when: float) -> None:
        """Call back at `when` (seconds of `clock`); replaces what was set before. A past time is due at once."""

    def close(self) -> None:
        """Forget what was set and free the timer."""


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class KernelTimer:
    """A Linux timerfd (high-resolution, not subject to timer slack) watched by gevent's loop.

    Raises OSError or AttributeError where the platform has none.
    """

    def __init__(self, loop: Any, callback: Callable[[], None]) -> None:
        library = ctypes.CDLL(None, use_errno=True)
        self._settime = library.timerfd_settime
        self._fd = library.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec()
        self._reference = ctypes.byref(self._spec)
        self._watcher = loop.io(self._fd, _READ, priority=loop.MAXPRI)
        self._watcher.start(callback)

    def set(self, when: float) -> None:
        """See `Timer`. Setting also clears an expiry that nobody has read, so the file is never read."""
        seconds = int(when)
        self._spec.value_s = seconds
        # All zeros would disarm the timer.
        self._spec.value_ns = int((when - seconds) * 1e9) or 1
        self._settime(self._fd, _TFD_TIMER_ABSTIME, self._reference, None)

    def close(self) -> None:
        """See `Timer`."""
        if self._fd >= 0:
            self._watcher.stop()
            self._watcher.close()
            os.close(self._fd)
            self._fd = -1


class SpinningTimer:
    """For platforms without timerfd: the loop's timer until a millisecond before, then spinning."""

    MARGIN_S = 0.001

    def __init__(self, loop: Any, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._watcher: Any = None
        self._when = 0.0

    def set(self, when: float) -> None:
        """See `Timer`."""
        self.close()
        self._when = when
        self._loop.update_now()
        self._watcher = self._loop.timer(max(0.0, when - clock() - self.MARGIN_S))
        self._watcher.start(self._spin)

    def close(self) -> None:
        """See `Timer`."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None

    def _spin(self) -> None:
        while clock() < self._when:
            pass
        self._callback()


def precise_timer(loop: Any, callback: Callable[[], None]) -> Timer:
    """The most precise timer that this platform has. A `KernelTimer` calls back until it is set again."""
    try:
        return KernelTimer(loop, callback)
    except (OSError, AttributeError):
        return SpinningTimer(loop, callback)
