"""What a server's capacity is bounded by, and how: see `Binding` and `Shape`."""

from __future__ import annotations

import enum


class Binding(enum.Enum):
    """What misses the SLO above a capacity: latency (p99), errors, or that the server falls behind (lag)."""

    P99 = "p99"
    ERRORS = "errors"
    LAG = "lag"
    NONE = "none"


class Shape(enum.Enum):
    """Whether p99 climbs to the SLO as the rate grows (slope), or jumps over it (cliff)."""

    CLIFF = "cliff"
    SLOPE = "slope"
    UNKNOWN = "unknown"
