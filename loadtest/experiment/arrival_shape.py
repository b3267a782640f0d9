"""What shapes the arrivals of an open loop, where a rate does not say all about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from models.problem import Problem

PROCESSES = ("poisson", "constant", "gamma", "ramp", "step", "spike", "trace")
"""The arrival processes by name; `loadtest.generator.arrivals` makes schedules of them."""

PLAIN = ("poisson", "constant")
"""Processes that a rate says all about."""


@dataclass(frozen=True)
class Shape:
    """What shapes the processes that are more than a rate. Raises `Problem`, naming the key, for an impossible value.

    burstiness     gamma: the shape k of the gaps' distribution, whose coefficient of variation is k ** -0.5: 1 is
                   Poisson, below 1 is burstier, above 1 more even (as `--burstiness` of vLLM's benchmark)
    ramp_from      ramp: the rate at the start, as a share of the rate at the end
    steps          step: how many equal steps lead up to the rate
    spike_factor   spike: the rate in the spike, in multiples of the rate around it
    spike_start_s  spike: when it begins, in seconds of the measured part
    spike_s        spike: how long it lasts, in seconds
    trace          trace: path of a CSV file whose first column holds timestamps in seconds; its rate is scaled to the
                   rate that is asked for, and it starts again where it ends before the trial does
    """

    burstiness: float = 0.5
    ramp_from: float = 0.1
    steps: int = 4
    spike_factor: float = 3.0
    spike_start_s: float = 5.0
    spike_s: float = 5.0
    trace: str = ""

    def __post_init__(self) -> None:
        for key, (low, high, unit) in _LIMITS.items():
            value = getattr(self, key)
            if not low <= value <= high:
                raise Problem(f"arrivals.{key} = {value}: use {unit} from {low:g} to {high:g}")


_LIMITS = {
    "burstiness": (0.01, 100, "a gamma shape"),
    "ramp_from": (0, 100, "a multiple of the rate"),
    "steps": (1, 1000, "steps"),
    "spike_factor": (0, 1000, "a multiple of the rate"),
    "spike_start_s": (0, 86_400, "seconds"),
    "spike_s": (0, 86_400, "seconds"),
}


def shape(values: Mapping[str, Any]) -> Shape:
    """A `Shape` from plain values. Raises `Problem` for an unknown key."""
    known = [field.name for field in fields(Shape)]
    for key in values:
        if key not in known:
            raise Problem(f"arrivals.{key}: unknown key; use one of {', '.join(known)}")
    return Shape(**values)
