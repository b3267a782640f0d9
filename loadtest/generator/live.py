"""What has happened since the last look at a recording: the source of everything shown while a phase runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from loadtest.experiment import events
from loadtest.experiment.events import Event, Second
from loadtest.generator.recording import DROPPED, OK, Recording


@dataclass(frozen=True)
class Slice:
    """Requests of one phase between two looks.

    offered, sent, dropped  counts; latency_ms: of right-status answers, from their due time; failed_ms: time to
    failure of the others; errors: kind → count; slip_ms: send − due of the sent; in_flight: now; said: what the first
    answer that was an error said, in all of the phase
    """

    offered: int
    sent: int
    dropped: int
    latency_ms: NDArray[np.float64]
    failed_ms: NDArray[np.float64]
    errors: dict[str, int]
    slip_ms: NDArray[np.float64]
    in_flight: int
    said: str = ""


def join(slices: Sequence[Slice]) -> Slice:
    """What several workers did at the same time."""
    errors: Counter[str] = Counter()
    for one in slices:
        errors.update(one.errors)
    return Slice(
        offered=sum(one.offered for one in slices),
        sent=sum(one.sent for one in slices),
        dropped=sum(one.dropped for one in slices),
        latency_ms=np.concatenate([one.latency_ms for one in slices]),
        failed_ms=np.concatenate([one.failed_ms for one in slices]),
        errors=dict(errors),
        slip_ms=np.concatenate([one.slip_ms for one in slices]),
        in_flight=sum(one.in_flight for one in slices),
        said=next((one.said for one in slices if one.said), ""),
    )


class Reader:
    """Reads a recording slice by slice, in time proportional to what is new."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._finished = 0
        self._offered = 0

    def read(self) -> Slice:
        """Everything since the last call."""
        recording = self._recording
        fresh = recording.finished[self._finished :]
        self._finished += len(fresh)
        first, self._offered = self._offered, recording.offered
        due, sent, done, status = recording.arrays()
        ended = np.asarray(fresh, dtype=np.int64)
        took = (done[ended] - due[ended]) * 1e3
        outcome = status[ended]
        good = outcome == OK
        offered = slice(first, self._offered)
        went = status[offered] != DROPPED
        kinds = recording.kinds()
        return Slice(
            offered=self._offered - first,
            sent=int(np.count_nonzero(went)),
            dropped=self._offered - first - int(np.count_nonzero(went)),
            latency_ms=took[good],
            failed_ms=took[~good],
            errors={kinds[code]: count for code, count in Counter(outcome[~good].tolist()).items()},
            slip_ms=(sent[offered] - due[offered])[went] * 1e3,
            in_flight=recording.in_flight,
            said=recording.first_error[1] if recording.first_error else "",
        )


class SecondLines:
    """Prints one JSON line for each second of a phase."""

    def __init__(self, phase: str, out: TextIO, started: float) -> None:
        self._phase, self._out, self._next = phase, out, started + 1.0
        self._slices: list[Slice] = []

    def add(self, piece: Slice, now: float) -> None:
        """Take a slice that ends at `now` (seconds of `timer.clock`), and print when a second is full."""
        self._slices.append(piece)
        if now < self._next:
            return
        self._next = max(self._next + 1.0, now)
        latency = np.concatenate([one.latency_ms for one in self._slices])
        p50, p99 = np.percentile(latency, (50, 99)).round(3).tolist() if latency.size else (None, None)
        second = Second(
            id=self._phase,
            offered=sum(one.offered for one in self._slices),
            ok=latency.size,
            errors=sum(one.failed_ms.size + one.dropped for one in self._slices),
            p50_ms=p50,
            p99_ms=p99,
            in_flight=piece.in_flight,
        )
        self._slices.clear()
        say(self._out, second)


def say(out: TextIO, event: Event) -> None:
    """Print one event as a line of JSON."""
    print(events.encode(event), file=out, flush=True)
