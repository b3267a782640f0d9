"""What one trial says of the SLO: the same for the search that chooses its next rate by it and for the analysis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from loadtest.experiment.slip import spoiled


def says_nothing(trial: Mapping[str, Any], p99_ms: float) -> str:
    """Why a trial says nothing of the server; empty where it does.

    The generator sent late, or let fewer requests be in flight than a server that just meets the SLO holds (Little
    1961: rate × latency), and so dropped arrivals before the server had missed anything.
    """
    if spoiled(trial):
        return f"the generator sent late: schedule slip p99 {trial['schedule_slip_ms']['p99']:.2f} ms"
    if dropped := trial["requests"].get("dropped"):
        most, held = trial.get("max_in_flight"), trial.get("offered_rate", 0) * p99_ms / 1000
        if most is not None and most < held:
            return f"{dropped} arrivals dropped: max_in_flight = {most} is less than the {held:.0f} that the SLO allows"
    return ""


def why_missed(trial: Mapping[str, Any], p99_ms: float, error_ratio: float) -> str:
    """Why a trial that says something of the server misses the SLO; empty where it meets it."""
    p99, requests = (trial.get("latency_ms") or {}).get("p99"), trial["requests"]
    failed, sent = sum((trial.get("errors") or {}).values()), requests.get("sent") or 0
    if dropped := requests.get("dropped"):
        return f"{dropped} arrivals dropped"
    if failed > error_ratio * sent:
        return f"{failed} of {sent} requests failed"
    if p99 is None:
        return "no request was answered"
    return f"p99 {p99:.1f} ms" if p99 > p99_ms else ""
