"""How late a generator may send before its measurement says nothing of the server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SLIP_FLOOR_MS = 1.0
SLIP_SHARE_OF_P50 = 0.05


def allowed_ms(p50_ms: float | None) -> float:
    """The largest schedule slip (p99) of a valid trial: 1 ms, or a twentieth of the median latency if that is more."""
    return max(SLIP_FLOOR_MS, SLIP_SHARE_OF_P50 * (p50_ms or 0))


def spoiled(trial: Mapping[str, Any]) -> bool:
    """Whether the generator (or its machine) spoiled a trial by sending late, whatever the server did in it."""
    slip = (trial.get("schedule_slip_ms") or {}).get("p99")
    return slip is not None and slip > allowed_ms((trial.get("latency_ms") or {}).get("p50"))
