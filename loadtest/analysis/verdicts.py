"""What the figures decide: who wins, where anyone does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loadtest.analysis import statistics, wording
from loadtest.analysis.statistics import Floats, Ratio, Resampled

KEEPS_UP = 0.98
FEWEST_REPETITIONS = 2
# Of something that happened in none of n seconds, its share is at most 3 / n, with 95 % confidence (Hanley &
# Lippman-Hand 1983, "If nothing goes wrong, is everything all right?"). Seconds, because requests within one depend.
RULE_OF_THREE = 3.0


@dataclass(frozen=True)
class Compared:
    """One measurement with what a comparison needs.

    key         (target, protocol, scenario, offered rate)
    figures     its entry in summary.json
    resampled   its statistics; deviations [draws × statistics] their uncertainty
    mean_ms     its mean latency, or None
    """

    key: tuple[str, str, str, float]
    figures: dict[str, Any]
    resampled: Resampled
    deviations: Floats
    mean_ms: float | None = None

    def statistic(self, name: str) -> tuple[float, Floats]:
        """A statistic's estimate and its deviations, on the scale of `Resampled`."""
        index = self.resampled.names.index(name)
        return float(self.resampled.estimate[index]), self.deviations[:, index]


def keeps_up(figures: dict[str, Any]) -> bool:
    """Whether a target answered at least 98 % of the arrivals in time: no backlog grew."""
    seconds, scheduled = figures["duration_s"], figures["requests"]["scheduled"]
    return bool(scheduled) and figures["achieved_rate"] * seconds >= KEEPS_UP * scheduled


def decide(
    targets: Sequence[str],
    protocols: Sequence[str],
    measured: Sequence[Compared],
    limits: Sequence[dict[str, Any]],
    slo: dict[str, float],
    parity: dict[str, Any],
) -> list[dict[str, Any]]:
    """Two questions for each protocol about the first two targets, a third where both capacities were searched for
    (`limits`: see `capacity.of`); none where there are not two targets.

    A winner is named only where the interval of the ratio (first target / second target) excludes 1, also after Holm's
    correction for the number of comparisons (`p_adjusted`), both measurements are valid and repeated, errors are within
    the SLO, and both servers are proven to serve the same model; else `winner` is None and `why` says what is missing.
    ``ci95`` is of that ratio; an end is None where the data set no bound. ``ratio`` is None where there is no verdict,
    and where the second target's figure is 0 and the first's is not: then the interval has a lower end. Targets that
    change places have the same winner, and ratio and interval turned round.
    """
    if len(targets) < 2:
        return []
    pair = (targets[0], targets[1])
    found = []
    for protocol in protocols:
        rungs = _rungs(pair, protocol, measured)
        for question in (_lower_latency, _more_within_slo):
            verdict = {"protocol": protocol, "compared": list(pair), **question(pair, protocol, rungs, slo)}
            found.append(verdict)
        searched = [item for item in limits if (item["protocol"], item["scenario"]) == (protocol, "capacity")]
        by_target = {item["target"]: item for item in searched}
        if set(pair) <= set(by_target):
            found.append({"protocol": protocol, "compared": list(pair), **_higher_capacity(pair, protocol, by_target)})
    for verdict in found:
        if not parity["proven"] and verdict["winner"]:
            verdict["winner"] = None
            verdict["why"] += " No winner is named: the servers are not proven to serve the same model."
    _correct(found)
    return found


def _correct(verdicts: Sequence[dict[str, Any]]) -> None:
    """Holm's correction over all verdicts that compare: a winner must remain one."""
    compared = [verdict for verdict in verdicts if verdict["p_value"] is not None]
    adjusted = statistics.holm([verdict["p_value"] for verdict in compared])
    for verdict, p_adjusted in zip(compared, adjusted, strict=True):
        verdict["p_adjusted"] = p_adjusted
        if verdict["winner"] and p_adjusted > 1 - statistics.LEVEL:
            verdict["winner"] = None
            verdict["why"] = (
                f"No difference shown after Holm's correction for {len(compared)} comparisons "
                f"(p {wording.number(p_adjusted, 2)}). {verdict['why']}"
            )


Rungs = dict[float, tuple[Compared, Compared]]


def _rungs(pair: tuple[str, str], protocol: str, measured: Sequence[Compared]) -> Rungs:
    """The rates of the ladder at which both targets were measured over a protocol, ascending."""
    by_target = [
        {item.key[3]: item for item in measured if item.key[:3] == (target, protocol, "ladder")} for target in pair
    ]
    return {rate: (by_target[0][rate], by_target[1][rate]) for rate in sorted(by_target[0]) if rate in by_target[1]}


def _undecided(question: str, why: str) -> dict[str, Any]:
    empty = dict.fromkeys(["winner", "ratio", "ci95", "p_value", "p_adjusted", "offered_rate"])
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
    ci95: list[float | None] | None = [math.exp(end) for end in bounds] if bounds else None
    ratio = Ratio(math.exp(a - b), ci95, statistics.p_value(a - b, deviation_a - deviation_b))
    texts = [
        f"{wording.stack(item.key[0])} p99 {wording.milliseconds(item.figures['latency_ms']['p99'])} "
        f"({wording.interval(item.figures['ci95']['p99'])})"
        for item in (first, second)
    ]
    chosen = (
        f"At {wording.rate(rate)} offered, the highest common rate at which both are valid and keep up: "
        f"{texts[0]}, {texts[1]}; ratio {_shown(ratio)}."
    )
    failing = [item for item in (first, second) if item.figures["error_ratio"] > slo["error_ratio"]]
    return {
        "question": f"Lower p99 at {wording.rate(rate)} over {over}?",
        "metric": "p99",
        **_conclude(pair, rate, ratio, chosen, _repetitions(first, second), failing, slo, lower_wins=True),
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
    ratio = _goodput_ratio(a, deviation_a, b, deviation_b, min(item.figures["duration_s"] for item in (first, second)))
    texts = [
        f"{wording.stack(item.key[0])} answered {wording.rate(item.figures['goodput'])} "
        f"({wording.interval(item.figures['ci95']['goodput'], plain_rate=True)})"
        for item in (first, second)
    ]
    chosen = (
        f"Within {wording.setting(slo['p99_ms'], 'ms')} at {wording.rate(rate)} offered, the highest common rate with "
        f"valid measurements: {texts[0]}, {texts[1]}; ratio {_shown(ratio)}."
    )
    within = [item.figures["latency_ms"]["p99"] or math.inf for item in (first, second)]
    if max(within) <= slo["p99_ms"]:
        chosen += " Both still meet the SLO there; only a higher ladder could tell them apart."
    ahead = [first] if ratio.ratio > 1 else [second] if ratio.ratio < 1 else []  # nan: neither answers in time
    failing = [item for item in ahead if item.figures["error_ratio"] > slo["error_ratio"]]
    return {
        "question": question,
        "metric": "goodput",
        **_conclude(pair, rate, ratio, chosen, _repetitions(first, second), failing, slo, lower_wins=False),
    }


def _repetitions(first: Compared, second: Compared) -> int:
    return min(first.figures["repetitions"], second.figures["repetitions"])


def _goodput_ratio(first: float, its: Floats, second: float, others: Floats, seconds: float) -> Ratio:
    """first / second, of shares measured over so many seconds. The larger one divides, so that near-zero goodput does
    not blow the ratio up."""
    one, other = (first, float(np.var(its)), its), (second, float(np.var(others)), others)
    turned = one[:2] > other[:2]  # of equals, the surer one divides: so swapping them turns the interval round
    small, large = (other, one) if turned else (one, other)
    if large[0] <= 0:
        return Ratio(math.nan, None, None)
    share = small[0] / large[0]
    deviation = (small[0] + small[2]) / np.maximum(large[0] + large[2], large[0] * 1e-3) - share
    ends: list[float | None] | None = None
    if bounds := statistics.interval(share, deviation):
        # A resample of nothing is nothing, and says nothing of how much there might be.
        most = bounds[1] if small[0] > 0 else max(bounds[1], min(1.0, RULE_OF_THREE / seconds) / large[0])
        ends = [max(0.0, bounds[0]), most]
    if turned:
        ends = [1 / end if end else None for end in reversed(ends)] if ends else None
        share = 1 / share if share else math.inf
    return Ratio(share, ends, statistics.p_value(small[0] / large[0] - 1, deviation))


def _shown(ratio: Ratio) -> str:
    number = "without bound" if math.isinf(ratio.ratio) else wording.number(ratio.ratio)
    return f"{number} ({wording.interval(ratio.ci95)})"


def _higher_capacity(pair: tuple[str, str], protocol: str, limits: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Whose capacity is higher? By the searches' boundaries and their intervals."""
    question = f"Higher capacity within the SLO over {wording.protocol(protocol)}?"
    first, second = (limits[target] for target in pair)
    for item in (first, second):
        if item["max_rate"] is None:
            why = f"{wording.stack(item['target'])} met the SLO at no rate that was tried"
            return {"metric": "capacity", **_undecided(question, why)}
    ratio = statistics.ratio_of_bounded(first["max_rate"], first["ci95"], second["max_rate"], second["ci95"])
    texts = [
        f"{wording.stack(item['target'])} {wording.rate(item['max_rate'])} "
        f"({wording.interval(item['ci95'], plain_rate=True)})"
        for item in (first, second)
    ]
    why = f"{texts[0]}, {texts[1]}; ratio {_shown(ratio)}."
    winner = None
    unsure = [wording.stack(item["target"]) for item in (first, second) if not item["confirmed"]]
    if unsure:
        why += f" No winner is named: the boundaries of {' and '.join(unsure)} were not confirmed by a repeat."
    elif not _excludes_one(ratio):
        why = f"No difference shown. {why}"
    else:
        winner = pair[0] if ratio.ratio > 1 else pair[1]
    found = {"winner": winner, "ratio": ratio.ratio, "ci95": ratio.ci95, "p_value": ratio.p_value, "p_adjusted": None}
    return {"question": question, "metric": "capacity", **found, "offered_rate": None, "why": why}


def _excludes_one(ratio: Ratio) -> bool:
    if ratio.ci95 is None:
        return False
    low, high = ratio.ci95
    return (low is not None and low > 1) or (high is not None and high < 1)


def _conclude(
    pair: tuple[str, str],
    rate: float,
    ratio: Ratio,
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
    elif not _excludes_one(ratio):
        why = f"No difference shown. {chosen}"
    else:
        winner = pair[0] if (ratio.ratio < 1) == lower_wins else pair[1]
        why = chosen
    finite = ratio.ratio if math.isfinite(ratio.ratio) else None
    found = {"winner": winner, "ratio": finite, "ci95": ratio.ci95, "p_value": ratio.p_value, "p_adjusted": None}
    return {**found, "offered_rate": rate, "why": why}
