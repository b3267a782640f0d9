"""How many requests prove a percentile of latency: against exact sums, and against draws from a server that misses."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment.early_stopping import SPARE, fewest_requests, long_enough_s, odds, proven

COUNTS = st.integers(0, 20_000)


def exactly(over: int, requests: int) -> Fraction:
    """The cumulative binomial distribution at one in a hundred, in whole numbers."""
    return Fraction(sum(comb(requests, count) * 99 ** (requests - count) for count in range(over + 1)), 100**requests)


@given(st.integers(0, 1500), st.integers(0, 60))
def test_the_odds_are_the_binomial_distribution_s(requests, over):
    assert odds(over, requests) == pytest.approx(float(exactly(min(over, requests), requests)), rel=1e-9)


@pytest.mark.parametrize(("over", "requests"), [(0, 459), (1, 662), (2, 838), (3, 1001), (10, 2010)])
def test_the_fewest_requests_are_loadgen_s(over, requests):
    # LoadGen's own figures: 459 with none over the limit, 662 with one.
    assert fewest_requests(over) == requests
    assert exactly(over, requests) < Fraction(1, 100) <= exactly(over, requests - 1)


@given(COUNTS, COUNTS)
def test_more_requests_prove_no_less_and_more_of_them_over_no_more(over, requests):
    if proven(over, requests):
        assert proven(over, requests + 1)
        assert over == 0 or proven(over - 1, requests)
        assert over < requests / 100
    else:
        assert not proven(over + 1, requests + 1)


@given(st.integers(0, 3000))
def test_the_fewest_requests_are_the_first_that_prove_it(over):
    requests = fewest_requests(over)
    assert proven(over, requests)
    assert not proven(over, requests - 1)


@given(st.integers(100, 200_000), st.integers(0, 2**32 - 1))
def test_a_server_that_just_misses_the_percentile_passes_in_at_most_one_of_a_hundred_trials(requests, seed):
    drawn = np.random.default_rng(seed).binomial(requests, 0.0101, 20_000)
    counts, times = np.unique(drawn, return_counts=True)
    passed = sum(int(often) for over, often in zip(counts, times, strict=True) if proven(int(over), requests))
    assert passed / 20_000 <= 0.01 + 5 * (0.01 * 0.99 / 20_000) ** 0.5  # five standard deviations of the draws


@given(st.floats(0.5, 50_000), st.floats(0.5, 10), st.integers(0, 2**32 - 1))
def test_a_trial_that_is_long_enough_can_meet_with_a_few_requests_over(rate, duration_s, seed):
    seconds = long_enough_s(rate, duration_s)
    assert seconds >= duration_s
    assert seconds == duration_s or (seconds - 0.11) * rate < 1101  # no longer than it must be
    sent = np.random.default_rng(seed).poisson(rate * seconds, 2000)
    assert np.mean([proven(SPARE, int(one)) for one in sent]) > 0.99


def test_fast_servers_trials_stay_short():
    assert long_enough_s(2000.0, 2.5) == 2.5
    assert long_enough_s(100.0, 2.5) == 11.1
    with pytest.raises(ValueError, match="rate = 0"):
        long_enough_s(0.0, 2.5)


def test_impossible_counts_are_refused():
    with pytest.raises(ValueError, match="-1 over of 5"):
        odds(-1, 5)
