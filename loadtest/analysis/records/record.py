"""What all records of a summary are made of."""

from __future__ import annotations

import re

import msgspec

FORMAT = 3  # 2 had brackets for capacities, and goodput verdicts; 1, which had no number, held sentences

# [low, high]; an end is None where the data set no bound.
Interval = tuple[float | None, float | None]
# One value of a profile.
Setting = bool | int | float | str | None


def _tag(name: str) -> str:
    """A class' name as the value of ``type``: "SentLate" is "sent-late"."""
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


class Record(msgspec.Struct, frozen=True):
    """Values that do not change."""


class Told(msgspec.Struct, frozen=True, tag=_tag):
    """One of a union; ``type`` says which."""


class Estimate(Record, frozen=True):
    """A figure with its interval; ``ci95`` is None where there is nothing to base one on."""

    value: float | None
    ci95: Interval | None
