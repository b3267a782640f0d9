"""Three targets or more: who leads, who shares a place, and how page, Markdown and charts show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from loadtest import report
from loadtest.analysis import summary
from loadtest.analysis.records import Outcome, Summary, Verdict
from loadtest.experiment.questions import Metric
from loadtest.report import first_screen, names, ranking, story
from loadtest.report.charts.latency import latency_by_rate
from loadtest.report.charts.ratios import ratios
from tests.loadtest.report import summaries
from tests.loadtest.report.summaries import TF_SERVING, TORCHSERVE, UNBATCHED, capacity, latency
from tests.loadtest.runs.build import THREE, write_run

RATES = {"grpc": [250.0, 500.0], "rest": [200.0, 400.0]}
TARGETS = (TORCHSERVE, UNBATCHED, TF_SERVING)
A, B, C = (target.name for target in TARGETS)
PAIRS = ((A, B), (A, C), (B, C))
CALLED = {A: "A", B: "B", C: "C"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", THREE, rates=RATES, repetitions=3, duration_s=3)
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def figures(run) -> Summary:
    return summary.read(run)


def won(winners: Mapping[tuple[str, str], str | None]) -> Summary:
    """A summary of three targets with these winners of their pairs over gRPC, by capacity."""
    verdicts = [capacity(2000, 1000, winner, compared=pair) for pair, winner in winners.items()]
    return summaries.summary(*verdicts, targets=TARGETS)


@pytest.mark.parametrize(
    ("winners", "line", "winner"),
    [
        ((A, A, B), "1. A; 2. B; 3. C", A),
        ((A, A, None), "1. A; 2. B and C", A),
        ((None, A, B), "1. A and B; 3. C", None),
        ((A, None, B), "1. A; 2. B and C", None),  # C is behind B alone
        ((None, None, None), "1. A, B and C", None),
    ],
)
def test_targets_that_were_not_told_apart_share_a_place(winners, line, winner):
    found = won(dict(zip(PAIRS, winners, strict=True)))
    places = ranking.places(found, Metric.CAPACITY)["grpc"]
    assert ranking.line(places, CALLED) == line
    assert ranking.winner(places, found.verdicts) == winner


def test_a_target_that_was_compared_with_none_has_no_place():
    def missing(pair: tuple[str, str]) -> Verdict:
        return latency(1, 2, compared=pair, outcome=Outcome.NO_COMMON_RATE)

    found = summaries.summary(
        latency(1, 2, A, compared=PAIRS[0]), missing(PAIRS[1]), missing(PAIRS[2]), targets=TARGETS
    )
    places = ranking.places(found, Metric.P99)["grpc"]
    assert ranking.line(places, CALLED) == "1. A; 2. B; not compared: C"
    assert ranking.winner(places, found.verdicts) == A


def test_of_two_targets_the_rows_have_no_places():
    two = summaries.summary(capacity(2000, 1000, "pytorch"))
    assert [line.places for row in first_screen.build(two).rows for line in row.lines] == [()]


def test_three_measured_targets_are_ranked_in_every_form_of_the_report(run):
    values = json.loads((run / "report.json").read_text())["verdict"]
    (row,) = [one for one in values["rows"] if one["topic"] == "latency"]
    assert row["lines"][0]["winner"] == "tensorflow"
    assert row["lines"][0]["places"] == [
        {"number": 1, "targets": ["tensorflow"]},
        {"number": 2, "targets": ["pytorch", "unbatched"]},
    ]
    assert "TensorFlow Serving had the lowest p99 latency over gRPC at 500/s" in values["sentence"]
    text, html = (run / "report.md").read_text(), (run / "report.html").read_text(encoding="utf-8")
    told = "over gRPC at 500/s 1. TensorFlow Serving; 2. PyTorch (TorchServe) and unbatched (TorchServe)"
    assert f"- Latency: {told}\n" in text
    assert html.index(values["sentence"]) < html.index('id="rows"') < html.index("Question by question")
    assert "PyTorch, unbatched or TensorFlow in production?" in html
    assert ranking.MEANING in html
    assert "One profile, 3 servers" in html
    assert "max_batch_size = 1</bdi>" in html


def test_every_pair_is_asked_about_by_name(figures):
    told = [one.question for one in story.tell(figures, names.of(figures.targets))]
    asked = [question for question in told if question.startswith("Lower p99")]
    assert len(asked) == len(set(asked)) == 2 * 2 * 3  # protocols, rates, pairs
    assert any(topic.endswith("over REST, unbatched (TorchServe) or TensorFlow Serving?") for topic in asked)


def test_charts_have_a_row_a_pair_and_a_line_a_target(figures):
    chart = ratios(figures)
    assert chart is not None
    compared = [verdict for verdict in figures.verdicts if verdict.ratio]
    assert len(chart.data[0]["y"]) == len(set(chart.data[0]["y"])) == len(compared)
    colors = list(zip(reversed(compared), chart.data[0]["marker"]["color"], strict=True))
    assert {color for verdict, color in colors if verdict.winner == "tensorflow"} == {"var(--target-2)"}
    lines = latency_by_rate(figures, "grpc")
    assert lines is not None
    named = {trace.get("name") for trace in lines.data}
    assert {"PyTorch p99", "unbatched p99", "TensorFlow p99"} <= named
