"""Arrival schedules: the right process, the right rate, the same for the same seed, the same from any number of
workers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.experiment import arrival_shape
from loadtest.experiment.arrival_shape import Shape, shape
from loadtest.generator.arrivals import PROCESSES, read_trace, schedule, share
from models.problem import Problem

rates = st.floats(0.5, 5000)
durations = st.floats(0.1, 10)
seeds = st.integers(0, 2**32 - 1)
DRAWN = sorted(set(PROCESSES) - {"trace"})
PROFILES = ("ramp", "step", "spike")
shapes = st.builds(
    Shape,
    burstiness=st.floats(0.2, 5),
    ramp_from=st.floats(0, 2),
    steps=st.integers(1, 6),
    spike_factor=st.floats(0.1, 5),
    spike_start_s=st.floats(0, 12),
    spike_s=st.floats(0, 12),
)


def smirnov(cumulated: np.ndarray) -> float:
    """The Kolmogorov-Smirnov statistic √n·D of values that should be uniform in [0, 1]: above 2.4 about once in
    50,000 samples."""
    found = np.sort(cumulated)
    ranks = np.arange(1, len(found) + 1) / len(found)
    return float(np.max(np.maximum(ranks - found, found - (ranks - 1 / len(found)))) * np.sqrt(len(found)))


@given(st.sampled_from(DRAWN), rates, durations, seeds, st.floats(0, 3), shapes)
def test_due_times_are_sorted_and_within_the_trial(process, rate, duration_s, seed, lead_in_s, shape):
    due = schedule(process, rate, duration_s, seed, lead_in_s, shape)
    assert np.all(np.diff(due) >= 0)
    assert due.size == 0 or (due[0] >= -lead_in_s and due[-1] < duration_s + 1e-9)


@given(st.sampled_from(DRAWN), rates, durations, seeds, shapes)
def test_the_same_seed_gives_the_same_schedule_and_another_seed_another(process, rate, duration_s, seed, shape):
    due = schedule(process, rate, duration_s, seed, shape=shape)
    assert np.array_equal(due, schedule(process, rate, duration_s, seed, shape=shape))
    other = schedule(process, rate, duration_s, seed + 1, shape=shape)
    assert due.size == other.size == 0 or not np.array_equal(due, other)


@given(st.sampled_from(DRAWN), st.floats(1, 2000), durations, seeds, st.integers(1, 9))
def test_the_workers_together_send_exactly_the_schedule_of_one(process, rate, duration_s, seed, workers):
    due = schedule(process, rate, duration_s, seed)
    parts = [due[share(len(due), worker, workers)] for worker in range(workers)]
    assert np.array_equal(np.sort(np.concatenate(parts)), due)
    sizes = [part.size for part in parts]
    assert max(sizes) - min(sizes) <= 1


@settings(max_examples=40)
@given(st.sampled_from(["poisson", "gamma"]), st.floats(100, 5000), seeds)
def test_random_arrivals_have_the_mean_rate(process, rate, seed):
    count = len(schedule(process, rate, 10.0, seed, shape=Shape(burstiness=0.5)))
    variance = 10 * rate * (2 if process == "gamma" else 1)  # renewal theory: the count's variance is n·cv²
    assert abs(count - 10 * rate) < 6 * np.sqrt(variance)


@settings(max_examples=40)
@given(st.floats(100, 5000), seeds)
def test_poisson_gaps_are_exponential(rate, seed):
    gaps = np.diff(schedule("poisson", rate, 10.0, seed))
    assert smirnov(1 - np.exp(-gaps * rate)) < 2.4


@settings(max_examples=20)
@given(st.floats(100, 3000), seeds)
def test_gamma_gaps_of_shape_two_are_erlang_and_of_shape_one_exponential(rate, seed):
    gaps = np.diff(schedule("gamma", rate, 10.0, seed, shape=Shape(burstiness=2.0))) * 2 * rate
    assert smirnov(1 - np.exp(-gaps) * (1 + gaps)) < 2.4  # the Erlang distribution of two phases
    gaps = np.diff(schedule("gamma", rate, 10.0, seed, shape=Shape(burstiness=1.0))) * rate
    assert smirnov(1 - np.exp(-gaps)) < 2.4


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_sets_the_variation_of_the_gaps(burstiness):
    gaps = np.diff(schedule("gamma", 1000.0, 100.0, 3, shape=Shape(burstiness=burstiness)))
    assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.03)


def test_poisson_counts_of_single_seconds_have_the_variance_of_their_mean():
    counts = np.histogram(schedule("poisson", 50.0, 2000.0, 5), bins=2000)[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, abs=0.12)


@given(st.floats(1, 5000), durations, seeds)
def test_constant_arrivals_have_equal_gaps_and_the_exact_count(rate, duration_s, seed):
    due = schedule("constant", rate, duration_s, seed)
    assert abs(len(due) - rate * duration_s) <= 1
    assert np.allclose(np.diff(due), 1 / rate)


def cumulated(process: str, times: np.ndarray, rate: float, duration_s: float, shape: Shape) -> np.ndarray:
    """The expected arrivals in [0, time], by fine numerical integration of the rate that the documentation promises."""
    grid = np.linspace(0, duration_s, 200_001)
    if process == "ramp":
        rates = rate * (shape.ramp_from + (1 - shape.ramp_from) * grid / duration_s)
    elif process == "step":
        rates = rate * np.minimum(np.floor(grid / duration_s * shape.steps) + 1, shape.steps) / shape.steps
    else:
        inside = (grid >= shape.spike_start_s) & (grid < shape.spike_start_s + shape.spike_s)
        rates = rate * np.where(inside, shape.spike_factor, 1.0)
    sums = np.concatenate([[0.0], np.cumsum((rates[1:] + rates[:-1]) / 2 * np.diff(grid))])
    return np.interp(times, grid, sums)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(PROFILES), st.floats(300, 3000), seeds)
def test_a_profile_has_the_rate_that_it_promises_at_every_time(process, rate, seed):
    shape = Shape(ramp_from=0.2, steps=4, spike_factor=3.0, spike_start_s=3.0, spike_s=2.0)
    due = schedule(process, rate, 10.0, seed, shape=shape)
    expected = cumulated(process, np.array([10.0]), rate, 10.0, shape)[0]
    assert abs(len(due) - expected) < 6 * np.sqrt(expected)
    assert smirnov(cumulated(process, due, rate, 10.0, shape) / expected) < 2.4
    # Rescaled by the cumulated rate, the gaps are those of a unit-rate Poisson process.
    assert smirnov(1 - np.exp(-np.diff(cumulated(process, due, rate, 10.0, shape)))) < 2.4


def test_a_profile_leads_in_at_the_rate_with_which_it_starts():
    due = schedule("ramp", 1000.0, 10.0, 1, lead_in_s=20.0, shape=Shape(ramp_from=0.5))
    assert np.sum(due < 0) == pytest.approx(20 * 500, rel=0.05)


def test_a_trace_is_replayed_with_its_own_rhythm_at_the_rate_asked_for_and_over_again(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("timestamp,bytes\n100.0,7\n100.1,7\n100.2,7\n\n101.7,7\n")
    own = Shape(trace=str(path))
    # 4 arrivals; the gap back to the first is the mean gap, 0.5667 s: a cycle of 2.2667 s, 1.765 arrivals/s.
    rate = 4 / (1.7 + 1.7 / 3)
    due = schedule("trace", rate, 4.0, 1, shape=own)
    cycle = 4 / rate
    assert due == pytest.approx([0, 0.1, 0.2, 1.7, cycle, cycle + 0.1, cycle + 0.2, cycle + 1.7])
    twice = schedule("trace", 2 * rate, 2.0, 9, shape=own)
    assert twice == pytest.approx(due / 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"arrivals.trace = .*: cannot be read: .*; use a CSV of timestamps"),
        ("t\n1.0\nsoon\n", r"trace.csv:3: 'soon' is no timestamp; use seconds"),
        ("t\n1.0\n", "a trace needs timestamps in its first column"),
        ("3\n3\n", "a trace needs timestamps in its first column"),
        ("1\nnan\n2\n", "a trace needs timestamps in its first column"),
    ],
)
def test_a_trace_that_cannot_be_replayed_is_refused_by_file_and_line(tmp_path, text, message):
    path = tmp_path / "trace.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Problem, match=message):
        read_trace(path)


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=50), rates)
def test_any_trace_is_replayed_at_the_mean_rate(tmp_path_factory, times, rate):
    path = tmp_path_factory.mktemp("trace") / "trace.csv"
    path.write_text("\n".join(map(repr, times)))
    try:
        read_trace(path)
    except Problem:
        return
    rounds = 4
    due = schedule("trace", rate, len(times) / rate * rounds * (1 - 1e-9), 0, shape=Shape(trace=str(path)))
    assert len(due) == len(times) * rounds


@pytest.mark.parametrize(("rate", "duration_s"), [(0, 1), (-1, 1), (10, 0), (float("nan"), 1)])
def test_impossible_values_are_refused(rate, duration_s):
    with pytest.raises(ValueError, match="positive"):
        schedule("poisson", rate, duration_s, 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"burstiness": 0}, "arrivals.burstiness = 0: use a gamma shape from 0.01 to 100"),
        ({"steps": 0}, "arrivals.steps = 0: use steps from 1 to 1000"),
        ({"bursty": 1}, "arrivals.bursty: unknown key; use one of burstiness"),
    ],
)
def test_impossible_shapes_are_refused_by_key(values, message):
    with pytest.raises(Problem, match=message):
        shape(values)


def test_every_process_that_an_experiment_can_name_is_here():
    assert tuple(PROCESSES) == arrival_shape.PROCESSES
