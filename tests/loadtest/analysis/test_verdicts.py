"""Verdicts: the same whichever target is named first, over each two of any number, and the ranking that they give."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.analysis import rankings, statistics, verdicts
from loadtest.analysis.records import Capacity, Intervals, Metric, Outcome, Percentiles, Verdict
from loadtest.analysis.statistics import Resampled
from loadtest.analysis.verdicts import Compared
from loadtest.experiment.settings import Slo
from tests.loadtest.analysis.figures import measurement, parity

SLO = Slo()
NAMES = ("p99", "goodput", "achieved_rate")


def compared(target: str, values: dict[str, Any]) -> Compared:
    """A measurement at 100/s for 10 s with so much goodput (share of the offered rate) and p99 (ms)."""
    rng = np.random.default_rng(values["seed"])
    estimate = np.array([math.log(values["p99"]), values["goodput"], 1.0])
    deviation = rng.normal(0, values["spread"], (400, 3)) * [1.0, values["goodput"], 0.0]
    figures = measurement(
        target,
        goodput=100 * values["goodput"],
        latency_ms=Percentiles(p99=values["p99"]),
        ci95=Intervals(p99=(values["p99"] * 0.9, values["p99"] * 1.1), goodput=(0.0, 100.0)),
        **{name: values[name] for name in ("valid", "repetitions", "error_ratio", "achieved_rate")},
    )
    return Compared(
        figures, Resampled(NAMES, estimate, estimate + deviation, estimate[None], estimate[None], 1.0), deviation
    )


def limit(target: str, values: dict[str, Any]) -> Capacity:
    top, above = values["max_rate"], values["above"]
    return Capacity(
        target=target,
        protocol="grpc",
        scenario="capacity",
        slo=SLO,
        max_rate=top,
        bracket=(top, None),
        confirmed=values["confirmed"],
        out_of_time=False,
        ci95=(top and top * (1 - values["below"]), top * (1 + above) if top and above is not None else None),
        open_ends=(),
        tested_rates=(),
    )


def decide(*targets: tuple[str, dict[str, Any]], proven: bool = True) -> tuple[Verdict, ...]:
    """The verdicts on targets, each a name and the values of its measurement and its capacity."""
    measured = [compared(*target) for target in targets]
    limits = [limit(*target) for target in targets]
    return verdicts.decide([name for name, _ in targets], ["grpc"], measured, limits, SLO, parity(proven))


VALUES = st.fixed_dictionaries(
    {
        "p99": st.sampled_from([5.0, 20.0, 40.0, 400.0]),
        "goodput": st.sampled_from([0.0, 1e-4, 0.5, 0.9, 1.0]),
        "spread": st.sampled_from([0.0, 0.01, 0.3]),
        "seed": st.integers(0, 9),
        "valid": st.sampled_from([True, True, True, False]),
        "repetitions": st.sampled_from([1, 2, 2]),
        "error_ratio": st.sampled_from([0.0, 0.0, 0.01]),
        "achieved_rate": st.sampled_from([100.0, 100.0, 50.0]),
        "max_rate": st.sampled_from([None, 100.0, 105.0, 200.0]),
        "below": st.sampled_from([0.0, 0.05]),
        "above": st.sampled_from([None, 0.05, 0.2]),
        "confirmed": st.sampled_from([True, True, False]),
    }
)


def turned(value: float | None) -> float | None:
    """1 / value, where 0 and "without bound" are each other's."""
    return None if value in (0, None) else 1 / (value or 1)


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_targets_that_change_places_have_the_same_winner_and_ratio_and_interval_turned_round(one, other):
    found = decide(("one", one), ("other", other))
    swapped = decide(("other", other), ("one", one))
    assert len(found) == len(swapped) == 3
    for first, second in zip(found, swapped, strict=True):
        assert (first.metric, first.offered_rate) == (second.metric, second.offered_rate)
        assert (first.outcome, first.winner, first.loser) == (second.outcome, second.winner, second.loser)
        assert set(first.because_of) == set(second.because_of)
        assert first.error_ratios == second.error_ratios
        assert first.figures == (second.figures and second.figures[::-1])
        assert (first.ratio or 0) == pytest.approx(turned(second.ratio) or 0)
        assert (first.ci95 is None) == (second.ci95 is None)
        if first.ci95 and second.ci95:
            ends = [turned(end) or 0 for end in reversed(second.ci95)]
            assert [end or 0 for end in first.ci95] == pytest.approx(ends)
        assert (first.p_value or 0) == pytest.approx(second.p_value or 0)


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES)
def test_a_winner_goes_with_the_outcome_and_everything_else_says_why_there_is_none(one, other):
    for verdict in decide(("one", one), ("other", other)):
        assert (verdict.winner is not None) == (verdict.outcome is Outcome.WINNER)
        undecided = (Outcome.NO_VALID_RATE, Outcome.NO_COMMON_RATE, Outcome.NO_RATE_MET_SLO)
        assert verdict.has_ratio == (verdict.outcome not in undecided)
        assert (verdict.p_value is None) == (verdict.p_adjusted is None)
        blamed = (Outcome.TOO_MANY_ERRORS, Outcome.NOT_CONFIRMED, Outcome.NO_RATE_MET_SLO)
        assert bool(verdict.because_of) == (verdict.outcome in blamed)
        assert bool(verdict.error_ratios) == (verdict.outcome is Outcome.TOO_MANY_ERRORS)


FINE = {
    "p99": 20.0,
    "goodput": 1.0,
    "spread": 0.02,
    "seed": 1,
    "valid": True,
    "repetitions": 2,
    "error_ratio": 0.0,
    "achieved_rate": 100.0,
    "max_rate": 100.0,
    "below": 0.0,
    "above": 0.05,
    "confirmed": True,
}


def of(found: tuple[Verdict, ...], metric: Metric) -> Verdict:
    return next(item for item in found if item.metric is metric)


def test_a_server_that_answers_nothing_in_time_loses_whichever_is_named_first():
    dead = {**FINE, "goodput": 0.0, "p99": 900.0, "seed": 2}
    one, other = ("one", FINE), ("other", dead)
    for order, ratio in (((one, other), None), ((other, one), 0.0)):
        verdict = of(decide(*order), Metric.GOODPUT)
        assert (verdict.winner, verdict.ratio, verdict.unbounded) == ("one", ratio, ratio is None)
        # None of 10 seconds: at most 0.3 of what was offered.
        assert verdict.ci95 == ((pytest.approx(1 / 0.3), None) if ratio is None else (0.0, pytest.approx(0.3)))


def test_two_servers_that_answer_nothing_in_time_are_not_told_apart():
    dead = {**FINE, "goodput": 0.0}
    for failing in (dead, {**dead, "error_ratio": 0.01}):
        verdict = of(decide(("one", dead), ("other", failing)), Metric.GOODPUT)
        assert (verdict.winner, verdict.ratio, verdict.ci95, verdict.unbounded) == (None, None, None, False)
        assert verdict.outcome is Outcome.NO_DIFFERENCE_SHOWN


@pytest.mark.parametrize(
    ("values", "metric", "outcome"),
    [
        ({"repetitions": 1}, Metric.P99, Outcome.ONE_REPETITION_ONLY),
        ({"valid": False}, Metric.GOODPUT, Outcome.NO_VALID_RATE),
        ({"achieved_rate": 50.0}, Metric.P99, Outcome.NO_VALID_RATE),
        ({"error_ratio": 0.01}, Metric.P99, Outcome.TOO_MANY_ERRORS),
        ({"max_rate": None}, Metric.CAPACITY, Outcome.NO_RATE_MET_SLO),
        ({"confirmed": False, "max_rate": 400.0}, Metric.CAPACITY, Outcome.NOT_CONFIRMED),
    ],
)
def test_what_keeps_a_winner_from_being_named_is_said_with_the_target_that_does(values, metric, outcome):
    verdict = of(decide(("fine", FINE), ("fast", {**FINE, "p99": 5.0, "seed": 2, **values})), metric)
    assert (verdict.outcome, verdict.winner) == (outcome, None)
    if outcome in (Outcome.TOO_MANY_ERRORS, Outcome.NO_RATE_MET_SLO, Outcome.NOT_CONFIRMED):
        assert verdict.because_of == ("fast",)
    assert verdict.error_ratios == ({"fast": 0.01} if outcome is Outcome.TOO_MANY_ERRORS else {})


def test_without_parity_nobody_wins_and_what_would_have_been_shown_stays():
    fast = {**FINE, "p99": 5.0, "seed": 2}
    proven, not_proven = (
        of(decide(("fine", FINE), ("fast", fast), proven=known), Metric.P99) for known in (True, False)
    )
    assert (proven.outcome, proven.winner) == (Outcome.WINNER, "fast")
    assert (not_proven.outcome, not_proven.winner) == (Outcome.PARITY_NOT_PROVEN, None)
    assert (not_proven.ratio, not_proven.ci95) == (proven.ratio, proven.ci95)


def test_each_two_of_three_targets_are_compared_and_all_p_values_corrected_together():
    spread = {**FINE, "spread": 0.3}
    targets = (("slow", spread), ("same", {**spread, "seed": 3}), ("fast", {**spread, "p99": 5.0, "seed": 2}))
    found = decide(*targets)
    assert [(item.metric, item.compared) for item in found] == [
        (metric, pair)
        for pair in (("slow", "same"), ("slow", "fast"), ("same", "fast"))
        for metric in (Metric.P99, Metric.GOODPUT, Metric.CAPACITY)
    ]
    tested = [item for item in found if item.p_value is not None]
    assert [item.p_adjusted for item in tested] == statistics.holm([item.p_value or 0 for item in tested])
    assert {item.comparisons for item in tested} == {len(tested)}
    alone = decide(*targets[1:])
    for one, other in zip(found[-3:], alone, strict=True):
        assert (one.ratio, one.ci95, one.p_value) == (other.ratio, other.ci95, other.p_value)
        assert (one.p_adjusted or 0) >= (other.p_adjusted or 0)


def test_a_difference_that_only_many_comparisons_explain_is_not_shown():
    spread = {**FINE, "spread": 0.1, "max_rate": None}
    near = {**spread, "p99": 35.0, "seed": 2}
    two = of(decide(("one", spread), ("near", near)), Metric.P99)
    assert two.winner == "one"
    crowd = [(f"other{number}", {**spread, "seed": number}) for number in range(3, 9)]
    many = next(
        item
        for item in decide(("one", spread), ("near", near), *crowd)
        if item.compared == ("one", "near") and item.metric is Metric.P99
    )
    assert (many.p_value, many.winner, many.outcome) == (two.p_value, None, Outcome.NOT_AFTER_CORRECTION)
    assert many.shows_no_difference


def places(metric: Metric, *targets: tuple[str, dict[str, Any]]) -> list[tuple[str, int | None, tuple[str, ...]]]:
    names = [name for name, _ in targets]
    ranking = next(item for item in rankings.of(names, decide(*targets)) if item.metric is metric)
    return [(item.target, item.place, item.behind) for item in ranking.standings]


def test_targets_that_are_not_told_apart_share_a_place():
    slow, fast = {**FINE, "p99": 20.0}, {**FINE, "p99": 5.0}
    assert places(Metric.P99, ("a", slow), ("b", {**slow, "seed": 2}), ("c", {**fast, "seed": 3})) == [
        ("c", 1, ()),
        ("a", 2, ("c",)),
        ("b", 2, ("c",)),
    ]
    assert places(Metric.P99, ("a", fast), ("b", {**fast, "seed": 2}), ("c", {**slow, "seed": 3})) == [
        ("a", 1, ()),
        ("b", 1, ()),
        ("c", 3, ("a", "b")),
    ]


def test_a_target_is_behind_only_those_that_were_shown_to_be_better():
    # "mid" is told apart from nobody, "slow" from "fast" alone: so "slow" is second, not third.
    wide = {**FINE, "spread": 0.3}
    fast, mid, slow = (
        {**wide, "p99": 5.0},
        {**wide, "p99": 10.0, "spread": 2.0, "seed": 2},
        {**wide, "p99": 50.0, "seed": 3},
    )
    assert places(Metric.P99, ("slow", slow), ("mid", mid), ("fast", fast)) == [
        ("mid", 1, ()),
        ("fast", 1, ()),
        ("slow", 2, ("fast",)),
    ]


def test_a_target_that_was_compared_with_no_other_has_no_place():
    broken = {**FINE, "valid": False}
    assert places(Metric.GOODPUT, ("a", broken), ("b", FINE), ("c", {**FINE, "seed": 2})) == [
        ("b", 1, ()),
        ("c", 1, ()),
        ("a", None, ()),
    ]
