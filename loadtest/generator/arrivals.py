"""Arrival schedules: when each request is due, fixed before the run. Pure functions of (parameters, seed)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Seconds = NDArray[np.float64]


def poisson(rate: float, duration_s: float, draw: np.random.Generator) -> Seconds:
    """A homogeneous Poisson process: independent exponential gaps of mean 1 / `rate`.

    It is what many independent users make together (Palm-Khintchine theorem).
    """
    expected = rate * duration_s
    times = np.cumsum(draw.exponential(1.0 / rate, int(expected + 5.0 * expected**0.5 + 16)))
    while times[-1] < duration_s:
        times = np.concatenate([times, times[-1] + np.cumsum(draw.exponential(1.0 / rate, 16 + len(times) // 8))])
    return np.asarray(times[times < duration_s], dtype=np.float64)


def constant(rate: float, duration_s: float, draw: np.random.Generator) -> Seconds:
    """Equal gaps of 1 / `rate`; the first one's length is drawn, so that seeds differ in phase only."""
    times = (np.arange(int(np.ceil(rate * duration_s)) + 1) + draw.random()) / rate
    return np.asarray(times[times < duration_s], dtype=np.float64)


# name -> process(rate in requests/s, duration in seconds, random draws) -> sorted due times in [0, duration), seconds
PROCESSES: dict[str, Callable[[float, float, np.random.Generator], Seconds]] = {
    "poisson": poisson,
    "constant": constant,
}


def schedule(process: str, rate: float, duration_s: float, seed: int, lead_in_s: float = 0.0) -> Seconds:
    """Due times of a trial, sorted, in seconds from the start of its measured part.

    The lead-in's arrivals come first and are negative: [-lead_in_s, 0) is sent but not counted, [0, duration_s) is.
    The same arguments give the same schedule on every machine. Raises KeyError for an unknown process and ValueError
    for a rate or duration that is not positive.
    """
    if not (rate > 0 and duration_s > 0 and lead_in_s >= 0):
        raise ValueError(f"rate {rate} requests/s, duration {duration_s} s, lead-in {lead_in_s} s: must be positive")
    return PROCESSES[process](rate, lead_in_s + duration_s, np.random.default_rng(seed)) - lead_in_s
