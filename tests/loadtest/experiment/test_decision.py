"""How questions are decided: the comparison of starts, the looks, and the error that all questions make together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from loadtest.experiment import decision
from loadtest.experiment.decision import (
    ERROR,
    LAST_SHARE,
    LOOKS,
    Comparison,
    Figure,
    compare,
    decide,
    looks,
    open_questions,
    split,
    spread,
)
from loadtest.experiment.questions import Family, Metric, Question, ask

PAIR = ("a", "b")
CAPACITY = tuple(Question(Family.CAPACITY, Metric.CAPACITY, protocol, PAIR) for protocol in ("grpc", "rest"))
LATENCY = tuple(Question(Family.LATENCY, Metric.P99, protocol, PAIR, 100.0) for protocol in ("grpc", "rest"))
REST = (Question(Family.REST, Metric.P99, "grpc", PAIR, 50.0),)
ALL = CAPACITY + LATENCY + REST

logs = st.lists(st.floats(-3, 9), min_size=2, max_size=12)
p_value = st.one_of(st.none(), st.floats(0, 1), st.floats(0, 1e-3))


def figures(values, variance: float = 0.0) -> list[Figure]:
    return [Figure(value, variance) for value in values]


# --- two targets compared ---


@given(logs, logs)
def test_it_is_welchs_test_where_starts_are_surer_than_they_lie_apart(first, second):
    assume(np.std(first) > 1e-3 and np.std(second) > 1e-3)
    found, known = compare(figures(first), figures(second)), stats.ttest_ind(first, second, equal_var=False)
    assert found is not None
    assert found.difference == pytest.approx(np.mean(first) - np.mean(second), abs=1e-9)
    assert found.p_value == pytest.approx(known.pvalue, rel=1e-6, abs=1e-12)
    assert found.degrees == pytest.approx(known.df, rel=1e-9)
    low, high = known.confidence_interval(0.95)
    assert [math.log(one) for one in found.interval()] == pytest.approx([low, high], rel=1e-6, abs=1e-9)


@given(logs, logs, st.floats(0, 0.1))
def test_targets_that_change_places_turn_ratio_and_interval_round(first, second, variance):
    one = compare(figures(first, variance), figures(second, variance))
    other = compare(figures(second, variance), figures(first, variance))
    assert (one is None) == (other is None)
    if one and other:
        assert one.ratio == pytest.approx(1 / other.ratio)
        assert one.interval() == pytest.approx(tuple(1 / end for end in reversed(other.interval())))
        assert one.p_value == pytest.approx(other.p_value)
        assert one.detectable(0.05) == pytest.approx(other.detectable(0.05))


@given(logs, logs, st.floats(0.01, 100))
def test_units_do_not_matter(first, second, factor):
    moved = [figures(value + math.log(factor) for value in side) for side in (first, second)]
    one, other = compare(figures(first), figures(second)), compare(*moved)
    assume(one and one.error > 1e-6)
    assert one
    assert other
    assert other.ratio == pytest.approx(one.ratio)
    assert other.p_value == pytest.approx(one.p_value, rel=1e-3, abs=1e-9)


def test_starts_that_agree_by_chance_more_closely_than_they_are_known_do_not_decide():
    agreeing = [7.0, 7.0001, 6.9999]
    sure = compare(figures(agreeing), figures([one + 0.05 for one in agreeing]))
    unsure = compare(figures(agreeing, 0.1**2), figures([one + 0.05 for one in agreeing], 0.1**2))
    assert sure
    assert unsure
    assert sure.p_value < 1e-6
    assert unsure.p_value > 0.05
    assert spread(figures(agreeing, 0.1**2)) == pytest.approx(math.sqrt(decision.FLOOR) * 0.1)
    assert spread(figures([1.0, 1.2])) == pytest.approx(np.std([1.0, 1.2], ddof=1))


def test_one_start_of_a_target_or_starts_that_do_not_differ_compare_nothing():
    assert compare(figures([1.0]), figures([1.0, 2.0])) is None
    assert compare(figures([1.0, 1.0]), figures([2.0, 2.0])) is None
    assert spread(figures([1.0])) is None


@settings(deadline=None, max_examples=20)
@given(st.floats(0.03, 0.3), st.integers(3, 8), st.floats(1.05, 2.0), st.sampled_from([0.05, 0.01, 0.002]))
def test_the_starts_that_would_find_an_effect_have_the_power_of_a_direct_calculation(sd, starts, effect, error):
    made = Comparison(0.0, sd * math.sqrt(2 / starts), 2.0 * (starts - 1), starts)
    number = made.starts_for(effect, error)

    def power(of_each: int) -> float:
        degrees, distance = 2 * (of_each - 1), math.log(effect) / (sd * math.sqrt(2 / of_each))
        return float(stats.nct.sf(stats.t.ppf(1 - error / 2, degrees), degrees, distance))

    assert power(number) >= decision.POWER - 1e-3
    assert number == decision.LOOKS[0] or power(number - 1) < decision.POWER + 1e-3
    assert made.starts_for(1 / effect, error) == number


@given(st.floats(0.03, 0.3), st.integers(3, 8))
def test_what_a_run_could_find_it_needs_no_more_starts_for(sd, starts):
    made = Comparison(0.0, sd * math.sqrt(2 / starts), 2.0 * (starts - 1), starts)
    assert made.starts_for(1.001 * made.detectable(0.05), 0.05) <= starts
    assert made.starts_for(0.98 * made.detectable(0.05), 0.05) >= starts
    assert made.starts_for(1 + 1e-9, 0.05) == 1_000_000
    assert math.isfinite(Comparison(0.0, 1.0, 1.0, 2).detectable(1e-9))


# --- looks ---


@given(st.integers(2, 200))
def test_looks_ascend_to_the_most_starts_and_share_the_whole_error(most):
    planned = looks(most)
    assert list(planned) == sorted(set(planned))
    assert planned[-1] == most
    assert set(planned[:-1]) <= set(LOOKS)
    assert sum(split(len(planned))) == pytest.approx(1)
    assert split(len(planned))[-1] >= LAST_SHARE


def test_the_looks_of_small_and_large_budgets():
    assert looks(3) == (3,)
    assert looks(6) == (3, 4, 6)
    assert looks(7) == (3, 4, 7)
    assert looks(45) == (3, 4, 6, 8, 12, 16, 24, 32, 45)


# --- all questions of a run together ---


def test_a_capacity_is_decided_by_its_share_and_what_is_decided_passes_it_on():
    share = decision.SHARES[0] * ERROR / 2 * split(1)[0]
    barely = {CAPACITY[0]: [0.99 * share], CAPACITY[1]: [1.9 * share], LATENCY[0]: [0.9], LATENCY[1]: [0.9]}
    found = decide(barely, 1)
    assert [found[one].decided for one in barely] == [True, True, False, False]  # Holm: the second has both shares
    assert found[CAPACITY[0]].error == pytest.approx(share)
    assert found[CAPACITY[1]].error == pytest.approx(2 * share)
    assert found[LATENCY[0]].error == pytest.approx(ERROR / 2)  # all of the error, for two
    assert found[CAPACITY[0]].p_adjusted == pytest.approx(0.99 * ERROR)
    assert not any(one.decided for one in decide({**barely, CAPACITY[0]: [1.01 * share]}, 1).values())


def test_latency_needs_no_capacity_that_differs_but_the_rest_needs_all_others():
    same = {one: [0.9] for one in CAPACITY}
    found = decide({**same, **{one: [1e-4] for one in LATENCY}, REST[0]: [0.0]}, 1)
    assert [found[one].decided for one in ALL] == [False, False, True, True, False]
    assert found[CAPACITY[0]].error == pytest.approx(ERROR / 2)  # it has what the latencies left
    assert found[REST[0]].p_adjusted == 1.0
    found = decide({one: [1e-4] for one in ALL}, 1)
    assert all(one.decided for one in found.values())
    assert not open_questions(found)


def test_families_that_are_not_asked_leave_their_error_to_the_others():
    assert decide({LATENCY[0]: [0.99 * ERROR]}, 1)[LATENCY[0]].decided
    assert decide({REST[0]: [0.99 * ERROR]}, 1)[REST[0]].decided
    assert decide({CAPACITY[0]: [0.99 * ERROR]}, 1)[CAPACITY[0]].decided


def test_a_look_has_its_share_and_one_without_figures_says_nothing():
    few, last = split(3)[0], split(3)[-1]
    only = CAPACITY[0]
    assert decide({only: [0.99 * few * ERROR]}, 3)[only].decided
    assert not decide({only: [1.01 * few * ERROR]}, 3)[only].decided
    assert decide({only: [None, None, 0.99 * last * ERROR]}, 3)[only].decided
    assert decide({only: [None]}, 3)[only] == decision.Decision(False, 1.0, ERROR)
    assert decide({}, 3) == {}


@given(
    st.fixed_dictionaries({one: st.lists(p_value, max_size=3) for one in ALL}), st.sampled_from(ALL), st.floats(0, 1)
)
def test_a_smaller_p_value_never_takes_a_decision_back(values, which, smaller):
    before = decide(values, 4)
    after = decide({**values, which: [*values[which], smaller * min([1.0, *filter(None, values[which])])]}, 4)
    for question in ALL:
        assert after[question].decided >= before[question].decided
        assert after[question].p_adjusted <= before[question].p_adjusted + 1e-12


@given(st.fixed_dictionaries({one: st.lists(p_value, max_size=3) for one in ALL}), st.permutations(ALL))
def test_the_order_of_the_questions_does_not_matter(values, order):
    found, other = decide(values, 3), decide({one: values[one] for one in order}, 3)
    for question in ALL:
        assert found[question].decided == other[question].decided == (found[question].p_adjusted <= ERROR)
        assert found[question].p_adjusted == pytest.approx(other[question].p_adjusted)
    for question in open_questions(found):
        assert found[question].error == pytest.approx(other[question].error)


@given(st.fixed_dictionaries({one: st.lists(p_value, max_size=3) for one in ALL}))
def test_open_questions_never_have_more_than_the_whole_error_together(values):
    found = decide(values, 3)
    assert sum(found[one].error for one in open_questions(found)) <= ERROR * (1 + 1e-9)
    for question in ALL:
        least = min((p for p in values[question] if p is not None), default=1.0)
        assert found[question].p_adjusted >= min(1.0, least) - 1e-12


@pytest.mark.parametrize("differing", [(), CAPACITY[:1], CAPACITY, CAPACITY + LATENCY], ids=len)
def test_chance_names_a_winner_in_no_more_than_a_twentieth_of_runs(differing):
    """Whatever differs, and however often a run looks, as if each look were at new starts."""
    draw = np.random.default_rng(3)
    runs, wrong = 4000, 0
    for chances in draw.random((runs, len(ALL), 3)):
        values = {one: list(p) if one not in differing else [1e-9] * 3 for one, p in zip(ALL, chances, strict=True)}
        found = decide(values, 3)
        wrong += any(found[one].decided for one in ALL if one not in differing)
    assert stats.binomtest(wrong, runs, ERROR, alternative="greater").pvalue > 0.001


@pytest.mark.parametrize("error", [0.05, 0.02, 0.005])
def test_what_can_be_found_by_two_starts_hardly_changes_where_it_is_computed_otherwise(error):
    made = Comparison(0.0, 0.001, 1.0, 2)
    near = math.log(made.detectable(error))
    distance = near / made.error
    assert stats.nct.sf(stats.t.ppf(1 - error / 2, 1.0), 1.0, distance) == pytest.approx(decision.POWER, abs=0.01)


def test_questions_of_three_targets_are_about_each_two_of_them():
    rates, main = {"grpc": (10.0, 20.0, 30.0), "rest": ()}, {"grpc": 20.0}
    found = ask(("a", "b", "c"), ("grpc", "rest"), rates, main, capacity=True)
    assert len(found) == 3 * 4 + 3
    assert {one.compared for one in found} == {("a", "b"), ("a", "c"), ("b", "c")}
    assert {one.rate: one.family for one in found if one.protocol == "grpc"} == {
        0.0: Family.CAPACITY,
        10.0: Family.REST,
        20.0: Family.LATENCY,
        30.0: Family.REST,
    }
    assert not any(one.metric is Metric.CAPACITY for one in ask(PAIR, ("grpc",), rates, main, capacity=False))
