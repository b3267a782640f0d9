"""What the generator really sends is tested against the process that it was asked for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.experiment.records import ArrivalsCheck
from loadtest.experiment.slip import SLIP_FLOOR_MS
from loadtest.generator.arrivals import schedule
from loadtest.generator.arrivals_check import CRITICAL, anderson_darling, check
from tests.loadtest.generator.small_servers import Load, small_server

seeds = st.integers(0, 2**32 - 1)


def in_bursts(due: np.ndarray, every_s: float) -> np.ndarray:
    """The schedule of a generator that wakes so often, and then sends all that has become due, 30 µs each."""
    ticks = np.ceil(due / every_s)
    return ticks * every_s + 30e-6 * (np.arange(len(due)) - np.searchsorted(ticks, ticks))


@given(st.integers(5, 2000), seeds)
def test_the_statistic_is_anderson_and_darling_s(count, seed):
    gaps = np.random.default_rng(seed).exponential(1.3, count)
    below = np.sort(1 - np.exp(-gaps))
    by_definition = (
        -count - np.sum((2 * np.arange(1, count + 1) - 1) * (np.log(below) + np.log1p(-below[::-1]))) / count
    )
    assert anderson_darling(gaps) == pytest.approx(by_definition, rel=1e-6, abs=1e-6)


def test_exponential_gaps_exceed_the_critical_value_once_in_a_hundred_samples():
    draw = np.random.default_rng(1)
    for count in (20, 1000):
        beyond = np.mean([anderson_darling(draw.exponential(1.0, count)) > CRITICAL for _ in range(5000)])
        assert beyond == pytest.approx(0.01, abs=5 * (0.01 * 0.99 / 5000) ** 0.5)


@given(st.sampled_from(["poisson", "constant"]), st.floats(50, 20_000), seeds)
def test_a_schedule_that_is_kept_is_what_was_asked_for(process, rate, seed):
    due = schedule(process, rate, 2.0, seed)
    jitter = np.random.default_rng(seed).exponential(min(50e-6, 0.2 / rate), len(due))
    found = check(process, rate, due + jitter)
    assert found is not None
    assert found.ok
    assert found.gaps == len(due) - 1


@pytest.mark.parametrize(
    ("process", "rate"), [("poisson", 250), ("poisson", 2000), ("constant", 500), ("constant", 2000)]
)
def test_other_gaps_than_asked_for_are_found(process, rate):
    due = schedule(process, rate, 2.5, 7)
    other = schedule("constant" if process == "poisson" else "poisson", rate, 2.5, 7)
    for sent in (in_bursts(due, 0.005), other, due[::2]):
        found = check(process, rate, sent)
        assert found is not None
        assert not found.ok
        assert found.distance > found.allowed


def test_what_may_be_chance_and_what_has_no_distribution_is_let_be():
    short = check("poisson", 100, np.array([0.0, 0.01, 0.012, 0.03, 0.06, 0.061, 0.0615]))
    assert short is not None
    assert short.ok
    assert short.distance > short.allowed  # of six gaps
    assert check("gamma", 100, np.arange(50) / 100) is None
    assert check("poisson", 100, np.arange(5) / 100) is None


@pytest.mark.slow
@pytest.mark.parametrize("process", ["poisson", "constant"])
def test_a_generator_that_sends_in_bursts_is_found_out_though_each_request_is_punctual(process):
    """A real open loop against a real server: once as asked for, once on a schedule of its own making."""
    due = schedule(process, 600, 1.5, 5)

    def found(planned: np.ndarray) -> tuple[ArrivalsCheck, np.ndarray]:
        load = Load(where, "rest", planned)
        result = check(process, 600, np.asarray(load.sent, np.float64))
        assert result is not None
        return result, (load.sent - load.due) * 1000

    with small_server("rest", "ok") as (where, _):
        made, slip_ms = found(in_bursts(due, 0.005))
        asked, own_slip_ms = found(due)
    assert not made.ok
    assert np.median(slip_ms) < 3
    assert asked.distance < made.distance / 2
    assert asked.ok or np.percentile(own_slip_ms, 99) > SLIP_FLOOR_MS  # where others use the machine, too
