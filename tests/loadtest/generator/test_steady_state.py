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


def test_a_flat_series_is_steady_after_five_windows():
    rates = (1000 * (1 + np.random.default_rng(1).normal(0, 0.01, 40))).tolist()
    assert first_agreement(rates) == (5, 4)


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
    assert seen == 8


def test_no_answers_are_not_steady():
    assert agreeing([0.0] * 10, 0.1) == 0
    assert agreeing([1000.0] * 3, 0.1) == 0


# As recorded in warm-up.json: requests/s in successive windows at 32 in flight, on a machine that others used, too.
RECORDED = {
    # TorchServe over gRPC from a cold JVM: its first seconds are interpreted bytecode.
    "JVM warm-up": [322, 558, 732, 584, 700, 866, 620, 615, 821, 773, 796, 804],
    # The same after a pause of the whole machine, which shows as two windows without an answer.
    "JVM, held up": [0, 0, 134, 599, 673, 724, 668, 650, 680, 703, 632, 697],
    # The embedded TensorFlow server, which has nothing to warm up.
    "flat": [8483, 9487, 9420, 9280, 9219, 9534, 9394, 9620, 9181, 9327, 9161, 9205],
    # A warm TorchServe, in windows of 0.25 s; `jcmd PID GC.run` collects its whole heap every 1.5 s.
    "collections": [
        *(4794, 1729, 4456, 4281, 4980, 3905, 4271, 3258, 1680, 4213, 4456, 4981, 4622, 4110, 4620, 2966, 4851, 5352),
        *(4372, 4433, 4384, 4657, 2311, 4304, 4871, 5180, 5546, 5034, 4824, 3463, 3667, 4620, 4358, 4809, 5053, 4705),
    ],
    # The embedded server, whose core gets one busy neighbour more every 0.8 s, until one more takes little.
    "neighbours": [
        *(3460, 2183, 2226, 2248, 1832, 1731, 1520, 1366, 1554, 1356, 1087, 1075, 997, 595, 874, 624, 634, 514, 507),
    ],
}


@pytest.mark.parametrize(
    ("series", "plateau", "earliest"), [("flat", 9300, 5), ("JVM warm-up", 750, 5), ("JVM, held up", 675, 7)]
)
def test_recorded_series_are_steady_on_their_plateau_and_not_on_the_way_there(series, plateau, earliest):
    rates = RECORDED[series]
    seen, agreed = first_agreement(rates, tolerance=0.1) or (0, 0)
    assert seen >= earliest
    assert np.mean(rates[seen - agreed : seen]) == pytest.approx(plateau, rel=0.15)


@pytest.mark.parametrize("first", range(12))
def test_collections_are_steady_and_the_mean_counts_them(first):
    rates = RECORDED["collections"][first:]
    seen, agreed = first_agreement(rates, tolerance=0.1) or (0, 0)
    assert 5 <= seen <= 12
    assert np.mean(rates[seen - agreed : seen]) == pytest.approx(np.mean(rates), rel=0.15)


def test_a_recorded_drift_is_never_steady():
    assert first_agreement(RECORDED["neighbours"], tolerance=0.1) is None
