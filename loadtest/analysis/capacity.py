"""The highest rate that meets the SLO: from a capacity search where there was one, else from the ladder's rungs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Figures = dict[str, Any]


def of(measurements: Sequence[Figures], searches: Sequence[Figures], slo: dict[str, float]) -> list[Figures]:
    """One entry for each target and protocol.

    scenario   "capacity" where a search was made, else "ladder"
    max_rate   the highest offered rate whose p99 and errors meet the SLO, validly; None where no tested rate does
    bracket    [max_rate, the lowest rate above it that does not], its end None where no tested rate missed
    confirmed  both ends of a search's bracket were repeated and said the same; a ladder's: they were repeated
    ci95       [highest rate whose p99's upper bound still meets the SLO, lowest rate whose lower bound misses it]: the
               rates at which a test at the 5 % level decides, by test inversion (Casella & Berger 2002, §9.2.1); an end
               is None where no tested rate says so
    """
    groups: dict[tuple[str, str], list[Figures]] = {}
    for item in measurements:
        if item["scenario"] in ("ladder", "capacity"):
            groups.setdefault((item["target"], item["protocol"]), []).append(item)
    latest: dict[tuple[str, str], Figures] = {}
    for search in sorted(searches, key=lambda one: int(one["repetition"])):
        latest[search["target"], search["protocol"]] = search
    return [_one(*key, items, latest.get(key), slo) for key, items in groups.items()]


def _one(
    target: str, protocol: str, items: Sequence[Figures], search: Figures | None, slo: dict[str, float]
) -> Figures:
    if search:
        top, above = search["low"], search["high"]
        confirmed, out_of_time = search["confirmed"], search["out_of_time"]
    else:
        meets = [item["offered_rate"] for item in items if _meets(item, slo, item["latency_ms"]["p99"])]
        top = max(meets, default=None)
        above = min((item["offered_rate"] for item in items if top is None or item["offered_rate"] > top), default=None)
        ends = [item for item in items if item["offered_rate"] in (top, above)]
        confirmed, out_of_time = bool(ends) and all(item["repetitions"] > 1 for item in ends), False
    misses = [item["offered_rate"] for item in items if _misses(item, slo)]
    high = min((rate for rate in misses if top is None or rate > top), default=None)
    ceiling = min([*misses, *([] if top is None else [top * (1 + 1e-9)])], default=float("inf"))
    surely = [item["offered_rate"] for item in items if _meets(item, slo, _end(item, 1))]
    low = max((rate for rate in surely if rate <= ceiling), default=None)
    return {
        "target": target,
        "protocol": protocol,
        "scenario": "capacity" if search else "ladder",
        "slo": {"p99_ms": slo["p99_ms"], "error_ratio": slo["error_ratio"]},
        "max_rate": top,
        "bracket": [top, above],
        "confirmed": confirmed,
        "out_of_time": out_of_time,
        "ci95": [low, high],
        "tested_rates": sorted({item["offered_rate"] for item in items}),
    }


def _end(item: Figures, end: int) -> float | None:
    bounds = item["ci95"]["p99"]
    return bounds[end] if bounds else None


def _meets(item: Figures, slo: dict[str, float], p99: float | None) -> bool:
    return item["valid"] and p99 is not None and p99 <= slo["p99_ms"] and item["error_ratio"] <= slo["error_ratio"]


def _misses(item: Figures, slo: dict[str, float]) -> bool:
    """Whether a rate surely misses the SLO; also where arrivals were dropped because the server held too many."""
    low = _end(item, 0)
    over = (low is not None and low > slo["p99_ms"]) or item["error_ratio"] > slo["error_ratio"]
    return over and (item["valid"] or bool(item["requests"]["dropped"]))
