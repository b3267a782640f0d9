"""What the figures decide: which target meets the SLO up to which rate, and who wins, where anyone does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.analysis import statistics, wording
from loadtest.analysis.statistics import Floats, Resampled

KEEPS_UP = 0.98
FEWEST_REPETITIONS = 2


@dataclass(frozen=True)
class Compared:
    """One measurement with what a comparison needs.

    key         (target, protocol, scenario, offered rate)
    figures     its entry in summary.json
    resampled   its statistics; deviations [draws × statistics] their uncertainty
    """

    key: tuple[str, str, str, float]
    figures: dict[str, Any]
    resampled: Resampled
    deviations: Floats

    def statistic(self, name: str) -> tuple[float, Floats]:
        """A statistic's estimate and its deviations, on the scale of `Resampled`."""
        index = self.resampled.names.index(name)
        return float(self.resampled.estimate[index]), self.deviations[:, index]


def keeps_up(figures: dict[str, Any]) -> bool:
    """Whether a target answered at least 98 % of the arrivals in time: no backlog grew."""
    seconds, scheduled = figures["duration_s"], figures["requests"]["scheduled"]
    return bool(scheduled) and figures["achieved_rate"] * seconds >= KEEPS_UP * scheduled


def capacity(measurements: Sequence[dict[str, Any]], slo: dict[str, float]) -> list[dict[str, Any]]:
    """For each target and protocol: the highest offered rate of the ladder whose p99 meets the SLO, validly.

    ``max_rate`` is None where no tested rate does. ``bracket`` is [max_rate, the next tested rate, which does not], its
    end None where the ladder ended first. ``ci95`` is [highest rate whose upper bound still meets the SLO, lowest rate
    whose lower bound misses it]; None where no tested rate says so.
    """
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in measurements:
        if item["scenario"] == "ladder":
            groups.setdefault((item["target"], item["protocol"]), []).append(item)
    found = []
    for (target, protocol), group in groups.items():
        items = sorted(group, key=lambda item: item["offered_rate"])
        meets = [item["offered_rate"] for item in items if _meets(item, slo, item["latency_ms"]["p99"])]
        surely = [item["offered_rate"] for item in items if _meets(item, slo, _end(item, 1))]
        misses = [item["offered_rate"] for item in items if _misses(item, slo)]
        top = max(meets, default=None)
        above = [item["offered_rate"] for item in items if top is None or item["offered_rate"] > top]
        found.append(
            {
                "target": target,
                "protocol": protocol,
                "slo": {"p99_ms": slo["p99_ms"], "error_ratio": slo["error_ratio"]},
                "max_rate": top,
                "bracket": [top, min(above, default=None)],
                "ci95": [max(surely, default=None), min(misses, default=None)],
                "tested_rates": [item["offered_rate"] for item in items],
            }
        )
    return found


def _end(item: dict[str, Any], end: int) -> float | None:
    bounds = item["ci95"]["p99"]
    return bounds[end] if bounds else None


def _meets(item: dict[str, Any], slo: dict[str, float], p99: float | None) -> bool:
    return item["valid"] and p99 is not None and p99 <= slo["p99_ms"] and item["error_ratio"] <= slo["error_ratio"]


def _misses(item: dict[str, Any], slo: dict[str, float]) -> bool:
    low = _end(item, 0)
    return (low is not None and low > slo["p99_ms"]) or item["error_ratio"] > slo["error_ratio"]


def decide(
    targets: Sequence[str],
    protocols: Sequence[str],
    measured: Sequence[Compared],
    slo: dict[str, float],
    parity: dict[str, Any],
) -> list[dict[str, Any]]:
    """Two questions for each protocol, about the first two targets; none where there are not two.

    A winner is named only where the interval of the ratio (first target / second target) excludes 1, both measurements
    are valid and repeated, errors are within the SLO, and both servers are proven to serve the same model; else
    `winner` is None and `why` says what is missing. ``ci95`` is of that ratio; its upper end is None where the data set
    no bound.
    """
    if len(targets) < 2:
        return []
    pair = (targets[0], targets[1])
    found = []
    for protocol in protocols:
        rungs = _rungs(pair, protocol, measured)
        for question in (_lower_latency, _more_within_slo):
            verdict = {"protocol": protocol, "compared": list(pair), **question(pair, protocol, rungs, slo)}
            if not parity["proven"] and verdict["winner"]:
                verdict["winner"] = None
                verdict["why"] += " No winner is named: the servers are not proven to serve the same model."
            found.append(verdict)
    return found


Rungs = dict[float, tuple[Compared, Compared]]


def _rungs(pair: tuple[str, str], protocol: str, measured: Sequence[Compared]) -> Rungs:
    """The rates of the ladder at which both targets were measured over a protocol, ascending."""
    by_target = [
        {item.key[3]: item for item in measured if item.key[:3] == (target, protocol, "ladder")} for target in pair
    ]
    return {rate: (by_target[0][rate], by_target[1][rate]) for rate in sorted(by_target[0]) if rate in by_target[1]}


def _undecided(question: str, why: str) -> dict[str, Any]:
    empty = {"winner": None, "ratio": None, "ci95": None, "offered_rate": None}
    return {"question": question, **empty, "why": f"No verdict: {why}."}


def _why_no_rate(pair: tuple[str, str], rungs: Rungs, condition: str) -> str:
    if rungs:
        return f"at no common rate {condition}"
    return f"{' and '.join(wording.stack(name) for name in pair)} were not both measured at a common rate"


def _lower_latency(pair: tuple[str, str], protocol: str, rungs: Rungs, slo: dict[str, float]) -> dict[str, Any]:
    """Who has the lower p99 at the highest common rate at which both are valid and keep up?"""
    usable = [
        rate for rate, both in rungs.items() if all(item.figures["valid"] and keeps_up(item.figures) for item in both)
    ]
    over = wording.protocol(protocol)
    if not usable:
        why = _why_no_rate(pair, rungs, "were both measurements valid and both servers keeping up")
        return {"metric": "p99", **_undecided(f"Lower p99 over {over}?", why)}
    rate = max(usable)
    first, second = rungs[rate]
    (a, deviation_a), (b, deviation_b) = first.statistic("p99"), second.statistic("p99")
    bounds = statistics.interval(a - b, deviation_a - deviation_b)
    ratio = math.exp(a - b)
    ci95: list[float | None] | None = [math.exp(end) for end in bounds] if bounds else None
    texts = [
        f"{wording.stack(item.key[0])} p99 {wording.milliseconds(item.figures['latency_ms']['p99'])} "
        f"({wording.interval(item.figures['ci95']['p99'])})"
        for item in (first, second)
    ]
    chosen = (
        f"At {wording.rate(rate)} offered, the highest common rate at which both are valid and keep up: "
        f"{texts[0]}, {texts[1]}; ratio {wording.number(ratio)} ({wording.interval(ci95)})."
    )
    failing = [item for item in (first, second) if item.figures["error_ratio"] > slo["error_ratio"]]
    return {
        "question": f"Lower p99 at {wording.rate(rate)} over {over}?",
        "metric": "p99",
        **_conclude(pair, rate, ratio, ci95, chosen, _repetitions(first, second), failing, slo, lower_wins=True),
    }


def _more_within_slo(pair: tuple[str, str], protocol: str, rungs: Rungs, slo: dict[str, float]) -> dict[str, Any]:
    """Who answers more requests within the SLO at the highest common rate at which both are valid?

    Only the winner's errors count against it: a refused or failed request is in nobody's goodput.
    """
    usable = [rate for rate, both in rungs.items() if all(item.figures["valid"] for item in both)]
    question = f"More requests/s within the SLO over {wording.protocol(protocol)}?"
    if not usable:
        why = _why_no_rate(pair, rungs, "were both measurements valid")
        return {"metric": "goodput", **_undecided(question, why)}
    rate = max(usable)
    first, second = rungs[rate]
    (a, deviation_a), (b, deviation_b) = first.statistic("goodput"), second.statistic("goodput")
    ratio = a / b if b > 0 else math.inf
    ci95 = (
        _share_interval(a, deviation_a, b, deviation_b) if a <= b else _share_interval(b, deviation_b, a, deviation_a)
    )
    if ci95 and a > b:
        ci95 = [1 / end if end else None for end in reversed(ci95)]
    texts = [
        f"{wording.stack(item.key[0])} answered {wording.rate(item.figures['goodput'])} "
        f"({wording.interval(item.figures['ci95']['goodput'], plain_rate=True)})"
        for item in (first, second)
    ]
    chosen = (
        f"Within {wording.setting(slo['p99_ms'], 'ms')} at {wording.rate(rate)} offered, the highest common rate with "
        f"valid measurements: {texts[0]}, {texts[1]}; ratio {wording.number(ratio)} ({wording.interval(ci95)})."
    )
    within = [item.figures["latency_ms"]["p99"] or math.inf for item in (first, second)]
    if max(within) <= slo["p99_ms"]:
        chosen += " Both still meet the SLO there; only a higher ladder could tell them apart."
    ahead = first if ratio > 1 else second
    failing = [ahead] if ahead.figures["error_ratio"] > slo["error_ratio"] else []
    finite = ratio if math.isfinite(ratio) else None
    return {
        "question": question,
        "metric": "goodput",
        **_conclude(pair, rate, finite, ci95, chosen, _repetitions(first, second), failing, slo, lower_wins=False),
    }


def _repetitions(first: Compared, second: Compared) -> int:
    return min(first.figures["repetitions"], second.figures["repetitions"])


def _share_interval(small: float, its: Floats, large: float, others: Floats) -> list[float | None] | None:
    """The interval of small / large. The larger one divides, so that near-zero goodput does not blow the ratio up."""
    if large <= 0:
        return None
    share = small / large
    bounds = statistics.interval(share, (small + its) / np.maximum(large + others, large * 1e-3) - share)
    return [max(0.0, bounds[0]), bounds[1]] if bounds else None


def _conclude(
    pair: tuple[str, str],
    rate: float,
    ratio: float | None,
    ci95: list[float | None] | None,
    chosen: str,
    repetitions: int,
    failing: Sequence[Compared],
    slo: dict[str, float],
    *,
    lower_wins: bool,
) -> dict[str, Any]:
    winner = None
    if repetitions < FEWEST_REPETITIONS:
        why = f"{chosen} No winner is named: measured once, so nothing tells how much a repetition would differ."
    elif failing:
        names = " and ".join(
            f"{wording.stack(item.key[0])} failed {wording.share(item.figures['error_ratio'])}" for item in failing
        )
        why = f"{chosen} No winner is named: {names} of requests, more than {wording.share(slo['error_ratio'])}."
    elif ci95 is None or ratio is None or (ci95[0] or 0) <= 1 <= (math.inf if ci95[1] is None else ci95[1]):
        why = f"No difference shown. {chosen}"
    else:
        winner = pair[0] if (ratio < 1) == lower_wins else pair[1]
        why = chosen
    return {"winner": winner, "ratio": ratio, "ci95": ci95, "offered_rate": rate, "why": why}
