"""Arrival schedules: the right process, the right rate, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.generator.arrivals import PROCESSES, schedule

rates = st.floats(0.5, 5000)
durations = st.floats(0.1, 10)
seeds = st.integers(0, 2**32 - 1)


@given(st.sampled_from(sorted(PROCESSES)), rates, durations, seeds, st.floats(0, 3))
def test_due_times_are_sorted_and_within_the_trial(process, rate, duration_s, seed, lead_in_s):
    due = schedule(process, rate, duration_s, seed, lead_in_s)
    assert np.all(np.diff(due) >= 0)
    assert due.size == 0 or (due[0] >= -lead_in_s and due[-1] < duration_s)


@given(st.sampled_from(sorted(PROCESSES)), rates, durations, seeds)
def test_the_same_seed_gives_the_same_schedule_and_another_seed_another(process, rate, duration_s, seed):
    due = schedule(process, rate, duration_s, seed)
    assert np.array_equal(due, schedule(process, rate, duration_s, seed))
    other = schedule(process, rate, duration_s, seed + 1)
    assert due.size == other.size == 0 or not np.array_equal(due, other)


@settings(max_examples=40)
@given(st.floats(100, 5000), st.integers(0, 2**32 - 1))
def test_poisson_arrivals_have_the_mean_rate(rate, seed):
    count = len(schedule("poisson", rate, 10.0, seed))
    assert abs(count - 10 * rate) < 6 * np.sqrt(10 * rate)


@settings(max_examples=40)
@given(st.floats(100, 5000), st.integers(0, 2**32 - 1))
def test_poisson_gaps_are_exponential(rate, seed):
    gaps = np.sort(np.diff(schedule("poisson", rate, 10.0, seed)))
    expected = 1 - np.exp(-gaps * rate)
    ranks = np.arange(1, len(gaps) + 1) / len(gaps)
    # Kolmogorov-Smirnov: the distance exceeds 2.4/sqrt(n) about once in 50,000 samples.
    assert np.max(np.abs(ranks - expected)) < 2.4 / np.sqrt(len(gaps))


def test_poisson_counts_of_single_seconds_have_the_variance_of_their_mean():
    counts = np.histogram(schedule("poisson", 50.0, 2000.0, 5), bins=2000)[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.12)


@given(st.floats(1, 5000), durations, seeds)
def test_constant_arrivals_have_equal_gaps_and_the_exact_count(rate, duration_s, seed):
    due = schedule("constant", rate, duration_s, seed)
    assert abs(len(due) - rate * duration_s) <= 1
    assert np.allclose(np.diff(due), 1 / rate)


@pytest.mark.parametrize(("rate", "duration_s"), [(0, 1), (-1, 1), (10, 0), (float("nan"), 1)])
def test_impossible_values_are_refused(rate, duration_s):
    with pytest.raises(ValueError, match="positive"):
        schedule("poisson", rate, duration_s, 1)
