"""What the load generator says while it works: one JSON object a line on its standard output."""

from __future__ import annotations

import msgspec

from loadtest.experiment.records import CoresTaken, SaysNothing, SentLate, SloMiss


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="event"):
    """`id`: the phase that it is of."""

    id: str


class PhaseStarted(_Event, frozen=True, kw_only=True, tag="phase-started"):
    """A phase begins."""


class Second(_Event, frozen=True, kw_only=True, tag="second"):
    """What happened in a second: requests offered, answered with the right status, failed or dropped; latency of the
    answered in milliseconds, None where there is none; and how many are in flight now."""

    offered: int
    ok: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None
    in_flight: int


class Tried(_Event, frozen=True, kw_only=True, tag="tried"):
    """A search has tried a rate (requests/s) in the trial of that id. `why_not`: why it did not meet the SLO, or says
    nothing of the server; None where it met it."""

    trial: str
    rate: float
    p99_ms: float | None
    met: bool
    why_not: SaysNothing | SloMiss | None = None


class Spoiled(_Event, frozen=True, kw_only=True, tag="spoiled"):
    """A trial is repeated, because the generator sent late or others used its cores. `why`: which of them."""

    why: SentLate | CoresTaken


class Stopped(_Event, frozen=True, kw_only=True, tag="stopped"):
    """So many of the latest requests failed that no more are sent; `kinds`: how often each way of failing was seen;
    `said`: what the first answer that was an error said."""

    failed: int
    of: int
    kinds: dict[str, int]
    said: str = ""


class PhaseEnded(_Event, frozen=True, kw_only=True, tag="phase-ended"):
    """A phase has ended, and its folder is there."""


Event = PhaseStarted | Second | Tried | Spoiled | Stopped | PhaseEnded

_DECODER = msgspec.json.Decoder(Event)


def encode(event: Event) -> str:
    """An event as its line, without the end of it."""
    return msgspec.json.encode(event).decode()


def decode(line: str | bytes) -> Event:
    """The event of a line. Raises `msgspec.DecodeError` where it is none."""
    event: Event = _DECODER.decode(line)
    return event
