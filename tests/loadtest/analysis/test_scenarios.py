"""What the summary says of capacity searches, closed loops, spikes and soaks whose answers the test wrote itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.analysis import summary
from loadtest.analysis.records import Estimate, Intervals, Measurement, Outcome, Summary, Verdict
from loadtest.experiment.questions import Metric
from tests.loadtest.analysis.figures import bounds
from tests.loadtest.runs.build import SAME, TF_SERVING, TORCHSERVE, SimulatedServer, write_run, write_trial

RATES = {"grpc": [200.0]}


SERVERS = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}


def searched(folder: Path, servers: dict[str, SimulatedServer], **options: Any) -> Summary:
    """The summary of a run whose capacities were searched for on four starts, and a ladder climbed on two."""
    return summary.build(write_run(folder / "run", servers, rates=RATES, duration_s=4, searches=4, **options))


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> Summary:
    return searched(tmp_path_factory.mktemp("runs"), SERVERS)


def capacity_verdict(figures: Summary) -> Verdict:
    return next(item for item in figures.verdicts if item.metric is Metric.CAPACITY)


def test_a_search_gives_a_figure_of_each_start_and_their_mean_with_its_interval(found):
    (capacity,) = (item for item in found.capacity if item.target == "pytorch")
    assert capacity.scenario == "capacity"
    assert capacity.max_rate == pytest.approx(834, rel=0.1)  # there p99 of a simulated TorchServe is 50 ms
    low, high = bounds(capacity.ci95)
    assert low < 834 < high
    assert capacity.open_ends == ()
    assert [start.repetition for start in capacity.starts] == [1, 2, 3, 4]
    for start in capacity.starts:
        assert start.trials[0] == f"pytorch-grpc-capacity-r{start.repetition}-1"
        assert start.ci95[0] < start.rate < start.ci95[1]
    assert 0 < (capacity.spread or 0) < 0.3


def test_the_larger_capacity_wins(found):
    verdict = capacity_verdict(found)
    assert (verdict.winner, verdict.starts, verdict.offered_rate) == ("tensorflow", 4, None)
    low, high = bounds(verdict.ci95)
    assert low < 834 / 1300 < high < 1
    assert (verdict.p_value or 1) <= (verdict.p_adjusted or 1) <= 0.05
    limits = {item.target: item for item in found.capacity}
    assert verdict.figures == tuple(Estimate(limits[name].max_rate, limits[name].ci95) for name in verdict.compared)


def test_the_single_trials_of_a_search_have_no_intervals(found):
    rows = [item for item in found.measurements if item.scenario == "capacity"]
    assert sum(item.repetitions for item in rows) >= 2 * 4 * 2
    assert all(item.latency_ms.p99 and item.ci95 == Intervals() for item in rows)
    assert all(item.ci95.p99 for item in found.measurements if item.scenario == "ladder")


def test_equal_capacities_show_no_difference(tmp_path):
    verdict = capacity_verdict(searched(tmp_path, {"pytorch": TORCHSERVE, "tensorflow": SAME}))
    assert (verdict.outcome, verdict.winner) == (Outcome.NO_DIFFERENCE_SHOWN, None)
    assert (verdict.detectable or 0) > 1


def test_a_capacity_search_does_not_widen_the_ladder_s_intervals(found, tmp_path):
    plain = write_run(tmp_path / "plain", SERVERS, rates=RATES, duration_s=4)
    ladder = tuple(item for item in found.measurements if item.scenario == "ladder")
    assert ladder == summary.build(plain).measurements


def test_a_run_that_looked_at_its_figures_pays_for_the_looks(found, tmp_path):
    """The same figures, in a run that could have had eight starts and looked after three and four of them."""
    looked = capacity_verdict(searched(tmp_path, SERVERS, most=8))
    fixed = capacity_verdict(found)
    assert (looked.ratio, looked.p_value, looked.winner) == (fixed.ratio, fixed.p_value, "tensorflow")
    assert (looked.p_adjusted or 0) > 1.2 * (fixed.p_adjusted or 0)


def test_a_search_of_before_that_names_no_centre_gives_figures_all_the_same(found, tmp_path):
    run = write_run(tmp_path / "run", SERVERS, rates=RATES, duration_s=4, searches=2)
    for path in run.glob("searches/*/search.json"):
        values = json.loads(path.read_text())
        old = {"low": 800.0, "high": 840.0, "confirmed": False, "out_of_time": True}
        path.write_text(json.dumps({key: values[key] for key in ("target", "protocol", "repetition", "steps")} | old))
    limits = {item.target: item for item in summary.build(run).capacity}
    for item in found.capacity:
        assert limits[item.target].max_rate == pytest.approx(item.max_rate, rel=0.15)


@pytest.mark.parametrize(
    ("spoil", "outcome"),
    [
        ({"wrong": 1}, Outcome.NO_VALID_RATE),
        ({"notes": [{"type": "server-died", "after_s": 1.0, "lost": 3}]}, Outcome.NO_VALID_RATE),
        (
            {"schedule_slip_ms": {"p99": 900.0}},
            Outcome.WINNER,
        ),  # the generator's fault; three starts are left
    ],
)
def test_a_search_that_broke_a_rule_below_the_capacity_names_no_winner(tmp_path, spoil, outcome):
    figures = searched(
        tmp_path,
        SERVERS,
        spoil=lambda target, _, rate, repetition: (
            spoil if (target, repetition) == ("tensorflow", 2) and rate != 200 and rate < 1000 else {}
        ),
    )
    assert capacity_verdict(figures).outcome is outcome


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
