"""What the figures decide: who wins, where anyone does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import msgspec
import numpy as np

from loadtest.analysis import statistics
from loadtest.analysis.records import Capacity, Estimate, Interval, Measurement, Metric, Outcome, Parity, Verdict
from loadtest.analysis.saved_run import Key
from loadtest.analysis.statistics import Floats, Ratio, Resampled
from loadtest.experiment.settings import Slo

KEEPS_UP = 0.98
FEWEST_REPETITIONS = 2
# Of something that happened in none of n seconds, its share is at most 3 / n, with 95 % confidence (Hanley &
# Lippman-Hand 1983, "If nothing goes wrong, is everything all right?"). Seconds, because requests within one depend.
RULE_OF_THREE = 3.0

Pair = tuple[str, str]


@dataclass(frozen=True)
class Compared:
    """One measurement with what a comparison needs.

    figures     its entry in the summary
    resampled   its statistics; deviations [draws × statistics] their uncertainty
    mean_ms     its mean latency, or None
    """

    figures: Measurement
    resampled: Resampled
    deviations: Floats
    mean_ms: float | None = None

    @property
    def key(self) -> Key:
        """(target, protocol, scenario, offered rate)."""
        return self.figures.target, self.figures.protocol, self.figures.scenario, self.figures.offered_rate

    def statistic(self, name: str) -> tuple[float, Floats]:
        """A statistic's estimate and its deviations, on the scale of `Resampled`."""
        index = self.resampled.names.index(name)
        return float(self.resampled.estimate[index]), self.deviations[:, index]


def keeps_up(figures: Measurement) -> bool:
    """Whether a target answered at least 98 % of the arrivals in time: no backlog grew."""
    scheduled = figures.requests.scheduled
    return bool(scheduled) and figures.achieved_rate * figures.duration_s >= KEEPS_UP * scheduled


def decide(
    targets: Sequence[str],
    protocols: Sequence[str],
    measured: Sequence[Compared],
    limits: Sequence[Capacity],
    slo: Slo,
    parity: Parity,
) -> tuple[Verdict, ...]:
    """Two questions for each protocol about each two of the targets, a third where both capacities were searched for
    (`limits`: see `capacity.of`); none where there are not two targets.

    A winner is named only where the interval of the ratio (first target / second target) excludes 1, also after Holm's
    correction for the number of comparisons of the whole run, both measurements are valid and repeated, errors are
    within the SLO, and both servers are proven to serve the same model; else `Outcome` says what is missing. Targets
    that change places have the same winner, and ratio and interval turned round.
    """
    found = []
    for protocol in protocols:
        searched = {item.target: item for item in limits if (item.protocol, item.scenario) == (protocol, "capacity")}
        for first, second in combinations(targets, 2):
            pair = (first, second)
            rungs = _rungs(pair, protocol, measured)
            found += [_lower_latency(pair, protocol, rungs, slo), _more_within_slo(pair, protocol, rungs, slo)]
            if set(pair) <= searched.keys():
                found.append(_higher_capacity(pair, protocol, searched))
    if not parity.proven:
        found = [
            msgspec.structs.replace(one, winner=None, outcome=Outcome.PARITY_NOT_PROVEN) if one.winner else one
            for one in found
        ]
    return tuple(_corrected(found))


def _corrected(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """After Holm's correction over all verdicts that compare: a winner must remain one."""
    p_values = [one.p_value for one in verdicts if one.p_value is not None]
    adjusted = iter(statistics.holm(p_values))
    return [one if one.p_value is None else _adjusted(one, next(adjusted), len(p_values)) for one in verdicts]


def _adjusted(verdict: Verdict, p_adjusted: float, comparisons: int) -> Verdict:
    found = msgspec.structs.replace(verdict, p_adjusted=p_adjusted, comparisons=comparisons)
    if found.winner and p_adjusted > 1 - statistics.LEVEL:
        return msgspec.structs.replace(found, winner=None, outcome=Outcome.NOT_AFTER_CORRECTION)
    return found


Rungs = dict[float, tuple[Compared, Compared]]


def _rungs(pair: Pair, protocol: str, measured: Sequence[Compared]) -> Rungs:
    """The rates of the ladder at which both targets were measured over a protocol, ascending."""
    by_target = [
        {item.key[3]: item for item in measured if item.key[:3] == (target, protocol, "ladder")} for target in pair
    ]
    return {rate: (by_target[0][rate], by_target[1][rate]) for rate in sorted(by_target[0]) if rate in by_target[1]}


def _lower_latency(pair: Pair, protocol: str, rungs: Rungs, slo: Slo) -> Verdict:
    """Who has the lower p99 at the highest common rate at which both are valid and keep up?"""
    usable = [
        rate for rate, both in rungs.items() if all(item.figures.valid and keeps_up(item.figures) for item in both)
    ]
    if not usable:
        return _no_rate(pair, protocol, Metric.P99, rungs)
    rate = max(usable)
    first, second = rungs[rate]
    (a, deviation_a), (b, deviation_b) = first.statistic("p99"), second.statistic("p99")
    bounds = statistics.interval(a - b, deviation_a - deviation_b)
    ci95 = (math.exp(bounds[0]), math.exp(bounds[1])) if bounds else None
    return _conclude(
        Verdict(
            protocol=protocol,
            metric=Metric.P99,
            compared=pair,
            outcome=Outcome.NO_DIFFERENCE_SHOWN,
            offered_rate=rate,
            figures=_estimates(first, second, "p99"),
        ),
        Ratio(math.exp(a - b), ci95, statistics.p_value(a - b, deviation_a - deviation_b)),
        (first, second),
        (first, second),
        slo,
    )


def _more_within_slo(pair: Pair, protocol: str, rungs: Rungs, slo: Slo) -> Verdict:
    """Who answers more requests within the SLO at the highest common rate at which both are valid?

    Only the winner's errors count against it: a refused or failed request is in nobody's goodput.
    """
    usable = [rate for rate, both in rungs.items() if all(item.figures.valid for item in both)]
    if not usable:
        return _no_rate(pair, protocol, Metric.GOODPUT, rungs)
    rate = max(usable)
    first, second = rungs[rate]
    (a, deviation_a), (b, deviation_b) = first.statistic("goodput"), second.statistic("goodput")
    seconds = min(item.figures.duration_s for item in (first, second))
    ratio = _goodput_ratio(a, deviation_a, b, deviation_b, seconds)
    p99s = [item.figures.latency_ms.p99 or math.inf for item in (first, second)]
    return _conclude(
        Verdict(
            protocol=protocol,
            metric=Metric.GOODPUT,
            compared=pair,
            outcome=Outcome.NO_DIFFERENCE_SHOWN,
            offered_rate=rate,
            figures=_estimates(first, second, "goodput"),
            both_meet_slo=max(p99s) <= slo.p99_ms,
        ),
        ratio,
        (first, second),
        [first] if ratio.ratio > 1 else [second] if ratio.ratio < 1 else [],  # nan: neither answers in time
        slo,
    )


def _no_rate(pair: Pair, protocol: str, metric: Metric, rungs: Rungs) -> Verdict:
    outcome = Outcome.NO_VALID_RATE if rungs else Outcome.NO_COMMON_RATE
    return Verdict(protocol=protocol, metric=metric, compared=pair, outcome=outcome)


def _estimates(first: Compared, second: Compared, name: str) -> tuple[Estimate, Estimate]:
    one, other = (item.figures for item in (first, second))
    if name == "goodput":
        return Estimate(one.goodput, one.ci95.goodput), Estimate(other.goodput, other.ci95.goodput)
    return Estimate(one.latency_ms[name], one.ci95[name]), Estimate(other.latency_ms[name], other.ci95[name])


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
    ends: Interval | None = None
    if bounds := statistics.interval(share, deviation):
        # A resample of nothing is nothing, and says nothing of how much there might be.
        most = bounds[1] if small[0] > 0 else max(bounds[1], min(1.0, RULE_OF_THREE / seconds) / large[0])
        ends = (max(0.0, bounds[0]), most)
    if turned:
        ends = (1 / ends[1] if ends[1] else None, 1 / ends[0] if ends[0] else None) if ends else None
        share = 1 / share if share else math.inf
    return Ratio(share, ends, statistics.p_value(small[0] / large[0] - 1, deviation))


def _higher_capacity(pair: Pair, protocol: str, limits: Mapping[str, Capacity]) -> Verdict:
    """Whose capacity is higher? By the searches' boundaries and their intervals."""
    first, second = (limits[target] for target in pair)
    verdict = Verdict(protocol=protocol, metric=Metric.CAPACITY, compared=pair, outcome=Outcome.NO_DIFFERENCE_SHOWN)
    if first.max_rate is None or second.max_rate is None:
        none = tuple(item.target for item in (first, second) if item.max_rate is None)
        return msgspec.structs.replace(verdict, outcome=Outcome.NO_RATE_MET_SLO, because_of=none)
    ratio = statistics.ratio_of_bounded(first.max_rate, first.ci95, second.max_rate, second.ci95)
    unsure = tuple(item.target for item in (first, second) if not item.confirmed)
    winner, outcome = None, Outcome.NO_DIFFERENCE_SHOWN
    if unsure:
        outcome = Outcome.NOT_CONFIRMED
    elif _excludes_one(ratio):
        winner, outcome = pair[0] if ratio.ratio > 1 else pair[1], Outcome.WINNER
    return msgspec.structs.replace(
        verdict,
        outcome=outcome,
        winner=winner,
        figures=(Estimate(first.max_rate, first.ci95), Estimate(second.max_rate, second.ci95)),
        ratio=ratio.ratio,
        ci95=ratio.ci95,
        p_value=ratio.p_value,
        because_of=unsure,
    )


def _excludes_one(ratio: Ratio) -> bool:
    if ratio.ci95 is None:
        return False
    low, high = ratio.ci95
    return (low is not None and low > 1) or (high is not None and high < 1)


def _conclude(
    verdict: Verdict, ratio: Ratio, both: Sequence[Compared], blamed: Sequence[Compared], slo: Slo
) -> Verdict:
    """A verdict on two measurements with its outcome; ``blamed``: whose errors count against a winner."""
    winner, outcome = None, Outcome.NO_DIFFERENCE_SHOWN
    failing = [item.figures for item in blamed if item.figures.error_ratio > slo.error_ratio]
    if min(item.figures.repetitions for item in both) < FEWEST_REPETITIONS:
        outcome, failing = Outcome.ONE_REPETITION_ONLY, []
    elif failing:
        outcome = Outcome.TOO_MANY_ERRORS
    elif _excludes_one(ratio):
        lower_wins = verdict.metric is Metric.P99
        winner, outcome = verdict.compared[(ratio.ratio < 1) != lower_wins], Outcome.WINNER
    return msgspec.structs.replace(
        verdict,
        outcome=outcome,
        winner=winner,
        ratio=ratio.ratio if math.isfinite(ratio.ratio) else None,
        unbounded=math.isinf(ratio.ratio),
        ci95=ratio.ci95,
        p_value=ratio.p_value,
        because_of=tuple(item.target for item in failing),
        error_ratios={item.target: item.error_ratio for item in failing},
    )
