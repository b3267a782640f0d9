"""What the end of a run prints."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from loadtest.analysis import summary
from loadtest.analysis.records import Summary
from loadtest.report import terminal
from tests.loadtest.analysis.test_scenarios import searched
from tests.loadtest.runs.build import EMBEDDED, THREE, TORCHSERVE, SimulatedServer, write_run


def spoil(target: str, protocol: str, rate: float, repetition: int) -> dict:
    return {"dropped": 5} if (target, rate) == ("tensorflow", 500.0) else {}


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> Summary:
    run = tmp_path_factory.mktemp("runs") / "run"
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    return summary.build(write_run(run, servers, rates={"grpc": [250.0, 500.0]}, duration_s=3, spoil=spoil))


def shown(capsys, figures: Summary) -> str:
    terminal.show(figures, Path("results/latest/report.html"))
    return capsys.readouterr().out


def test_a_log_gets_plain_text_of_at_most_100_columns(capsys, figures):
    text = shown(capsys, figures)
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text


def test_figures_stand_with_their_interval_and_engine(capsys, figures):
    text = shown(capsys, figures)
    p99 = figures.measurements[0].latency_ms.p99
    assert f"{p99:.2f} (" in text
    assert "TorchServe 0.12.0" in text
    assert "embedded-tfserving 2.21.0" in text
    assert "TensorFlow Serving 2" not in text


def test_the_verdict_the_faults_and_the_report_are_said(capsys, figures):
    text = " ".join(shown(capsys, figures).split())
    assert "TensorFlow (embedded-tfserving 2.21.0) has the lower p99 latency over gRPC." in text
    assert "times lower (95 % interval" in text
    assert "Lower p99 at 250/s over gRPC? TensorFlow." in text
    assert "not valid: TensorFlow over gRPC at 500/s: repetitions 1 and 2: 5 arrivals were dropped" in text
    assert "warning: TensorFlow (embedded-tfserving 2.21.0) is a stand-in" in text
    assert "Report: results/latest/report.html" in text


def test_the_steps_of_a_search_are_left_to_the_report_and_its_result_is_told(capsys, tmp_path):
    text = shown(capsys, summary.build(searched(tmp_path, {"pytorch": 300.0, "tensorflow": 500.0})))
    assert "210/s" not in text  # a step of the search
    assert "Higher capacity within the SLO over gRPC? TensorFlow." in text
    assert "TensorFlow’s capacity within the SLO is 1.67 times higher" in " ".join(text.split())


def test_an_interval_over_orders_of_magnitude_is_called_wide(capsys, figures):
    replace = msgspec.structs.replace
    first, *others = figures.measurements
    wide = replace(first, ci95=replace(first.ci95, p99=(0.0002, 467_000_000.0)))
    text = shown(capsys, replace(figures, measurements=(wide, *others)))
    assert "(wide)" in text
    assert "467,000,000" not in text


def test_markup_in_a_name_is_printed_and_not_obeyed(capsys, tmp_path):
    server = SimulatedServer(engine="[bold red]x[/]", version="[link=http://x]1[/link]")
    run = write_run(tmp_path / "run", {"pytorch": server}, rates={"grpc": [50.0]}, duration_s=2)
    assert "[bold red]x[/]" in shown(capsys, summary.build(run))


def test_of_three_targets_the_places_stand_under_the_headline(capsys, tmp_path):
    run = write_run(tmp_path / "run", THREE, rates={"grpc": [250.0, 500.0]}, duration_s=3)
    lines = shown(capsys, summary.build(run)).splitlines()
    places = lines.index("  p99 latency over gRPC: 1. TensorFlow; 2. PyTorch and unbatched")
    assert lines[places - 1].startswith("TensorFlow (TensorFlow Serving 2.20.0) has the lowest p99 latency over gRPC")
    asked = [line for line in lines if line.startswith("Lower p99")]
    assert len(asked) == 3
    assert "Lower p99 at 500/s over gRPC, PyTorch or unbatched? no difference shown." in asked
    assert "Same model on all sides" in " ".join(lines)
