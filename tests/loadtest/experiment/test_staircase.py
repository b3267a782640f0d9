"""The staircase on servers whose capacity the test knows: steady ones, and ones with trials that are spoiled."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.bench.synthetic_servers import Searches
from loadtest.experiment.scenarios import Capacity
from loadtest.experiment.staircase import HIGHEST_RATE, LOWEST_RATE, Belief, Try, believe, following, meets, round_rate

TRIALS = Capacity().trials


def search(answer: Callable[[float], bool], centre: float, trials: int = TRIALS) -> tuple[Belief, list[Try]]:
    tries: list[Try] = []
    for _ in range(trials):
        rate = following(tries, centre)
        tries.append(Try(rate, answer(rate)))
    return believe(tries, centre), tries


@settings(deadline=None, max_examples=50)
@given(st.floats(50, 20_000), st.floats(-1, 1))
def test_it_finds_a_steady_capacity_to_a_tenth_within_a_factor_of_e_of_the_centre(capacity, off):
    found, _ = search(lambda rate: rate <= capacity, capacity * math.exp(off))
    assert found.rate == pytest.approx(capacity, rel=0.1)


@settings(deadline=None, max_examples=30)
@given(st.floats(2, 30), st.booleans())
def test_a_centre_that_was_wrong_by_far_costs_trials_but_not_the_capacity(factor, above):
    centre = 1000 * factor if above else 1000 / factor
    found, _ = search(lambda rate: rate <= 1000, centre, trials=TRIALS + 6)
    assert found.rate == pytest.approx(1000, rel=0.12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, TRIALS - 4), st.floats(-0.7, 0.7))
def test_one_spoiled_trial_does_not_ruin_it(spoiled, off):
    number = iter(range(TRIALS))
    found, _ = search(lambda rate: next(number) != spoiled and rate <= 1000, 1000 * math.exp(off))
    assert found.rate == pytest.approx(1000, rel=0.25)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.booleans(), max_size=8), st.floats(0.1, 20))
def test_the_same_answers_lead_to_the_same_rates_whatever_the_scale(answers, factor):
    made: list[Try] = []
    for met in [*answers, True]:
        scaled = [Try(one.rate * factor, one.met) for one in made]
        one, other = believe(made, 1000), believe(scaled, 1000 * factor)
        assert other.log_rate - math.log(factor) == pytest.approx(one.log_rate)
        assert other.sd == pytest.approx(one.sd)
        rate = following(made, 1000)
        assert following(scaled, 1000 * factor) == pytest.approx(rate * factor, rel=1e-3)  # rates have four digits
        made.append(Try(rate, met))


def test_it_begins_between_the_targets_and_goes_up_after_a_meet_and_down_after_a_miss():
    first = following([], 1000)
    assert first == pytest.approx(1000, rel=0.1)
    assert following([Try(first, True)], 1000) > first
    assert following([Try(first, False)], 1000) < first


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(300, 3000), st.booleans()), min_size=1, max_size=8), st.randoms())
def test_what_is_believed_does_not_depend_on_the_order_of_the_trials(made, random):
    tries = [Try(rate, met) for rate, met in made]
    shuffled = random.sample(tries, len(tries))
    assert believe(shuffled, 1000).log_rate == pytest.approx(believe(tries, 1000).log_rate, abs=1e-9)
    assert believe(shuffled, 1000).sd == pytest.approx(believe(tries, 1000).sd, abs=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(300, 3000), st.booleans()), max_size=6), st.floats(300, 3000))
def test_another_trial_that_meets_never_lowers_the_capacity(made, rate):
    tries = [Try(one, met) for one, met in made]
    assert believe([*tries, Try(rate, True)], 1000).log_rate >= believe(tries, 1000).log_rate - 1e-9
    assert believe([*tries, Try(rate, False)], 1000).log_rate <= believe(tries, 1000).log_rate + 1e-9


def test_trials_that_meet_less_often_the_higher_the_rate_and_never_surely():
    likely = meets(np.log(np.array([100.0, 900.0, 1000.0, 1100.0, 9000.0])), math.log(1000))
    assert list(likely) == sorted(likely, reverse=True)
    assert likely[0] == pytest.approx(0.9)
    assert likely[2] == pytest.approx(0.475)
    assert likely[-1] == pytest.approx(0.05)


def test_a_server_without_limits_and_one_that_meets_nothing_are_tried_within_what_can_be_offered():
    _, up = search(lambda rate: True, HIGHEST_RATE / 2)
    _, down = search(lambda rate: False, 2 * LOWEST_RATE)
    assert all(LOWEST_RATE <= one.rate <= HIGHEST_RATE for one in up + down)
    assert round_rate(12_345.6) == 12_350


@pytest.fixture(scope="module")
def searched() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(true capacities relative to the centre, what the default search believes, how sure it is, its trials) of 4,000
    synthetic starts, whose trials are spoiled as often as seen in real runs."""
    draw = np.random.default_rng(21)
    true = draw.normal(0, 0.35, 4000)
    believed, sd, trials = Searches(Capacity()).run(true, draw)
    return true, believed, sd, trials


def test_the_default_search_errs_by_a_tenth_and_by_no_tendency_in_six_trials(searched):
    true, believed, _, trials = searched
    errors = believed - true
    assert abs(np.mean(errors)) < 0.01
    assert np.std(errors) < 0.11
    assert np.quantile(np.abs(errors), 0.9) < 0.13
    assert np.mean(trials) < 6.5
    assert np.max(trials) == TRIALS


def test_a_search_says_about_how_far_it_is_off(searched):
    true, believed, sd, _ = searched
    squares = (believed - true) ** 2
    assert 0.4 < np.mean(squares) / np.mean(sd**2) < 1.5
    unsure = sd > Capacity().precision
    assert np.mean(squares[unsure]) > 2 * np.mean(squares[~unsure])
    assert np.mean(np.abs(believed - true) <= 2 * sd) > 0.93
