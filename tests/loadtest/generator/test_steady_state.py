"""Steady-state detection on series such as servers show."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.generator.steady_state import agreeing


def first_agreement(rates, tolerance=0.05):
    """(windows seen, windows agreed) when the series is first steady, or None."""
    for seen in range(1, len(rates) + 1):
        if agreed := agreeing(rates[:seen], tolerance):
            return seen, agreed
    return None


def test_a_flat_series_is_steady_after_four_windows():
    rates = (1000 * (1 + np.random.default_rng(1).normal(0, 0.01, 40))).tolist()
    assert first_agreement(rates) == (4, 4)


def test_a_java_server_warming_up_is_steady_only_near_its_plateau():
    # TorchServe as recorded: 567 requests/s in the first half second, 2,953 when warm.
    rates = [2953 - (2953 - 567) * np.exp(-t / 4) for t in range(40)]
    seen, agreed = first_agreement(rates)
    assert np.mean(rates[seen - agreed : seen]) > 0.9 * 2953


@pytest.mark.parametrize("period", [2, 3, 4])
def test_a_periodic_dip_from_garbage_collection_counts_as_steady(period):
    rates = [600.0 if window % period == 0 else 1000.0 for window in range(40)]
    seen, agreed = first_agreement(rates)
    assert seen <= 12
    true_mean = 1000 - 400 / period
    assert np.mean(rates[seen - agreed : seen]) == pytest.approx(true_mean, rel=0.1)


@pytest.mark.parametrize("drift", [0.04, -0.04])
def test_a_drifting_series_is_never_steady(drift):
    assert first_agreement([1000 * (1 + drift) ** window for window in range(40)]) is None


def test_a_jump_delays_agreement():
    seen, _ = first_agreement([500.0, 500.0, 500.0, 1000.0, 1000.0, 1000.0, 1000.0, 1000.0], tolerance=0.01)
    assert seen == 7


def test_no_answers_are_not_steady():
    assert agreeing([0.0] * 10, 0.1) == 0
    assert agreeing([1000.0] * 3, 0.1) == 0
