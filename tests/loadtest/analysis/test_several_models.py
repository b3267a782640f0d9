"""A run of several models, read back: each model's figures are merged, its parity is its own, the report names it."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path

import msgspec
import numpy as np
import pytest
import tomlkit

from loadtest import report
from loadtest.analysis import saved_run, summary, two_runs
from loadtest.analysis.records import ModelShare, NotCompared
from loadtest.experiment import records
from loadtest.experiment.records import Requests
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.trial_files import Measured, by_model, write_trial
from loadtest.report import conditions, samples
from tests.loadtest.runs.build import EMBEDDED, TORCHSERVE, write_run

MIX = {"convnet": 0.7, "lenet": 0.3}
SECONDS = 3
SERVERS = {"pytorch": TORCHSERVE, "tensorflow": EMBEDDED}


def several(folder: Path, latencies_ms: dict[int, list[np.ndarray]]) -> Path:
    """A run whose trials of repetition r have, for each model in turn, the latencies `latencies_ms[r]`."""
    write_run(folder, SERVERS, rates={"grpc": [200.0]}, duration_s=SECONDS)
    experiment = tomllib.loads((folder / "experiment.toml").read_text())
    del experiment["model"]
    (folder / "experiment.toml").write_text(tomlkit.dumps({**experiment, "models": MIX}))
    manifest = json.loads((folder / "bundle-manifest.json").read_text())
    (folder / "bundle-manifest-lenet.json").write_text(json.dumps({**manifest, "model": "lenet", "version": 4}))
    wire = json.loads((folder / "wire-parity.json").read_text())
    (folder / "wire-parity.json").write_text(json.dumps({"models": dict.fromkeys(MIX, wire)}))
    for path in folder.glob("trials/*/trial.json"):
        record = records.read_trial(path)
        own = latencies_ms[record.repetition]
        models = np.repeat(np.arange(len(own), dtype=np.uint8), [len(one) for one in own])
        latency = np.concatenate(own)
        due = np.linspace(0, SECONDS, len(latency), endpoint=False)
        order = np.random.default_rng(1).permutation(len(latency))
        models, latency = models[order], latency[order]
        status = np.ones(len(latency), np.uint8)
        status[np.flatnonzero(models == 1)[:2]] = 3
        outcomes = Outcomes(due, due, due + latency / 1e3, status, ("timeout",), models=models)
        measured = Measured(outcomes, float(SECONDS))
        found = {"requests": measured.requests, "errors": measured.errors, "by_model": by_model(MIX, measured)}
        write_trial(path.parent, msgspec.structs.replace(record, **found), measured)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    rng = np.random.default_rng(2)
    return several(
        tmp_path_factory.mktemp("runs") / "run",
        {
            1: [rng.uniform(1, 2, 700), rng.uniform(10, 20, 300)],
            2: [rng.uniform(1, 2, 700), rng.uniform(30, 40, 100)],
        },
    )


def test_each_model_has_its_own_figures_and_percentiles_are_merged_over_repetitions(run):
    for item in summary.build(run).measurements:
        convnet, lenet = item.by_model["convnet"], item.by_model["lenet"]
        assert (convnet.share, lenet.share) == (0.7, 0.3)
        assert convnet.requests == Requests(scheduled=1400, sent=1400, completed=1400, ok=1400)
        assert lenet.requests == Requests(scheduled=400, sent=400, completed=396, ok=396)
        assert (convnet.errors, lenet.errors) == ({}, {"timeout": 4})
        assert 1.4 < (convnet.latency_ms.p50 or 0) < 1.6
        # Of all answers three in four are of the first repetition: the median is its, not the mean of two medians.
        assert 15 < (lenet.latency_ms.p50 or 0) < 18.5
        assert 38 < (lenet.latency_ms.p99 or 0) < 40.1
        assert (item.latency_ms.p99 or 0) > 30


def test_the_parity_of_all_models_is_that_of_each(run, tmp_path):
    parity = summary.build(run).parity
    assert parity.proven
    assert list(parity.by_model) == list(MIX)
    assert parity.max_abs_diff == max(one.max_abs_diff or 0 for one in parity.by_model.values())
    shutil.copytree(run, tmp_path / "run")
    wire = json.loads((tmp_path / "run" / "wire-parity.json").read_text())
    del wire["models"]["lenet"]["targets"]["tensorflow"]
    (tmp_path / "run" / "wire-parity.json").write_text(json.dumps(wire))
    doubtful = summary.build(tmp_path / "run")
    assert not doubtful.parity.proven
    assert doubtful.parity.why_not_proven == (NotCompared(model="lenet", target="tensorflow", protocol="grpc"),)
    assert all(verdict.winner is None for verdict in doubtful.verdicts)


def test_targets_and_conditions_name_the_models_with_their_shares(run):
    figures = summary.build(run)
    assert figures.targets[0].models == (
        ModelShare(name="convnet", version=1, share=0.7),
        ModelShare(name="lenet", version=4, share=0.3),
    )
    shown = dict(conditions.conditions(figures, conditions.accuracies(saved_run.load(run), figures)))
    plain = shown["Models"].replace("\u2068", "").replace("\u2069", "")
    assert plain == (
        "convnet (70 % of the requests) and lenet (30 % of the requests) on fashion-mnist, "
        "test accuracy 89.34 % and 89.34 %"
    )
    assert "Model" not in shown


def test_the_report_shows_each_model(run):
    page = report.write(run).read_text(encoding="utf-8")
    assert "Several models." in page
    assert "Are they the same models?" in page
    assert page.count("<bdi>lenet</bdi>, <bdi>SavedModel</bdi>") == 1
    assert "timeout</bdi> × 4" in page
    assert "| lenet, SavedModel |" in (run / "report.md").read_text()
    assert len(samples.load(saved_run.load(run))[0].answers) == 2
    found = json.loads((run / "report.json").read_text())["disagreements"]
    assert [item["model"] for item in found] == []  # gRPC alone: nothing differs
    assert len(two_runs.compare(saved_run.load(run), saved_run.load(run)).comparisons) == 2
