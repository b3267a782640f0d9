"""What the summary says of capacity searches, closed loops, spikes and soaks whose answers the test wrote itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.analysis import summary
from loadtest.analysis.records import Capacity, Intervals, Measurement, Metric, Outcome, Summary, Verdict
from tests.loadtest.analysis.figures import bounds
from tests.loadtest.runs.build import TF_SERVING, TORCHSERVE, write_run, write_trial

RATES = {"grpc": [200.0]}


def searched(folder: Path, limits: dict[str, float], *, confirmed: bool = True) -> Path:
    """A run whose capacity searches tried rates around each target's limit: p99 is 20 ms below it and 200 ms above."""
    run = write_run(folder / "run", {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}, rates=RATES, duration_s=4)
    rng = np.random.default_rng(3)
    for target, limit in limits.items():
        rates = [limit * factor for factor in (0.5, 0.7, 0.98, 1.02, 1.4)]
        for repetition in (1, 2):
            steps = []
            for number, rate in enumerate(rates if repetition == 1 else rates[2:4]):
                name = f"{target}-grpc-capacity-r{repetition}-{number}"
                scale = 8.0 if rate < limit else 80.0
                seconds = [scale * np.exp(rng.normal(0, 0.3, int(rate))) for _ in range(3)]
                record = {"target": target, "protocol": "grpc", "scenario": "capacity", "offered_rate": rate}
                write_trial(run / "trials" / name, {**record, "repetition": repetition}, seconds)
                steps.append({"trial": name, "rate": rate, "met": rate < limit})
            found = {"low": rates[2], "high": rates[3], "confirmed": confirmed and repetition == 2}
            values = {"target": target, "protocol": "grpc", "repetition": repetition, **found, "out_of_time": False}
            place = run / "searches" / f"{target}-grpc-capacity-r{repetition}"
            place.mkdir(parents=True)
            (place / "search.json").write_text(json.dumps({**values, "steps": steps}))
    return run


def capacities(figures: Summary) -> dict[str, Capacity]:
    return {item.target: item for item in figures.capacity}


def capacity_verdict(figures: Summary) -> Verdict:
    return next(item for item in figures.verdicts if item.metric is Metric.CAPACITY)


def test_a_search_gives_capacity_its_boundaries_and_an_interval_around_them(tmp_path):
    figures = summary.build(searched(tmp_path, {"pytorch": 300.0, "tensorflow": 500.0}))
    found = capacities(figures)["pytorch"]
    assert (found.scenario, found.confirmed) == ("capacity", True)
    assert found.max_rate == pytest.approx(294)
    assert found.bracket == (pytest.approx(294), pytest.approx(306))
    low, high = found.ci95
    # Both repetitions found the same bracket, so what is not known of the capacity is where in it: a standard deviation
    # of its width / √12. For two searches of two repetitions Student's t has two degrees of freedom.
    width = np.log(306 / 294)
    reach = np.exp(4.303 * width / np.sqrt(12) / np.sqrt(2))
    assert low == pytest.approx(294 / reach, rel=1e-3)
    assert high == pytest.approx(306 * reach, rel=1e-3)
    assert found.open_ends == ()
    verdict = capacity_verdict(figures)
    assert verdict.winner == "tensorflow"
    assert verdict.ratio == pytest.approx(0.6)
    low, high = bounds(verdict.ci95)
    assert low < 0.6 < high < 1
    assert verdict.p_value is not None
    assert verdict.p_adjusted is not None
    assert verdict.p_value <= verdict.p_adjusted <= 0.05


def test_the_single_trials_of_a_search_have_no_intervals(tmp_path):
    figures = summary.build(searched(tmp_path, {"pytorch": 300.0, "tensorflow": 500.0}))
    rows = [item for item in figures.measurements if item.scenario == "capacity"]
    assert len(rows) == 10
    assert all(item.latency_ms.p99 and item.ci95 == Intervals() for item in rows)
    assert all(item.ci95.p99 for item in figures.measurements if item.scenario == "ladder")


def test_capacities_whose_boundaries_were_not_confirmed_have_no_winner(tmp_path):
    figures = summary.build(searched(tmp_path, {"pytorch": 300.0, "tensorflow": 500.0}, confirmed=False))
    verdict = capacity_verdict(figures)
    assert (verdict.outcome, verdict.winner) == (Outcome.NOT_CONFIRMED, None)
    assert verdict.because_of == ("pytorch", "tensorflow")


def test_equal_capacities_show_no_difference(tmp_path):
    figures = summary.build(searched(tmp_path, {"pytorch": 400.0, "tensorflow": 400.0}))
    verdict = capacity_verdict(figures)
    assert (verdict.outcome, verdict.winner) == (Outcome.NO_DIFFERENCE_SHOWN, None)


def test_a_capacity_search_does_not_widen_the_ladder_s_intervals(tmp_path):
    plain = write_run(tmp_path / "plain", {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}, rates=RATES, duration_s=4)
    both = searched(tmp_path, {"pytorch": 300.0, "tensorflow": 500.0})
    ladder = tuple(item for item in summary.build(both).measurements if item.scenario == "ladder")
    assert ladder == summary.build(plain).measurements


def one(tmp_path: Path, record: dict[str, Any], seconds: list[np.ndarray]) -> Measurement:
    run = write_run(tmp_path / "run", {}, rates=RATES, asked=["pytorch"])
    for repetition in (1, 2):
        values = {"target": "pytorch", "protocol": "grpc", "repetition": repetition, **record}
        write_trial(run / "trials" / f"t{repetition}", values, seconds)
    (item,) = summary.build(run).measurements
    return item


def test_offline_counts_images_and_has_no_offered_rate(tmp_path):
    record = {"scenario": "offline", "offered_rate": 0.0, "concurrency": 64, "batch": 8, "arrival": "closed loop"}
    item = one(tmp_path, record, [np.full(250, 30.0)] * 4)
    assert item.valid
    assert item.achieved_rate == pytest.approx(250)
    assert item.images_per_s == pytest.approx(2000)
    assert item.ci95.achieved_rate


def spike(after: list[float]) -> dict[str, Any]:
    """Latencies (ms) of the seconds after a spike that ended at second 4."""
    arrivals = {"spike_start_s": 2.0, "spike_s": 2.0, "spike_factor": 3.0}
    seconds = [5.0, 5.0, 80.0, 160.0, *after]
    return {
        "record": {"scenario": "spike", "offered_rate": 50.0, "arrival": "spike", "arrivals": arrivals},
        "seconds": [np.full(50, value) for value in seconds],
    }


@pytest.mark.parametrize(
    ("after", "recovery"),
    [([120, 70, 6, 5, 5], 2), ([6, 5, 5, 5, 5], 0), ([6, 70, 5, 5, 5], 2), ([120, 120, 120, 120, 120], None)],
)
def test_recovery_is_from_the_spike_s_end_to_the_last_second_that_misses_the_slo(tmp_path, after, recovery):
    assert one(tmp_path, **spike(after)).recovery_s == (recovery, recovery)


def test_a_soak_shows_how_far_latency_drifted(tmp_path):
    record = {"scenario": "soak", "offered_rate": 50.0}
    item = one(tmp_path, record, [np.full(50, 4.0 + second / 10) for second in range(40)])
    assert item.drift_p50 == pytest.approx(7.4 / 4.4, rel=0.1)
