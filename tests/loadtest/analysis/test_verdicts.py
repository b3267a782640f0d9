"""Verdicts: the same whichever target is named first, over each two of any number, and the ranking that they give."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.analysis import rankings, start_means, verdicts
from loadtest.analysis.records import (
    ArrivalsDropped,
    Capacity,
    Fault,
    LadderInfo,
    Measurement,
    OpenEnd,
    Outcome,
    SentLate,
    Verdict,
    WhyOpen,
    WrongAnswers,
)
from loadtest.analysis.saved_run import Key
from loadtest.analysis.verdicts import Evidence
from loadtest.experiment import decision
from loadtest.experiment.decision import Figure
from loadtest.experiment.questions import Family, Metric, Question
from loadtest.experiment.records import ServerDied
from loadtest.experiment.settings import Slo
from loadtest.experiment.starts import Figures, Subject
from tests.loadtest.analysis.figures import measurement

SLO = Slo()
RATE = 100.0
LATE, DROPPED = SentLate(2.0, 1.0, 0.0), ArrivalsDropped(3, 1024)
WRONG, DIED = WrongAnswers(1, 50), ServerDied(after_s=1.0, lost=9)


def spread_out(value: float, values: dict[str, Any], own: int) -> dict[int, Figure]:
    """The figures of a target's starts around a value: their geometric mean is that value."""
    noise = np.random.default_rng([values["seed"], own]).normal(0, values["spread"], values["starts"])
    return {
        block: Figure(math.log(value) + float(one - noise.mean()), 0.03**2) for block, one in enumerate(noise, start=1)
    }


def limit(target: str, values: dict[str, Any], figures: dict[int, Figure]) -> Capacity:
    met = values["capacity"] is not None
    mean = start_means.estimate([*figures.values()])
    return Capacity(
        target=target,
        protocol="grpc",
        scenario="capacity",
        slo=SLO,
        max_rate=mean.value if met else None,
        ci95=mean.ci95 if met else (None, 100.0),
        open_ends=() if met else (OpenEnd(WhyOpen.NO_RATE_MET, 100.0),),
    )


def evidence(targets: dict[str, dict[str, Any]], proven: bool = True, looks: tuple[int, ...] = ()) -> Evidence:
    """What a run measured of targets that have the values named: p99 (ms) at 100/s, and a capacity (None: no rate met
    the SLO), on so many starts that lie so far apart."""
    figures: Figures = {}
    measurements: dict[Key, Measurement] = {}
    limits = {}
    for name, values in targets.items():
        capacities = spread_out(values["capacity"] or 50.0, values, 0)
        limits[name, "grpc"] = limit(name, values, capacities)
        figures[Subject(Metric.CAPACITY, name, "grpc")] = capacities
        figures[Subject(Metric.P99, name, "grpc", RATE)] = spread_out(values["p99"], values, 1)
        faults = tuple(Fault((2,), one) for one in values["faults"])
        for scenario, rate in (("ladder", RATE), ("capacity", 40.0)):
            measurements[name, "grpc", scenario, rate] = measurement(
                name,
                scenario=scenario,
                offered_rate=rate,
                error_ratio=values["error_ratio"],
                valid=not faults,
                why_not_valid=faults if scenario == "ladder" or values["in_search"] else (),
            )
    planned = looks or (max(values["starts"] for values in targets.values()),)
    return Evidence(figures, measurements, limits, proven, planned, 30.0)


def decide(*targets: tuple[str, dict[str, Any]], proven: bool = True, looks: tuple[int, ...] = ()) -> list[Verdict]:
    """The verdicts on targets, each a name and its values."""
    found = evidence(dict(targets), proven, looks)
    asked = verdicts.questions([name for name, _ in targets], {"grpc": [RATE]}, {"grpc": RATE}, found.limits.keys())
    return list(verdicts.decide(asked, found, SLO))


FAULTS = st.sampled_from([[], [], [], [LATE], [DROPPED], [WRONG], [DIED]])
VALUES = st.fixed_dictionaries(
    {
        "p99": st.sampled_from([5.0, 20.0, 40.0, 400.0]),
        "capacity": st.sampled_from([None, 100.0, 105.0, 200.0]),
        "spread": st.sampled_from([0.0, 0.05, 0.3]),
        "starts": st.sampled_from([1, 2, 3, 5, 8]),
        "seed": st.integers(0, 9),
        "faults": FAULTS,
        "in_search": st.booleans(),
        "error_ratio": st.sampled_from([0.0, 0.0, 0.01]),
    }
)
LOOKS = st.sampled_from([(), (3, 4, 6, 8)])


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES, LOOKS)
def test_targets_that_change_places_have_the_same_winner_and_ratio_and_interval_turned_round(one, other, looks):
    found = decide(("one", one), ("other", other), looks=looks)
    swapped = decide(("other", other), ("one", one), looks=looks)
    assert len(found) == len(swapped) == 2
    for first, second in zip(found, swapped, strict=True):
        assert (first.metric, first.offered_rate) == (second.metric, second.offered_rate)
        assert (first.outcome, first.winner, first.loser) == (second.outcome, second.winner, second.loser)
        assert set(first.because_of) == set(second.because_of)
        assert (first.error_ratios, first.starts) == (second.error_ratios, second.starts)
        assert first.figures == (second.figures and second.figures[::-1])
        assert (first.ratio is None) == (second.ratio is None)
        if first.ratio and second.ratio:
            assert first.ratio == pytest.approx(1 / second.ratio)
        assert (first.ci95 is None) == (second.ci95 is None)
        if first.ci95 and second.ci95:
            assert first.ci95 == pytest.approx([1 / end for end in reversed(second.ci95)])
        for name in ("p_value", "p_adjusted", "error", "detectable"):
            assert getattr(first, name) == pytest.approx(getattr(second, name))
        assert (first.needed and first.needed.starts) == (second.needed and second.needed.starts)


NO_RATIO = (Outcome.NO_VALID_RATE, Outcome.NO_COMMON_RATE, Outcome.NO_RATE_MET_SLO)


@settings(max_examples=200, deadline=None)
@given(VALUES, VALUES, LOOKS)
def test_a_winner_goes_with_the_outcome_and_everything_else_says_why_there_is_none(one, other, looks):
    for verdict in decide(("one", one), ("other", other), looks=looks):
        assert (verdict.winner is not None) == (verdict.outcome is Outcome.WINNER)
        assert verdict.has_ratio == (verdict.outcome not in NO_RATIO)
        assert (verdict.p_value is None) == (verdict.p_adjusted is None) == (verdict.ci95 is None)
        blamed = (Outcome.TOO_MANY_ERRORS, Outcome.NO_RATE_MET_SLO)
        assert bool(verdict.because_of) == (verdict.outcome in blamed)
        assert bool(verdict.error_ratios) == (verdict.outcome is Outcome.TOO_MANY_ERRORS)
        assert not (verdict.winner and (verdict.needed or verdict.detectable))
        assert verdict.needed is None or verdict.shows_no_difference
        if verdict.winner:
            assert verdict.ci95
            assert verdict.starts >= 2
            assert (verdict.p_adjusted or 1) <= 0.05
            assert not verdict.ci95[0] <= 1 <= verdict.ci95[1]
            first_is_more = (verdict.ratio or 0) > 1
            assert verdict.winner == ("one" if first_is_more == (verdict.metric is Metric.CAPACITY) else "other")


FINE = {
    "p99": 20.0,
    "capacity": 100.0,
    "spread": 0.05,
    "starts": 4,
    "seed": 1,
    "faults": [],
    "in_search": True,
    "error_ratio": 0.0,
}
FAST = {**FINE, "p99": 5.0, "capacity": 200.0, "seed": 2}


def of(found: list[Verdict], metric: Metric) -> Verdict:
    return next(item for item in found if item.metric is metric)


def test_a_better_server_wins_with_the_ratio_of_the_starts_means():
    capacity, latency = decide(("fine", FINE), ("fast", FAST))
    assert (capacity.family, capacity.winner, capacity.offered_rate) == (Family.CAPACITY, "fast", None)
    assert (latency.family, latency.winner, latency.offered_rate) == (Family.LATENCY, "fast", RATE)
    assert (capacity.ratio, latency.ratio) == (pytest.approx(0.5), pytest.approx(4.0))
    assert capacity.figures is not None
    assert [one.value for one in capacity.figures] == [pytest.approx(100.0), pytest.approx(200.0)]
    low, high = latency.ci95 or (0, 0)
    assert 3.5 < low < 4.0 < high < 4.6


@pytest.mark.parametrize(
    ("values", "metric", "outcome"),
    [
        ({"starts": 1}, Metric.P99, Outcome.ONE_START_ONLY),
        ({"starts": 1}, Metric.CAPACITY, Outcome.ONE_START_ONLY),
        ({"faults": [DROPPED]}, Metric.P99, Outcome.NO_VALID_RATE),
        ({"faults": [WRONG]}, Metric.P99, Outcome.NO_VALID_RATE),
        ({"faults": [DIED]}, Metric.P99, Outcome.NO_VALID_RATE),
        ({"faults": [WRONG]}, Metric.CAPACITY, Outcome.NO_VALID_RATE),
        ({"faults": [DIED]}, Metric.CAPACITY, Outcome.NO_VALID_RATE),
        ({"faults": [DROPPED]}, Metric.CAPACITY, Outcome.WINNER),  # a trial that missed the SLO, no more
        ({"faults": [DIED], "in_search": False}, Metric.CAPACITY, Outcome.WINNER),
        ({"faults": [LATE]}, Metric.P99, Outcome.WINNER),  # the generator's fault: that start is left out
        ({"error_ratio": 0.01}, Metric.P99, Outcome.TOO_MANY_ERRORS),
        ({"capacity": None}, Metric.CAPACITY, Outcome.NO_RATE_MET_SLO),
    ],
)
def test_what_keeps_a_winner_from_being_named_is_said_with_the_target_that_does(values, metric, outcome):
    verdict = of(decide(("fine", FINE), ("fast", {**FAST, **values})), metric)
    assert (verdict.outcome, verdict.winner) == (outcome, "fast" if outcome is Outcome.WINNER else None)
    if outcome in (Outcome.TOO_MANY_ERRORS, Outcome.NO_RATE_MET_SLO):
        assert verdict.because_of == ("fast",)
    assert verdict.error_ratios == ({"fast": 0.01} if outcome is Outcome.TOO_MANY_ERRORS else {})


def test_a_server_that_broke_a_rule_only_beyond_its_capacity_may_win():
    found = evidence({"fine": FINE, "fast": FAST})
    beyond = measurement(
        "fast", scenario="capacity", offered_rate=300.0, valid=False, why_not_valid=(Fault((1,), WRONG),)
    )
    measured = {**found.measurements, ("fast", "grpc", "capacity", 300.0): beyond}
    asked = verdicts.questions(["fine", "fast"], {"grpc": []}, {}, found.limits.keys())
    (verdict,) = verdicts.decide(asked, Evidence(**{**vars(found), "measurements": measured}), SLO)
    assert verdict.winner == "fast"


def test_without_parity_nobody_wins_and_what_would_have_been_shown_stays():
    proven, not_proven = (
        of(decide(("fine", FINE), ("fast", FAST), proven=known), Metric.P99) for known in (True, False)
    )
    assert (proven.outcome, proven.winner) == (Outcome.WINNER, "fast")
    assert (not_proven.outcome, not_proven.winner) == (Outcome.PARITY_NOT_PROVEN, None)
    assert (not_proven.ratio, not_proven.ci95) == (proven.ratio, proven.ci95)


def test_a_rate_that_only_one_target_was_measured_at_is_no_common_one_and_costs_the_others_no_error():
    found = evidence({"fine": FINE, "fast": FAST})
    rates, main = {"grpc": [RATE, 300.0]}, {"grpc": 300.0}
    asked = verdicts.questions(["fine", "fast"], rates, main, found.limits.keys())
    extra = {("fine", "grpc", "ladder", 300.0): measurement("fine", offered_rate=300.0)}
    by_rate = {
        one.offered_rate: one
        for one in verdicts.decide(
            asked, Evidence(**{**vars(found), "measurements": {**found.measurements, **extra}}), SLO
        )
    }
    assert (by_rate[300.0].outcome, by_rate[300.0].has_ratio) == (Outcome.NO_COMMON_RATE, False)
    assert (by_rate[RATE].family, by_rate[RATE].winner) == (Family.REST, "fast")


def test_each_two_of_three_targets_are_compared_and_share_the_error():
    noisy = {**FINE, "spread": 0.3}
    targets = (("slow", noisy), ("same", {**noisy, "seed": 3}), ("fast", {**noisy, "p99": 2.0, "seed": 2}))
    found = decide(*targets)
    assert {(item.metric, item.compared) for item in found} == {
        (metric, pair)
        for pair in (("slow", "same"), ("slow", "fast"), ("same", "fast"))
        for metric in (Metric.P99, Metric.CAPACITY)
    }
    alone = decide(*targets[1:])
    for one in alone:
        among = next(item for item in found if (item.metric, item.compared) == (one.metric, one.compared))
        assert (one.ratio, one.ci95, one.p_value) == (among.ratio, among.ci95, among.p_value)
        assert (one.p_adjusted or 0) <= (among.p_adjusted or 0)


def test_a_difference_that_only_many_comparisons_explain_is_not_shown():
    one, near = {**FINE, "capacity": None}, {**FINE, "capacity": None, "p99": 28.0, "seed": 2}
    two = of(decide(("one", one), ("near", near)), Metric.P99)
    assert two.winner == "one"
    crowd = [(f"other{number}", {**one, "seed": number}) for number in range(3, 9)]
    many = next(
        item
        for item in decide(("one", one), ("near", near), *crowd)
        if item.compared == ("one", "near") and item.metric is Metric.P99
    )
    assert (many.p_value, many.winner, many.outcome) == (two.p_value, None, Outcome.NOT_AFTER_CORRECTION)
    assert many.shows_no_difference


def with_starts(found: Evidence, metric: Metric, figures: dict[str, list[float]], looks: tuple[int, ...]) -> Verdict:
    """The verdict on a metric of two targets whose starts gave these figures."""
    rate = RATE if metric is Metric.P99 else 0.0
    given = {
        Subject(metric, name, "grpc", rate): {block: Figure(math.log(one), 1e-4) for block, one in enumerate(own, 1)}
        for name, own in figures.items()
    }
    asked = [Question(Family.LATENCY, metric, "grpc", ("a", "b"), rate)]
    (verdict,) = verdicts.decide(asked, Evidence(**{**vars(found), "figures": given, "looks": looks}), SLO)
    return verdict


def test_a_question_that_an_early_look_decided_has_a_winner_after_few_starts():
    found = evidence({"a": FINE, "b": FINE})
    early = with_starts(found, Metric.P99, {"a": [10.0, 10.3, 10.1], "b": [20.0, 20.5, 20.2]}, (3, 4, 6, 8))
    assert (early.winner, early.starts) == ("a", 3)
    whole = with_starts(found, Metric.P99, {"a": [10.0, 10.3, 10.1], "b": [20.0, 20.5, 20.2]}, (3,))
    assert (early.p_value, early.ci95) == (whole.p_value, whole.ci95)
    assert (early.p_adjusted or 0) > (whole.p_adjusted or 0)


def test_what_an_early_look_saw_and_later_starts_take_back_is_not_shown():
    found = evidence({"a": FINE, "b": FINE})
    figures = {"a": [10.0, 10.2, 10.1, 30.0, 29.0, 31.0], "b": [12.0, 12.1, 12.2, 11.0, 10.0, 12.0]}
    early = with_starts(found, Metric.P99, {name: own[:3] for name, own in figures.items()}, (3, 4, 6))
    assert early.winner == "a"
    late = with_starts(found, Metric.P99, figures, (3, 4, 6))
    assert (late.winner, late.outcome) == (None, Outcome.NO_DIFFERENCE_SHOWN)


def test_starts_after_the_last_planned_look_that_there_was_time_for_are_the_last_look():
    found = evidence({"a": FINE, "b": FINE})
    figures = {"a": [10.0, 11.5, 9.0, 10.0, 10.2], "b": [12.0, 13.5, 10.5, 12.0, 12.4]}
    after_four = with_starts(found, Metric.P99, {name: own[:4] for name, own in figures.items()}, (3, 4, 6))
    after_five = with_starts(found, Metric.P99, figures, (3, 4, 6))
    assert after_five.starts == 5
    assert (after_five.p_adjusted or 1) < (after_four.p_adjusted or 0)
    # As if the last look had been planned there.
    assert after_five.p_adjusted == with_starts(found, Metric.P99, figures, (3, 4, 5)).p_adjusted


def test_what_would_decide_an_open_question_does_in_four_of_five_runs():
    rng = np.random.default_rng(4)
    found = evidence({"a": FINE, "b": FINE})

    def run(starts: int, effect: float) -> Verdict:
        figures = {
            name: list(value * np.exp(rng.normal(0, 0.1, starts))) for name, value in (("a", 10.0), ("b", 10 * effect))
        }
        return with_starts(found, Metric.P99, figures, (starts,))

    opened = [one for one in (run(6, 1.08) for _ in range(200)) if one.needed]
    assert len(opened) > 100
    needed = sorted(one.needed.starts for one in opened if one.needed and one.needed.effect < 1.09)
    more = needed[len(needed) // 2]
    decided = [run(6 + more, 1.08).winner == "a" for _ in range(400)]
    assert 0.65 <= np.mean(decided) <= 0.99
    for one in opened:
        assert one.needed is not None
        assert one.needed.seconds == one.needed.starts * 2 * 30.0
        assert one.needed.effect == pytest.approx(max(1.05, math.exp(abs(math.log(one.ratio or 1)))))
        assert one.detectable is not None
        assert one.detectable > 1.05


def test_a_run_that_would_have_found_a_difference_of_a_twentieth_needs_no_more_starts():
    found = evidence({"a": FINE, "b": FINE})
    figures = {name: [10.0, 10.01, 9.99] * 8 for name in "ab"}
    verdict = with_starts(found, Metric.P99, figures, (24,))
    assert (verdict.outcome, verdict.needed) == (Outcome.NO_DIFFERENCE_SHOWN, None)
    assert 1 < (verdict.detectable or 0) < 1.05


def test_a_difference_that_no_run_like_this_would_have_found_is_left_open():
    found = evidence({"a": FINE, "b": FINE})
    verdict = with_starts(found, Metric.P99, {"a": [10.0, 40.0], "b": [10.0, 70.0]}, (3, 4, 6, 8))
    assert (verdict.outcome, verdict.detectable) == (Outcome.NO_DIFFERENCE_SHOWN, None)


@pytest.mark.parametrize("apart", [0.05, 0.2])
def test_equal_servers_have_any_winner_in_at_most_a_twentieth_of_runs(apart):
    """Two protocols, two questions each and two more rates, looked at after 3, 4, 6 and 8 starts."""
    rng = np.random.default_rng(11)
    rates = {"grpc": [50.0, 100.0, 200.0], "rest": [50.0, 100.0, 200.0]}
    main = dict.fromkeys(rates, 100.0)
    limits = {
        (name, protocol): msgspec.structs.replace(limit(name, FINE, spread_out(100.0, FINE, 0)), protocol=protocol)
        for name in "ab"
        for protocol in rates
    }
    measured = {
        (name, protocol, "ladder", rate): measurement(name, protocol, rate)
        for name in "ab"
        for protocol, own in rates.items()
        for rate in own
    }
    asked = verdicts.questions("ab", rates, main, limits.keys())
    assert len(asked) == 8
    won = []
    for _ in range(1000):
        figures: Figures = {}
        for name in "ab":
            speed = rng.normal(0, apart, 8)  # of each start, which all its figures have in common
            for one in asked:
                noise = speed + rng.normal(0, 0.05, 8)
                figures[Subject(one.metric, name, one.protocol, one.rate)] = {
                    block: Figure(float(value), 0.05**2) for block, value in enumerate(noise, 1)
                }
        found = Evidence(figures, measured, limits, True, decision.looks(8), None)
        won.append(any(one.winner for one in verdicts.decide(asked, found, SLO)))
    assert np.mean(won) <= 0.05


def test_the_main_rate_is_the_user_s_own_else_the_middle_one_and_overload_is_no_question():
    ladder = LadderInfo(rates={"grpc": (60.0, 20.0, 40.0)}, overload_rates={"grpc": 90.0, "rest": 80.0})
    assert verdicts.main_rates(ladder, ["grpc", "rest"]) == {"grpc": 40.0}
    assert verdicts.rates(ladder, ["grpc", "rest"]) == {"grpc": [20.0, 40.0, 60.0], "rest": []}
    own = msgspec.structs.replace(ladder, rate=30.0, rates={"grpc": (20.0, 40.0, 90.0)})
    assert verdicts.main_rates(own, ["grpc", "rest"]) == {"grpc": 30.0, "rest": 30.0}
    assert verdicts.rates(own, ["grpc", "rest"]) == {"grpc": [20.0, 30.0, 40.0], "rest": [30.0]}


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
    fast = {**FINE, "p99": 5.0}
    mid = {**FINE, "p99": 15.0, "spread": 2.0, "seed": 2}
    slow = {**FINE, "p99": 50.0, "seed": 3}
    assert places(Metric.P99, ("slow", slow), ("mid", mid), ("fast", fast)) == [
        ("mid", 1, ()),
        ("fast", 1, ()),
        ("slow", 2, ("fast",)),
    ]


def test_a_target_that_was_compared_with_no_other_has_no_place():
    broken = {**FINE, "faults": [WRONG]}
    assert places(Metric.P99, ("a", broken), ("b", FINE), ("c", {**FINE, "seed": 2})) == [
        ("b", 1, ()),
        ("c", 1, ()),
        ("a", None, ()),
    ]


def test_there_is_one_ranking_by_latency_for_a_protocol_by_its_main_rate():
    found = evidence({"fine": FINE, "fast": FAST})
    asked = verdicts.questions(["fine", "fast"], {"grpc": [50.0, RATE]}, {"grpc": RATE}, found.limits.keys())
    ranked = rankings.of(["fine", "fast"], verdicts.decide(asked, found, SLO))
    assert [(one.metric, one.standings[0].target) for one in ranked] == [
        (Metric.CAPACITY, "fast"),
        (Metric.P99, "fast"),
    ]
