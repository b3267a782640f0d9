"""Three targets or more: who leads, who shares a place, and how page, Markdown and charts show it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from loadtest import report
from loadtest.analysis import rankings, summary
from loadtest.analysis.records import Metric, Outcome, Summary
from loadtest.report import ranking, story
from loadtest.report.charts.latency import latency_by_rate
from loadtest.report.charts.ratios import ratios
from tests.loadtest.runs import figures as build
from tests.loadtest.runs.build import THREE, write_run

RATES = {"grpc": [250.0, 500.0], "rest": [200.0, 400.0]}
NAMES = ("a", "b", "c")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "run", THREE, rates=RATES, duration_s=3)
    report.write(folder)
    return folder


@pytest.fixture(scope="module")
def figures(run) -> Summary:
    return summary.read(run)


def won(winners: Mapping[tuple[str, str], str | None], metric: Metric = Metric.P99) -> Summary:
    """A summary of three targets with these winners of their pairs over gRPC."""
    verdicts = tuple(
        build.verdict(metric, winner, pair, outcome=Outcome.WINNER if winner else Outcome.NO_DIFFERENCE_SHOWN)
        for pair, winner in winners.items()
    )
    return build.summary(NAMES, verdicts=verdicts, rankings=rankings.of(NAMES, verdicts))


@pytest.mark.parametrize(
    ("winners", "headline", "places"),
    [
        (("a", "a", "b"), "a (e 1) has the lowest p99 latency over gRPC.", [(1, ["a"]), (2, ["b"]), (3, ["c"])]),
        (("a", "a", None), "a (e 1) has the lowest p99 latency over gRPC.", [(1, ["a"]), (2, ["b", "c"])]),
        (
            (None, "a", "b"),
            "a (e 1) and b (e 1) share the first place for the lowest p99 latency over gRPC.",
            [(1, ["a", "b"]), (3, ["c"])],
        ),
        (
            ("a", None, "b"),
            "a (e 1) leads for the lowest p99 latency, not told apart from c over gRPC.",
            [(1, ["a"]), (2, ["b", "c"])],
        ),
        ((None, None, None), "No difference shown.", [(1, ["a", "b", "c"])]),
    ],
)
def test_targets_that_were_not_told_apart_share_a_place(winners, headline, places):
    found = won(dict(zip((("a", "b"), ("a", "c"), ("b", "c")), winners, strict=True)))
    assert story.tell(found).headline == headline
    (ranked,) = ranking.ranked(found)
    assert [(place.number, place.targets) for place in ranked.places] == places


def test_a_target_that_was_compared_with_none_has_no_place():
    nothing: dict[str, Any] = {"outcome": Outcome.NO_COMMON_RATE, "figures": None, "ratio": None, "ci95": None}
    verdicts = (
        build.verdict(Metric.P99, "a", ("a", "b")),
        build.verdict(Metric.P99, None, ("a", "c"), **nothing),
        build.verdict(Metric.P99, None, ("b", "c"), **nothing),
    )
    found = build.summary(NAMES, verdicts=verdicts, rankings=rankings.of(NAMES, verdicts))
    assert ranking.line(ranking.ranked(found)[0]) == "p99 latency over gRPC: 1. a; 2. b; not compared: c"


def test_of_two_targets_there_is_no_ranking():
    verdicts = (build.verdict(Metric.P99, "a", ("a", "b")),)
    two = build.summary(NAMES[:2], verdicts=verdicts, rankings=rankings.of(NAMES[:2], verdicts))
    assert ranking.ranked(two) == []
    assert story.tell(two).headline == "a (e 1) has the lower p99 latency over gRPC."


def test_three_measured_targets_are_ranked_in_every_form_of_the_report(run):
    values = json.loads((run / "report.json").read_text())["verdict"]
    p99 = next(one for one in values["ranking"] if one["title"] == "p99 latency over gRPC")
    assert p99["places"] == [
        {"number": 1, "targets": ["tensorflow"]},
        {"number": 2, "targets": ["pytorch", "unbatched"]},
    ]
    assert values["headline"].startswith("TensorFlow (TensorFlow Serving 2.20.0) has the lowest p99 latency")
    text, html = (run / "report.md").read_text(), (run / "report.html").read_text(encoding="utf-8")
    assert "- p99 latency over gRPC: 1. TensorFlow; 2. PyTorch and unbatched\n" in text
    assert html.index(values["headline"]) < html.index('id="ranking"') < html.index("Question by question")
    assert '<li value="2">' in html
    assert "PyTorch, unbatched or TensorFlow in production?" in html
    assert "One profile, 3 servers" in html
    assert "max_batch_size = 1</bdi>" in html


def test_every_pair_is_asked_about_by_name(figures):
    asked = [topic for topic, _ in story.tell(figures).sentences]
    assert len(asked) == len(set(asked)) == 2 * 2 * 3  # protocols, metrics, pairs
    assert any(topic.endswith("over REST, unbatched or TensorFlow?") for topic in asked)


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
