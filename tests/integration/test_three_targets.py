"""Three targets in one run, two of them one engine under different profiles: from their servers to the report."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from loadtest.analysis import summary
from loadtest.experiment import file as experiment
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.run import run as run_experiment
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.report.rebuild import rebuild
from serving.cores import split_cores

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

EXPERIMENT = """
name = "three"
dataset = "digits"
targets = ["tensorflow", "unbatched", "pytorch"]
protocols = ["grpc"]
scenarios = ["ladder"]

[[target]]
name = "unbatched"
engine = "tensorflow-serving"
profile = { max_batch_size = 1 }

[ladder]
rates = { grpc = [60.0] }
repetitions = 2
duration_s = 1.5
lead_in_s = 0.3

[warm_up]
window_s = 0.25
min_s = 1.0
max_s = 4.0
settle_s = 0.0
min_requests = 0
tolerance = 0.3
"""
NAMES = ["tensorflow", "unbatched", "pytorch"]


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def run(bundle, tmp_path_factory) -> Path:
    """The folder of the run."""
    three = experiment.parse(EXPERIMENT)
    folder = RunFolder.open(tmp_path_factory.mktemp("results"), three, bundle.digest, fresh=True)
    folder.write("model-time.json", {name: {"problem": "left out, to be quick"} for name in NAMES})
    servers = LocalTargets(folder, [bundle], three, split_cores(sorted(os.sched_getaffinity(0))), programs={})
    with RunProgress() as progress:
        run_experiment(three, [bundle], servers, folder, progress)
    rebuild(folder.path)
    return folder.path


@pytest.mark.timeout(240)
def test_all_three_are_measured_in_turn_and_back(run):
    order = read(run / "environment.json")["order"]
    assert sorted(order[:3]) == sorted(NAMES)
    assert order[3:] == order[2::-1]
    trials = [read(path) for path in run.glob("trials/*/trial.json")]
    assert sorted((trial["target"], trial["repetition"]) for trial in trials) == sorted(
        (name, repetition) for name in NAMES for repetition in (1, 2)
    )
    for trial in trials:
        assert trial["requests"]["ok"] > 0.9 * 60 * 1.5
        assert not trial["errors"]
    assert len({(trial["seed"]) for trial in trials}) == 2  # all see the same arrivals


def test_each_is_given_its_own_profile_and_proven_to_be_the_same_model(run):
    targets = {one["name"]: one for one in read(run / "targets.json")}
    assert set(targets) == set(NAMES)
    assert targets["unbatched"]["engine"] == targets["tensorflow"]["engine"] != targets["pytorch"]["engine"]
    sizes = {name: one["max_batch_size"] for name, one in targets.items()}
    assert sizes == {"tensorflow": 32, "unbatched": 1, "pytorch": 32}
    proven = read(run / "wire-parity.json")["targets"]
    assert {name: figures["grpc"]["top1_agreement"] for name, figures in proven.items()} == dict.fromkeys(NAMES, 1.0)


def test_the_saved_experiment_names_all_three(run):
    assert experiment.load(str(run / "experiment.toml")) == experiment.parse(EXPERIMENT)


def test_every_pair_has_its_verdicts_and_all_three_have_a_place(run):
    found = summary.read(run)
    pairs = [("tensorflow", "unbatched"), ("tensorflow", "pytorch"), ("unbatched", "pytorch")]
    assert [verdict.compared for verdict in found.verdicts if verdict.family is Family.LATENCY] == pairs
    (ranking,) = (one for one in found.rankings if one.metric is Metric.P99)
    assert {standing.target for standing in ranking.standings} == set(NAMES)
    assert found.target("unbatched").engine == found.target("tensorflow").engine
    for name in ("report.html", "report.md"):
        text = (run / name).read_text()
        assert all(name in text for name in ("unbatched", "TorchServe"))
