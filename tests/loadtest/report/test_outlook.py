"""What would change the answer."""

from __future__ import annotations

import msgspec
import pytest

from loadtest.analysis import summary
from loadtest.analysis.records import Summary
from loadtest.report.outlook import would_change
from tests.loadtest.runs.build import EMBEDDED, SAME, TF_SERVING, TORCHSERVE, write_run

RATES = {"grpc": [200.0, 400.0]}


def told(figures: Summary) -> str:
    return " ".join(would_change(figures))


@pytest.fixture(scope="module")
def clear(tmp_path_factory) -> Summary:
    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    return summary.build(write_run(tmp_path_factory.mktemp("runs") / "run", servers, rates=RATES, duration_s=3))


def test_a_stand_in_is_the_first_thing_to_replace(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    figures = summary.build(write_run(tmp_path / "run", servers, rates=RATES, duration_s=2))
    assert would_change(figures)[0].startswith("The production server: TensorFlow (embedded-tfserving 2.21.0)")


def test_an_interval_across_1_asks_for_more_measuring(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": SAME}
    figures = summary.build(write_run(tmp_path / "run", servers, rates=RATES, duration_s=2, seed=4))
    assert "More repetitions, or longer ones: over gRPC the ratio of the p99 latencies is" in told(figures)


def test_a_ladder_that_ended_within_the_slo_asks_for_higher_rates(clear):
    assert "Higher rates: TensorFlow over gRPC still met the SLO at 400/s, the highest rate tried." in told(clear)
    assert "More repetitions" not in told(clear)


def test_a_rate_at_which_the_order_is_surely_the_other_way_round_is_named(clear):
    assert "Another rate" not in told(clear)
    assert "Another rate: over gRPC at 200/s PyTorch has the lower p99 latency." in told(slow(clear, (90.0, 110.0)))
    assert "Another rate" not in told(slow(clear, (1.0, 110.0)))  # the intervals meet: nothing sure


def slow(figures: Summary, p99: tuple[float, float]) -> Summary:
    """The same with another interval of TensorFlow's p99 at 200/s."""
    replace = msgspec.structs.replace
    changed = [
        replace(item, ci95=replace(item.ci95, p99=p99))
        if (item.target, item.offered_rate) == ("tensorflow", 200.0)
        else item
        for item in figures.measurements
    ]
    return replace(figures, measurements=tuple(changed))


def test_what_could_not_be_used_is_counted(tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    run = write_run(tmp_path / "run", servers, rates=RATES, duration_s=1, spoil=lambda *_: {"wrong": 1})
    assert "What could not be used: 4 of 4 measurements are not valid" in told(summary.build(run))


def test_without_a_measurement_nothing_is_said(tmp_path):
    assert would_change(summary.build(write_run(tmp_path / "run", {}, asked=["pytorch"]))) == []
