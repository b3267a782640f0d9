"""Two runs compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from loadtest.analysis import saved_run, summary, two_runs
from loadtest.analysis.records import Capacity, LeftOut, NoCommonRate, RunComparison, Subject
from loadtest.analysis.two_runs import BASELINE, THIS
from loadtest.experiment.questions import Family, Metric
from loadtest.report import against, wording
from models.problem import Problem
from serving.engines.engine import Knob
from tests.loadtest.analysis.figures import bounds
from tests.loadtest.report.page_checks import as_read
from tests.loadtest.runs import figures as build
from tests.loadtest.runs.build import EMBEDDED, TF_SERVING, TORCHSERVE, write_run

RATES = {"grpc": [200.0, 400.0]}
BOTH = {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING}


def larger(knobs: tuple[Knob, ...]) -> tuple[Knob, ...]:
    """TorchServe's knobs with batches of 64."""
    return tuple(replace(knob, value=64) if knob.native_key == "batchSize" else knob for knob in knobs)


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "before", BOTH, rates=RATES, duration_s=4)


def compare(run: Path, baseline: Path) -> RunComparison:
    return two_runs.compare(saved_run.load(run), saved_run.load(baseline))


def test_the_same_server_again_shows_no_difference(before, tmp_path):
    again = write_run(tmp_path / "again", BOTH, rates=RATES, duration_s=4, seed=9)
    for figures in compare(again, before).comparisons.values():
        assert {verdict.winner for verdict in figures.verdicts} == {None}
        assert any(verdict.shows_no_difference for verdict in figures.verdicts)


def test_a_faster_server_is_named_with_the_ratio_of_the_two_runs(before, tmp_path):
    tuned = {**BOTH, "pytorch": replace(TORCHSERVE, base_ms=1.5, knobs=larger(TORCHSERVE.knobs))}
    after = write_run(tmp_path / "after", tuned, rates=RATES, duration_s=4, seed=9)
    values = compare(after, before)
    p99 = next(item for item in values.comparisons["pytorch"].verdicts if item.metric is Metric.P99)
    assert p99.winner == THIS
    assert p99.compared == (BASELINE, THIS)
    assert p99.ratio == pytest.approx(2, rel=0.15)  # 3 ms against 1.5 ms
    low, high = bounds(p99.ci95)
    assert low < 2 < high
    (batch,) = [item for item in values.differences if item.subject is Subject.TARGET]
    assert (batch.of, batch.key, batch.baseline, batch.this) == ("pytorch", "batchSize", 32, 64)
    assert not any(item.subject is Subject.MODEL for item in values.differences)


def test_figures_are_those_of_each_runs_own_summary(before, tmp_path):

    again = write_run(tmp_path / "again", BOTH, rates=RATES, duration_s=4, seed=9)
    compared = compare(again, before).comparisons
    for label, folder in ((BASELINE, before), (THIS, again)):
        for own in summary.build(folder).measurements:
            shown = next(
                item
                for item in compared[own.target].measurements
                if (item.target, item.offered_rate) == (label, own.offered_rate)
            )
            assert msgspec.structs.replace(shown, target=own.target) == own


def test_an_invalid_measurement_names_no_winner(before, tmp_path):
    tuned = {**BOTH, "pytorch": replace(TORCHSERVE, base_ms=1.5)}
    after = write_run(tmp_path / "after", tuned, rates=RATES, duration_s=4, spoil=lambda *_: {"wrong": 1})
    for figures in compare(after, before).comparisons.values():
        assert {verdict.winner for verdict in figures.verdicts} == {None}


def test_without_a_common_rate_only_capacity_is_compared_and_the_fix_is_told(before, tmp_path):
    other = write_run(tmp_path / "other", BOTH, rates={"grpc": [300.0, 600.0]}, duration_s=2)
    values = compare(other, before)
    assert {warning.target for warning in values.warnings if isinstance(warning, NoCommonRate)} == set(BOTH)
    assert {verdict.ratio for verdict in values.comparisons["pytorch"].verdicts} == {None}
    page, _ = against.write(other, before)
    assert "make compare EXPERIMENT=results/before/experiment.toml" in page.read_text(encoding="utf-8")


def test_capacity_is_called_higher_only_where_the_intervals_do_not_meet():
    def entry(rate: float, low: float | None, high: float | None) -> Capacity:
        return build.capacity("pytorch", max_rate=rate, ci95=(low, high))

    say = against.compare_capacity
    assert say(entry(400, 400, 600), entry(800, 600, None)).startswith("higher: 2.00 times")
    assert say(entry(800, 800, 900), entry(400, 300, 500)).startswith("lower: 0.500 times")
    assert say(entry(400, 400, None), entry(800, 800, None)).startswith("no difference shown")
    assert say(None, entry(800, 800, None)).startswith("cannot be compared")


def test_targets_of_one_run_alone_are_left_out_and_named(before, tmp_path):
    alone = write_run(tmp_path / "alone", {"pytorch": TORCHSERVE}, rates=RATES, duration_s=2)
    values = compare(alone, before)
    assert list(values.comparisons) == ["pytorch"]
    assert LeftOut("tensorflow") in values.warnings


def test_nothing_in_common_and_the_same_run_twice_are_refused(before, tmp_path):
    empty = write_run(tmp_path / "empty", {}, asked=["pytorch"])
    with pytest.raises(Problem, match="no target was measured in both"):
        against.write(empty, before)
    with pytest.raises(Problem, match="the same run"):
        against.write(before, before)
    assert not list(empty.glob("report-against*"))


def test_the_three_files_say_the_same(before, tmp_path):
    tuned = {**BOTH, "pytorch": replace(TORCHSERVE, base_ms=1.5, knobs=larger(TORCHSERVE.knobs))}
    after = write_run(tmp_path / "after", tuned, rates=RATES, duration_s=4, seed=9)
    page, headlines = against.write(after, before)
    assert page == after / "report-against-before.html"
    verdict = compare(after, before).comparisons["pytorch"].verdicts
    (main,) = [one for one in verdict if one.family is Family.LATENCY]
    factor, *ends = wording.times(main.ratio or 0.0, *bounds(main.ci95))
    ours, theirs = (wording.brief_milliseconds(one.value) for one in reversed(main.figures or ()))
    sentence = (
        f"Over gRPC at 400/s this run answered 99 % of requests within {ours}, the baseline within {theirs} "
        f"({factor} times as long, {'–'.join(ends)})."
    )
    assert headlines[0] == f"PyTorch (TorchServe): {sentence}"
    values = json.loads((after / "report-against-before.json").read_text())
    text = (after / "report-against-before.md").read_text()
    html = page.read_text(encoding="utf-8")
    assert values["headlines"] == headlines
    assert values["first_screens"]["pytorch"]["sentence"] == sentence
    for said in (text, as_read(html)):
        assert sentence in said
        assert said.index(sentence) < said.index("Latency</b>: " if said != text else "- Latency: ")
        assert "PyTorch: batchSize" in said
    assert "<mark>batchSize=64</mark>" in html
    assert "make report RUN=results/after AGAINST=results/before" in html


def test_a_target_that_changed_its_engine_is_named_with_what_it_was(before, tmp_path):
    swapped = {**BOTH, "tensorflow": EMBEDDED}
    after = write_run(tmp_path / "after", swapped, rates=RATES, duration_s=4, seed=9)
    page, headlines = against.write(after, before)
    assert headlines[1].startswith("TensorFlow: ")
    html = page.read_text(encoding="utf-8")
    assert "the baseline (TensorFlow Serving)" in html
    assert "this run (the embedded stand-in for TensorFlow Serving)" in html


def test_the_command_line_writes_the_page_and_says_where(before, tmp_path, capsys):
    from loadtest.__main__ import main

    again = write_run(tmp_path / "again", BOTH, rates=RATES, duration_s=3, seed=9)
    assert main(["report", str(again), "--against", str(before)]) == 0
    assert "report-against-before.html" in capsys.readouterr().out
    assert main(["report", str(again), "--against", str(tmp_path)]) == 1
    assert "not a run's folder" in capsys.readouterr().err
