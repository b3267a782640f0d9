"""What a run notes in environment.json for its reader, as typed values; the report makes sentences of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec


def kind(name: str) -> str:
    """A class' name as the value of ``kind``: "LateWakeUps" is "late-wake-ups"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


class Noted(msgspec.Struct, frozen=True, tag_field="kind", tag=kind):
    """Something that a reader must know; ``kind`` says what."""


class Remark(Noted, frozen=True):
    """A sentence of its own: an earlier format's, which kept no values."""

    text: str


class Resumed(Noted, frozen=True):
    """The run was interrupted, and went on at this Unix time."""

    at: float


class LateWakeUps(Noted, frozen=True):
    """Before any load the machine woke a process so late (p99); schedules cannot be kept to ``allowed_ms``."""

    p99_ms: float
    allowed_ms: float


class NoPrometheus(Noted, frozen=True):
    """Prometheus did not watch the run: there are no server-side figures."""


class NotPinned(Noted, frozen=True):
    """Server and load generator are not pinned to cores of their own."""


class ServerRestarted(Noted, frozen=True):
    """A target's server died at a Unix time and answered again ``gap_s`` seconds later (None: not known)."""

    target: str
    died_at: float
    gap_s: float | None = None
    exit_status: int | None = None


class DifferentNodes(Noted, frozen=True):
    """The servers ran on different types of nodes; ``types``: target → (instance type, GPU model), None where the node
    does not say."""

    types: dict[str, tuple[str | None, str | None]]


RunWarning = Remark | Resumed | LateWakeUps | NoPrometheus | NotPinned | ServerRestarted | DifferentNodes


def read(values: Iterable[Any]) -> tuple[RunWarning, ...]:
    """environment.json's ``warnings``. A plain sentence is a `Remark`. Raises `msgspec.ValidationError`."""
    return tuple(
        Remark(value) if isinstance(value, str) else msgspec.convert(value, RunWarning, strict=False)
        for value in values
    )
