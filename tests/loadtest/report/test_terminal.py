"""What the end of a run prints."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from loadtest.analysis import summary
from loadtest.analysis.records import Summary
from loadtest.experiment.questions import Metric
from loadtest.report import terminal, wording
from tests.loadtest.runs.build import EMBEDDED, TF_SERVING, THREE, TORCHSERVE, SimulatedServer, write_run


def spoil(target: str, protocol: str, rate: float, repetition: int) -> dict:
    return {"dropped": 5} if (target, rate) == ("tensorflow", 500.0) else {}


@pytest.fixture(scope="module")
def figures(tmp_path_factory) -> Summary:
    run = tmp_path_factory.mktemp("runs") / "run"
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    return summary.build(
        write_run(run, servers, rates={"grpc": [250.0, 500.0]}, repetitions=3, duration_s=3, spoil=spoil)
    )


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


def test_a_percentile_of_few_answers_is_marked_and_the_first_error_quoted(capsys, tmp_path):
    said = {"kind": "http_400", "after_s": 0.2, "said": "batch size too big"}
    failing = {"errors": {"http_400": 3}, "first_error": said}
    run = write_run(
        tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [40.0]}, duration_s=2, spoil=lambda *_: failing
    )
    text = " ".join(shown(capsys, summary.build(run)).split())
    assert "† (" in text or "†)" in text or "† " in text
    assert "†: fewer than ten answers lie beyond this percentile" in text
    assert "PyTorch over gRPC at 40/s: 6 × http_400; the first, http_400 after 0.2 s: “batch size too big”" in text


def test_the_verdict_the_faults_and_the_report_are_said(capsys, figures):
    text = " ".join(shown(capsys, figures).split())
    assert "not valid: TensorFlow over gRPC at 500/s: repetitions 1, 2 and 3: 5 arrivals were dropped" in text
    assert "No verdict: TorchServe and the embedded stand-in for TensorFlow Serving were not both measured" in text
    assert "warning: TensorFlow (embedded-tfserving 2.21.0) is a stand-in" in text
    assert "Report: results/latest/report.html" in text


def test_the_steps_of_a_search_are_left_to_the_report_and_its_result_is_told(capsys, tmp_path):
    servers = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}
    figures = summary.build(write_run(tmp_path / "run", servers, rates={"grpc": [250.0]}, searches=4))
    steps = {item.offered_rate for item in figures.measurements if item.scenario == "capacity"}
    out = shown(capsys, figures)
    table = out[: out.index("Measured for")]
    assert len(steps) > 2
    assert not [rate for rate in steps if f"{wording.rate(rate)} " in table]
    (verdict,) = [one for one in figures.verdicts if one.metric is Metric.CAPACITY]
    assert verdict.winner == "tensorflow"
    factor = wording.times(1 / (verdict.ratio or 1.0))[0]
    told = f"TensorFlow Serving handled {factor} times as many requests per second as TorchServe within 50 ms over gRPC"
    assert told in " ".join(out.split())


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


def test_of_three_targets_the_places_stand_under_the_sentence(capsys, tmp_path):
    run = write_run(tmp_path / "run", THREE, rates={"grpc": [250.0, 500.0]}, repetitions=3, duration_s=3)
    lines = shown(capsys, summary.build(run)).splitlines()
    (places,) = [number for number, line in enumerate(lines) if line.startswith("  Latency")]
    assert " ".join(" ".join(lines[places : places + 2]).split()).startswith(
        "Latency over gRPC at 500/s 1. TensorFlow Serving; 2. PyTorch (TorchServe) and unbatched (TorchServe)"
    )
    assert lines[places - 2].startswith(
        "TensorFlow Serving had the lowest p99 latency over gRPC at 500/s, where the next"
    )
    assert "Same model on all sides" in " ".join(lines)
