"""Charts as people with other eyes meet them: nothing flattened, nothing told by colour alone, all of it in words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loadtest import report
from loadtest.analysis import saved_run, summary
from loadtest.analysis.records import Summary
from loadtest.experiment.questions import Metric
from loadtest.report import content
from loadtest.report.charts.decomposition import CUT, axis_end, decomposition
from loadtest.report.charts.figure import BREAK, CROSSES, DASHES, MARKERS, STARS, Chart
from loadtest.report.charts.latency import latency_by_rate
from loadtest.report.charts.ratios import ABOVE_PX, axis_reach, ratios
from tests.loadtest.runs.build import EMBEDDED, TORCHSERVE, decompose, write_run

RATES = {"grpc": [250.0, 500.0]}
STYLE = (Path(report.__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> saved_run.SavedRun:
    servers = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}
    return saved_run.load(write_run(tmp_path_factory.mktemp("runs") / "run", servers, rates=RATES, duration_s=3))


@pytest.fixture(scope="module")
def figures(run) -> Summary:
    return decompose(summary.build(run.folder))


@pytest.fixture(scope="module")
def charts(run, figures) -> list[Chart]:
    return content.gather(run, figures).charts.all()


def overloaded(figures: Summary, total_ms: float) -> Chart:
    """The parts of the latency where one of the four measurements took so long."""
    last = replace(figures.decomposition[-1], total_ms=total_ms)
    chart = decomposition(replace(figures, decomposition=(*figures.decomposition[:-1], last)), "grpc")
    assert chart
    return chart


def test_an_overloaded_bar_does_not_flatten_the_others_and_is_marked_as_cut(figures):
    others = [item.total_ms for item in figures.decomposition[:-1]]
    chart = overloaded(figures, 1234.0)
    end = chart.layout["xaxis"]["range"][1]
    assert max(others) < end < 2 * max(others)
    (mark,) = chart.layout["annotations"]
    assert mark["text"] == f"{BREAK} 1,230 ms ▸"
    assert mark["y"] in chart.data[0]["y"]
    assert f"A bar with {BREAK} is longer than the axis: its parts are drawn as shares of its length" in chart.caption
    assert chart.alternative.count("(its bar is cut short)") == 1
    at = chart.data[0]["y"].index(mark["y"])
    parts = [(trace["x"][at], trace["customdata"][at]) for trace in chart.data if trace["x"][at] is not None]
    assert sum(drawn for drawn, _ in parts) == pytest.approx(end)
    assert sum(exact for _, exact in parts) == pytest.approx(1234.0)
    assert {round(drawn / exact, 6) for drawn, exact in parts} == {round(end / 1234.0, 6)}
    assert "cut at" in chart.layout["xaxis"]["title"]["text"]
    assert chart.table.rows[-1][-2] == "1,230"  # the whole length stands in the table


def test_where_no_bar_is_overloaded_nothing_is_cut(figures):
    chart = overloaded(figures, 2 * max(item.total_ms for item in figures.decomposition))
    assert "range" not in chart.layout["xaxis"]
    assert chart.layout["annotations"] == []
    assert "cut" not in chart.caption + chart.alternative


@given(st.lists(st.floats(0.01, 5000), min_size=1, max_size=12), st.floats(1, 500))
def test_the_usual_bar_stays_readable_whatever_the_others_are(totals, slo_ms):
    end = axis_end(totals, slo_ms)
    usual = float(np.median([total for total in totals if total <= slo_ms] or totals))
    shown = end or max(totals)
    assert usual >= shown / (1.3 * CUT) * 0.999
    assert usual <= shown  # the usual one is never cut itself
    assert (end is None) == (max(totals) <= CUT * usual)


def with_interval(figures: Summary, interval: tuple[float, float]) -> Chart:
    """The ratios' chart where the first verdict has this interval, and every other one from 0.9 to 1.1."""
    first, *others = (replace(verdict, ratio=1.0, ci95=(0.9, 1.1)) for verdict in figures.verdicts)
    chart = ratios(replace(figures, verdicts=(replace(first, ci95=interval), *others)))
    assert chart
    return chart


def test_a_very_wide_interval_does_not_flatten_the_others_and_is_marked_as_cut(figures):
    assert figures.verdicts[0].metric is Metric.P99
    chart = with_interval(figures, (0.3, 150.0))
    low, high = chart.layout["xaxis"]["range"]
    assert (10**low, 10**high) == pytest.approx((1 / 1.5, 1.5))
    marks = [mark for mark in chart.layout["annotations"] if BREAK in mark["text"]]
    assert [(mark["text"], mark["x"], mark["xanchor"]) for mark in marks] == [
        (f"◂ 0.300 {BREAK}", low, "left"),
        (f"{BREAK} 150 ▸", high, "right"),
    ]
    assert {mark["y"] for mark in marks} == {chart.data[0]["y"][-1]}
    assert "cut at 1.50" in chart.layout["xaxis"]["title"]["text"]
    assert f"A bar with {BREAK} is longer than the axis" in chart.caption
    assert chart.table.rows[0][2] == "0.300–150"  # the whole interval stands in the table
    assert "(0.300–150)" in chart.alternative


def test_a_cut_bars_words_stand_above_it_where_they_would_cover_its_mark(figures):
    first, *others = (replace(verdict, ratio=1.0, ci95=(0.9, 1.1)) for verdict in figures.verdicts)
    for ratio, shifts in ((1.1, [None]), (40.0, [ABOVE_PX])):
        chart = ratios(replace(figures, verdicts=(replace(first, ratio=ratio, ci95=(0.9, 900.0)), *others)))
        assert chart
        marks = [mark for mark in chart.layout["annotations"] if BREAK in mark["text"]]
        assert [mark.get("yshift") for mark in marks] == shifts


def test_where_no_interval_is_much_wider_nothing_is_cut(figures):
    chart = with_interval(figures, (0.8, 1.3))
    assert 10 ** chart.layout["xaxis"]["range"][1] > 1.3
    assert not [mark for mark in chart.layout["annotations"] if BREAK in mark["text"]]
    assert "cut" not in chart.caption + chart.layout["xaxis"]["title"]["text"]


@given(st.lists(st.tuples(*[st.floats(-3, 3)] * 3).map(sorted), min_size=1, max_size=12))
def test_every_ratio_stays_on_the_axis_and_the_usual_bar_readable(rows):
    points = [10**point for _, point, _ in rows]
    bars = [(10**low, 10**high) for low, _, high in rows]
    reach = axis_reach(points, bars)
    assert reach >= max(abs(point) for _, point, _ in rows) * 0.999
    far = [max(abs(low), abs(high)) for low, _, high in rows]
    usual = float(np.percentile(far, 50, method="lower"))
    assert usual <= reach * 1.001  # the usual one is never cut itself


def test_four_targets_differ_in_each_kind_of_mark_without_colour():
    for marks in (MARKERS, DASHES, STARS, CROSSES):
        assert len(set(marks)) == 4


def looks(chart: Chart) -> Iterator[tuple[Any, ...]]:
    """What tells each trace of a panel apart where there is no colour."""
    for trace in chart.data:
        if trace.get("hoverinfo") == "skip":  # a band around a line
            continue
        style = trace.get("marker", {})
        dash = trace.get("line", {}).get("dash")
        yield trace.get("yaxis"), trace.get("mode"), str(style.get("symbol")), dash, str(style.get("pattern"))


def test_no_two_traces_of_a_panel_differ_by_colour_alone(charts):
    assert len(charts) > 6
    for chart in charts:
        seen = list(looks(chart))
        assert len(set(seen)) == len(seen), chart.id


# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEFICIENCIES = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def seen(color: str, deficiency: str) -> np.ndarray:
    """[3] CIE L*a*b* (D65) of #rrggbb as an eye with this deficiency sees it."""
    srgb = np.array([int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(DEFICIENCIES[deficiency]) @ linear, 0, 1)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    ratio = to_xyz @ linear / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > 216 / 24389, np.cbrt(ratio), (24389 / 27 * ratio + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_first_two_targets_colours_differ_for_every_eye(scheme, deficiency):
    """A difference (CIE76) of 2.3 is just noticeable; a chart's two lines get far more, and marks of their own."""
    light, dark = STYLE.split("@media (prefers-color-scheme: dark)")[:2]
    colors = dict(re.findall(r"--(target-\d): (#[0-9a-f]{6})", light if scheme == "light" else dark.split("}")[0]))
    assert len(colors) == 4
    distances = {
        pair: float(np.linalg.norm(seen(colors[pair[0]], deficiency) - seen(colors[pair[1]], deficiency)))
        for pair in combinations(sorted(colors), 2)
    }
    assert distances["target-0", "target-1"] > 40, distances
    assert min(distances.values()) > 10, distances


def test_every_chart_says_what_it_shows_and_holds_its_figures_in_a_table(charts, figures):
    for chart in charts:
        assert len(re.findall(r"\d", chart.alternative)) > 4, chart.id
        assert chart.table.rows, chart.id
        assert all(len(row) == len(chart.table.columns) for row in chart.table.rows), chart.id
    chart = latency_by_rate(figures, "grpc")
    assert chart
    item = figures.measurements[0]
    row = next(row for row in chart.table.rows if row[1] == "250/s" and row[0] == "PyTorch")
    assert row[3] == f"{item.latency_ms.p99:.2f}"
    assert row[-1] == ", ".join(item.trials)
    assert "its highest rate within the SLO: 500/s" in chart.alternative
