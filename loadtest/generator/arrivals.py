"""Arrival schedules: when each request is due, fixed before the run. Pure functions of (parameters, seed).

Three processes have a constant rate (poisson, constant, gamma), three follow a profile of it (ramp, step, spike), and
`trace` replays recorded arrivals. Whatever the process, several workers make one schedule together: `share`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from loadtest.experiment.arrival_shape import Shape
from models.problem import Problem

Seconds = NDArray[np.float64]
Draw = np.random.Generator


def poisson(rate: float, start: float, end: float, draw: Draw, _: Shape) -> Seconds:
    """A homogeneous Poisson process: independent exponential gaps of mean 1 / `rate`.

    It is what many independent users make together (Palm-Khintchine theorem).
    """
    return start + _renewals(end - start, rate, lambda count: draw.exponential(1.0 / rate, count))


def constant(rate: float, start: float, end: float, draw: Draw, _: Shape) -> Seconds:
    """Equal gaps of 1 / `rate`; the first one's length is drawn, so that seeds differ in phase only."""
    times = (np.arange(int(np.ceil(rate * (end - start))) + 1) + draw.random()) / rate
    return np.asarray(start + times[times < end - start], dtype=np.float64)


def gamma(rate: float, start: float, end: float, draw: Draw, shape: Shape) -> Seconds:
    """Independent gamma-distributed gaps of mean 1 / `rate` and shape `burstiness`."""
    k = shape.burstiness
    return start + _renewals(end - start, rate, lambda count: draw.gamma(k, 1.0 / (k * rate), count))


def ramp(rate: float, start: float, end: float, draw: Draw, shape: Shape) -> Seconds:
    """A Poisson process whose rate grows linearly from `ramp_from` × `rate` at 0 to `rate` at `end`."""
    low = rate * shape.ramp_from
    return _varying([(start, low), (0.0, low), (end, rate)], draw)


def step(rate: float, start: float, end: float, draw: Draw, shape: Shape) -> Seconds:
    """A Poisson process that climbs to `rate` in `steps` equal steps, each as long as the others."""
    height, length = rate / shape.steps, end / shape.steps
    knots = [(start, height)]
    for number in range(shape.steps):
        knots += [(number * length, (number + 1) * height), ((number + 1) * length, (number + 1) * height)]
    return _varying(knots, draw)


def spike(rate: float, start: float, end: float, draw: Draw, shape: Shape) -> Seconds:
    """A Poisson process at `rate`, and at `spike_factor` × `rate` for `spike_s` seconds from `spike_start_s` on."""
    first, last = min(shape.spike_start_s, end), min(shape.spike_start_s + shape.spike_s, end)
    high = rate * shape.spike_factor
    return _varying([(start, rate), (first, rate), (first, high), (last, high), (last, rate), (end, rate)], draw)


def trace(rate: float, start: float, end: float, _: Draw, shape: Shape) -> Seconds:
    """Recorded arrivals, their time scaled to the mean rate `rate`, repeated as often as the trial needs them.

    Raises `Problem` for a file that cannot be read. The seed has no part in it.
    """
    recorded = read_trace(Path(shape.trace))
    gaps = np.diff(recorded)
    cycle = float(recorded[-1] - recorded[0] + gaps.mean())  # the gap from the last to the first again
    scale = len(recorded) / cycle / rate
    first, cycle = (recorded - recorded[0]) * scale, cycle * scale
    rounds = np.arange(math.ceil((end - start) / cycle))
    times = (first[None, :] + rounds[:, None] * cycle).ravel()
    return np.asarray(start + times[times < end - start], dtype=np.float64)


def read_trace(path: Path) -> Seconds:
    """The timestamps (seconds, sorted) in a CSV file's first column; a first line that is no number is a heading.

    Raises `Problem` naming the file and line where there is no timestamp, and for fewer than two.
    """
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise Problem(f"arrivals.trace = {str(path)!r}: cannot be read: {error}; use a CSV of timestamps") from error
    times = []
    for number, line in enumerate(lines, start=1):
        cell = line.split(",")[0].strip()
        try:
            times.append(float(cell))
        except ValueError:
            if cell and number > 1:
                raise Problem(f"{path}:{number}: {cell[:40]!r} is no timestamp; use seconds") from None
    found = np.sort(np.asarray(times, dtype=np.float64))
    if len(found) < 2 or not np.isfinite(found).all() or found[-1] - found[0] < 1e-3:
        raise Problem(f"{path}: a trace needs timestamps in its first column, in seconds, at least a millisecond apart")
    return found


# name -> process(rate in requests/s, start and end of the trial in seconds, where start ≤ 0 < end and the measured part
# starts at 0, random draws, shape) -> sorted due times in [start, end), seconds
PROCESSES: dict[str, Callable[[float, float, float, Draw, Shape], Seconds]] = {
    "poisson": poisson,
    "constant": constant,
    "gamma": gamma,
    "ramp": ramp,
    "step": step,
    "spike": spike,
    "trace": trace,
}


def schedule(
    process: str, rate: float, duration_s: float, seed: int, lead_in_s: float = 0.0, shape: Shape | None = None
) -> Seconds:
    """Due times of a trial, sorted, in seconds from the start of its measured part.

    The lead-in's arrivals come first and are negative: [-lead_in_s, 0) is sent but not counted, [0, duration_s) is.
    The same arguments give the same schedule on every machine. Raises KeyError for an unknown process and ValueError
    for a rate or duration that is not positive.
    """
    if not (rate > 0 and duration_s > 0 and lead_in_s >= 0):
        raise ValueError(f"rate {rate} requests/s, duration {duration_s} s, lead-in {lead_in_s} s: must be positive")
    return PROCESSES[process](rate, -lead_in_s, duration_s, np.random.default_rng(seed), shape or Shape())


def share(count: int, worker: int, workers: int) -> slice:
    """Which of `count` arrivals of one schedule a worker (0 to `workers` - 1) sends: every `workers`-th.

    The workers' shares are disjoint and make up the schedule exactly, so what the server sees does not depend on how
    many workers there are; and neighbours in a burst go to different workers.
    """
    return slice(worker, count, workers)


def _renewals(length: float, rate: float, gaps: Callable[[int], Seconds]) -> Seconds:
    """Running sums of gaps, in [0, length)."""
    expected = rate * length
    times = np.cumsum(gaps(int(expected + 5.0 * expected**0.5 + 16)))
    while times[-1] < length:
        times = np.concatenate([times, times[-1] + np.cumsum(gaps(16 + len(times) // 8))])
    return np.asarray(times[times < length], dtype=np.float64)


def _varying(knots: Sequence[tuple[float, float]], draw: Draw) -> Seconds:
    """A Poisson process whose rate runs linearly from knot to knot (time, rate); two knots at one time are a jump.

    By time rescaling (Çinlar 1975): points of a unit-rate process, through the inverse of the cumulated rate. In a
    piece of length w whose rate runs from a to b, the cumulated rate v is reached after 2v / (a + √(a² + 2v(b-a)/w)).
    """
    at, rates = (np.asarray(column, dtype=np.float64) for column in zip(*knots, strict=True))
    width = np.diff(at)
    cumulated = np.concatenate([[0.0], np.cumsum((rates[:-1] + rates[1:]) / 2 * width)])
    points = _renewals(float(cumulated[-1]), 1.0, lambda count: draw.exponential(1.0, count))
    piece = np.searchsorted(cumulated, points, side="right") - 1
    rest, first = points - cumulated[piece], rates[:-1][piece]
    slope = (rates[1:] - rates[:-1])[piece] / width[piece]
    times: Seconds = at[piece] + 2 * rest / (first + np.sqrt(np.maximum(first**2 + 2 * rest * slope, 0.0)))
    return times
