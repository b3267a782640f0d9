"""Two runs compared: verdicts between them, what else differs, and what a reader must know."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.analysis import saved_run, summary, two_runs
from loadtest.analysis.records import (
    AnswersDiffer,
    Difference,
    Estimate,
    LeftOut,
    ModelsDiffer,
    NoCommonRate,
    Outcome,
    RunInfo,
    SlosDiffer,
    Subject,
)
from loadtest.analysis.two_runs import BASELINE, THIS
from loadtest.experiment.questions import Family, Metric
from models.problem import Problem
from tests.loadtest.runs.build import SAME, START, TF_SERVING, TORCHSERVE, write_run

RATES = {"grpc": [400.0]}


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "before"
    return write_run(folder, {"pytorch": TORCHSERVE, "tensorflow": SAME}, rates=RATES, duration_s=4)


@pytest.fixture(scope="module")
def after(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "after"
    faster = replace(TORCHSERVE, base_ms=1.5)
    return write_run(folder, {"pytorch": faster, "tensorflow": SAME}, rates=RATES, duration_s=4, seed=2)


def test_a_faster_run_wins_over_its_baseline_and_an_equal_one_does_not(before, after):
    found = two_runs.compare(saved_run.load(after), saved_run.load(before))
    assert found.this.folder == "after"
    assert found.baseline == RunInfo(folder="before", experiment="recorded", started_at=START)
    assert list(found.comparisons) == ["pytorch", "tensorflow"]
    assert found.warnings == ()
    latency = {
        name: next(one for one in figures.verdicts if one.metric is Metric.P99)
        for name, figures in found.comparisons.items()
    }
    assert latency["pytorch"].compared == (BASELINE, THIS)
    assert latency["pytorch"].winner == THIS
    assert latency["pytorch"].ratio == pytest.approx(2.0, rel=0.1)
    assert latency["tensorflow"].outcome is Outcome.NO_DIFFERENCE_SHOWN
    assert [one.target for one in found.comparisons["pytorch"].rankings[0].standings] == [THIS, BASELINE]


def test_what_else_differs_is_listed_by_its_subject_and_its_key(before, tmp_path):
    run = shutil.copytree(before, tmp_path / "run")
    text = (run / "experiment.toml").read_text()
    (run / "experiment.toml").write_text(text.replace("p99_ms = 50.0", "p99_ms = 40.0").replace("seed = 1", "seed = 9"))
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "cpu_count": 8, "started_at": 1.0}))
    targets = json.loads((run / "targets.json").read_text())
    targets[0]["engine_version"] = "0.13.0"
    targets[1]["switches"] = [{"name": "oneDNN", "value": False}]
    (run / "targets.json").write_text(json.dumps(targets))
    manifest = json.loads((run / "bundle-manifest.json").read_text())
    (run / "bundle-manifest.json").write_text(json.dumps({**manifest, "files": {"onnx/model.onnx": "ab" * 32}}))
    found = two_runs.compare(saved_run.load(run), saved_run.load(before))
    assert set(found.differences) == {
        Difference(subject=Subject.EXPERIMENT, key="slo.p99_ms", baseline=50.0, this=40.0),
        Difference(subject=Subject.EXPERIMENT, key="seed", baseline=1, this=9),
        Difference(subject=Subject.ENVIRONMENT, key="cpu_count", baseline=2, this=8),
        Difference(subject=Subject.TARGET, of="pytorch", key="engine_version", baseline="0.12.0", this="0.13.0"),
        Difference(subject=Subject.TARGET, of="tensorflow", key="in force: oneDNN", baseline=None, this=False),
        Difference(subject=Subject.MODEL, key="onnx/model.onnx", baseline=None, this="abababababab"),
    }
    assert found.warnings == (SlosDiffer(), ModelsDiffer())


def test_a_doubt_about_either_run_names_that_run_and_keeps_everyone_from_winning(before, after, tmp_path):
    run = shutil.copytree(before, tmp_path / "run")
    wire = json.loads((run / "wire-parity.json").read_text())
    wire["targets"]["tensorflow"]["grpc"]["max_abs_diff"] = 0.5
    (run / "wire-parity.json").write_text(json.dumps(wire))
    found = two_runs.compare(saved_run.load(after), saved_run.load(run)).comparisons["pytorch"]
    doubt = AnswersDiffer(run=BASELINE, target="tensorflow", protocol="grpc", difference=0.5, allowed=1e-4)
    assert (found.parity.proven, found.parity.why_not_proven) == (False, (doubt,))
    assert found.verdicts[0].outcome is Outcome.PARITY_NOT_PROVEN


def test_a_target_of_one_run_alone_and_rates_that_are_not_shared_are_told(before, tmp_path):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE}, rates={"grpc": [300.0]}, duration_s=2)
    found = two_runs.compare(saved_run.load(run), saved_run.load(before))
    assert found.warnings == (NoCommonRate("pytorch"), LeftOut("tensorflow"))
    assert found.comparisons["pytorch"].verdicts[0].outcome is Outcome.NO_COMMON_RATE
    other = write_run(tmp_path / "other", {"tensorflow": TF_SERVING}, rates=RATES, duration_s=2)
    with pytest.raises(Problem, match="no target was measured in both"):
        two_runs.compare(saved_run.load(run), saved_run.load(other))


def test_capacities_of_two_runs_are_compared_by_their_starts_and_rates_of_one_run_alone_are_no_question(tmp_path):
    """As it is where each run finds its own rates: what they share is the capacity, and the user's own rate."""
    slower = replace(TORCHSERVE, base_ms=4.5, capacity=600)
    options: dict[str, Any] = {"searches": 4, "repetitions": 4, "duration_s": 2, "own_rate": 250.0}
    before = write_run(tmp_path / "before", {"pytorch": slower}, rates={"grpc": [200.0, 250.0]}, **options)
    after = write_run(tmp_path / "after", {"pytorch": TORCHSERVE}, rates={"grpc": [250.0, 500.0]}, seed=2, **options)
    found = two_runs.compare(saved_run.load(after), saved_run.load(before))
    assert found.warnings == ()
    capacity, latency = found.comparisons["pytorch"].verdicts
    assert (capacity.metric, capacity.winner, capacity.starts) == (Metric.CAPACITY, THIS, 4)
    assert (capacity.ratio or 0) == pytest.approx(600 / 900, rel=0.15)
    assert (latency.offered_rate, latency.family, latency.winner) == (250.0, Family.LATENCY, THIS)
    limits = {item.target: item for item in found.comparisons["pytorch"].capacity}
    assert list(limits) == [BASELINE, THIS]
    assert capacity.figures == tuple(Estimate(item.max_rate, item.ci95) for item in limits.values())


def test_both_runs_are_judged_by_the_slo_of_the_newer_one(tmp_path):
    options: dict[str, Any] = {"rates": {"grpc": [200.0]}, "searches": 2, "duration_s": 1}
    before = write_run(tmp_path / "before", {"pytorch": TORCHSERVE}, **options)
    after = shutil.copytree(before, tmp_path / "after")
    text = (after / "experiment.toml").read_text()
    (after / "experiment.toml").write_text(text.replace("p99_ms = 50.0", "p99_ms = 20.0"))
    found = two_runs.compare(saved_run.load(after), saved_run.load(before))
    older, newer = found.comparisons["pytorch"].capacity
    assert older.max_rate == newer.max_rate
    assert (older.max_rate or 0) < (summary.build(before).capacity[0].max_rate or 0)
    assert found.warnings == (SlosDiffer(),)
