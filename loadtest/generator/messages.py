"""What Locust's master and its workers tell one another about a plan: typed, over Locust's own connection.

Locust carries a message as a name and plain data; here the name says which way it goes, and the data are its bytes.
"""

from __future__ import annotations

from typing import Any, get_origin

import msgspec
import numpy as np

from loadtest.experiment import phases
from loadtest.experiment.phases import LoadPhase
from loadtest.generator.live import Slice
from loadtest.generator.outcomes import Outcomes
from serving.target import Target

TO_WORKER, TO_MASTER = "tandem-to-worker", "tandem-to-master"


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One of the messages below, told apart by their names."""


class Hello(_Message, frozen=True, kw_only=True):
    """A worker is there, on a machine that goes by this name until it is booted again."""

    machine: str


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """One model's requests: its reference.npz' content, and its share of all requests."""

    target: Target
    reference: bytes
    share: float


class Begin(_Message, frozen=True, kw_only=True):
    """A worker's place among all `workers`, what they ask for, and the CPUs that it is to stay on (empty: any)."""

    worker: int
    workers: int
    mix: tuple[Stream, ...]
    payloads: int
    cores: tuple[int, ...]


class Ping(_Message, frozen=True, kw_only=True):
    """A worker asks for the master's clock, at a time of its own."""

    asked: float


class Pong(_Message, frozen=True, kw_only=True):
    """The master's clock, and when the worker had asked."""

    asked: float
    now: float


class Begun(_Message, frozen=True, kw_only=True):
    """A worker waits for phases."""


class Prepare(_Message, frozen=True, kw_only=True):
    """The phase to be ready for; `number` tells it from others."""

    number: int
    phase: LoadPhase


class Ready(_Message, frozen=True, kw_only=True):
    """A worker is ready for the phase."""

    number: int


class Go(_Message, frozen=True, kw_only=True):
    """When the measured part of the phase starts, on the master's clock."""

    number: int
    at: float


class Piece(_Message, frozen=True, kw_only=True):
    """What happened at a worker until `now`, on the master's clock."""

    slice: Slice
    now: float


class Stop(_Message, frozen=True, kw_only=True):
    """The phase has been long enough."""

    number: int


class Done(_Message, frozen=True, kw_only=True):
    """A worker's share of a phase has ended, and what became of its requests."""

    number: int
    outcomes: Outcomes


class Trouble(_Message, frozen=True, kw_only=True):
    """A worker cannot go on; in one line."""

    text: str


class End(_Message, frozen=True, kw_only=True):
    """It is over."""


Order = Begin | Pong | Prepare | Go | Stop | End
"""What the master tells a worker."""

Answer = Hello | Ping | Begun | Ready | Piece | Done | Trouble
"""What a worker tells the master."""


def encode(message: Order | Answer) -> bytes:
    """A message's bytes."""
    return msgspec.msgpack.encode(message, enc_hook=_plain)


def order(data: bytes) -> Order:
    """The inverse of `encode`, at a worker."""
    found: Order = msgspec.msgpack.decode(data, type=Order, dec_hook=_value)
    return found


def answer(data: bytes) -> Answer:
    """The inverse of `encode`, at the master."""
    found: Answer = msgspec.msgpack.decode(data, type=Answer, dec_hook=_value)
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return [value.dtype.str, value.tobytes()]
    return phases.plain(value)


def _value(kind: Any, value: Any) -> Any:
    if get_origin(kind) is np.ndarray:
        dtype, content = value
        return np.frombuffer(content, np.dtype(dtype))
    return phases.typed(kind, value)
