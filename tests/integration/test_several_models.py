"""One server that holds several models, one of them a module of the user's own: a whole run on both real servers, and
what a wrong model's answer is."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.experiment import file as experiment
from loadtest.experiment.compare import export
from loadtest.experiment.generator_process import run_phases
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.phases import OpenLoopPhase, Traffic
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.run import run as run_experiment
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.report.rebuild import rebuild
from models.bundle import Bundle
from serving.cores import split_cores
from serving.profile import ServingProfile
from serving.runtimes.process import launch
from tests.loadtest.report.page_checks import assert_sound

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

EXPERIMENT = """
name = "several"
dataset = "digits"
models = { convnet = 0.7, "several_nets:own" = 0.3 }
input = "32x32x3"
scenarios = ["ladder"]

[preprocessing]
preset = "-1-1"

[ladder]
rates = { grpc = [80.0], rest = [80.0] }
repetitions = 1
duration_s = 2.0
lead_in_s = 0.5

[warm_up]
settle_s = 0
min_requests = 0
window_s = 0.25
min_s = 1.0
max_s = 4.0
tolerance = 1.0
"""
NETWORK = """
from torch import nn


def own():
    return nn.Sequential(nn.Conv2d(3, 8, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(5), nn.Flatten(), nn.Linear(200, 10))
"""
# The page's count of predictions, by model, of each engine.
COUNTS = {
    "pytorch": r'^tandem_handler_seconds_count\{model="(\w+)",.*\} (\S+)$',
    "tensorflow": r'^:tensorflow:serving:request_latency_count\{model_name="(\w+)",.*\} (\S+)$',
}


@pytest.fixture(scope="module")
def both(bundle, tmp_path_factory) -> list[Bundle]:
    """A bundle of an architecture of the house, and one of a module outside the repository."""
    folder = tmp_path_factory.mktemp("both")
    (folder / "several_nets.py").write_text(NETWORK)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        return [bundle, export(experiment.parse(EXPERIMENT), "several_nets:own", folder / "artifacts")]


@pytest.fixture(scope="module")
def run(both, tmp_path_factory) -> tuple[Path, dict[str, str]]:
    """The folder of a run on servers that it started, and each server's own metrics page just before it stopped."""
    pages: dict[str, str] = {}
    stop = launch.RunningTarget.stop

    def read_and_stop(running: launch.RunningTarget) -> None:
        if running.target.metrics and running.target.name not in pages:
            with urllib.request.urlopen(running.target.metrics, timeout=10) as answer:
                pages[running.target.name] = answer.read().decode()
        stop(running)

    several = experiment.parse(EXPERIMENT)
    folder = RunFolder.open(tmp_path_factory.mktemp("results"), several, "both", fresh=True)
    folder.write("model-time.json", {stack: {"problem": "left out, to be quick"} for stack in several.target_names})
    cores = split_cores(sorted(os.sched_getaffinity(0)))
    servers = LocalTargets(folder, both, several, cores, programs={})
    with pytest.MonkeyPatch.context() as patch, RunProgress() as progress:
        patch.setattr(launch.RunningTarget, "stop", read_and_stop)
        run_experiment(several, both, servers, folder, progress)
    rebuild(folder.path)
    return folder.path, pages


@pytest.mark.timeout(280)
def test_both_servers_answer_for_both_models_each_its_share(run):
    folder, pages = run
    figures = json.loads((folder / "summary.json").read_text())
    assert len(figures["measurements"]) == 4
    for item in figures["measurements"]:
        # Where others take the CPU from the generator, that is no fault of the servers'.
        assert not [why for why in item["why_not_valid"] if why["reason"]["type"] != "sent-late"]
        assert not item["errors"]
        parts = item["by_model"]
        for figure, total in item["requests"].items():
            assert sum(part["requests"][figure] for part in parts.values()) == total
        assert all(0 < part["latency_ms"]["p50"] <= part["latency_ms"]["p99"] for part in parts.values())
        # Of 160 requests 48 ± 17 for it: three standard deviations.
        assert parts["own"]["requests"]["sent"] == pytest.approx(0.3 * item["requests"]["sent"], abs=18)
    for protocol in ("grpc", "rest"):
        asked = [
            [part["requests"]["scheduled"] for part in item["by_model"].values()]
            for item in figures["measurements"]
            if item["protocol"] == protocol
        ]
        assert asked[0] == asked[1]  # both targets are asked for the same
    for stack, counts in COUNTS.items():
        answered: dict[str, float] = {}
        for model, count in re.findall(counts, pages[stack], re.MULTILINE):
            answered[model] = answered.get(model, 0) + float(count)
        assert set(answered) == {"convnet", "own"}
        assert answered["own"] / sum(answered.values()) == pytest.approx(0.3, abs=0.04), (stack, answered)


def test_each_model_is_named_and_proven(run):
    figures = json.loads((run[0] / "summary.json").read_text())
    assert figures["experiment"]["models"] == {"convnet": 0.7, "several_nets:own": 0.3}
    assert figures["experiment"]["model"] is None
    for target in figures["targets"]:
        assert target["models"] == [
            {"name": "convnet", "version": 1, "share": 0.7},
            {"name": "own", "version": 1, "share": 0.3},
        ]
    assert figures["parity"]["proven"], figures["parity"]["why_not_proven"]
    for model in ("convnet", "own"):
        evidence = figures["parity"]["by_model"][model]
        assert set(evidence["exports"]) == {"pytorch", "torchscript", "torch_export", "onnx", "savedmodel"}
        for stack in ("pytorch", "tensorflow"):
            for protocol in ("grpc", "rest"):
                assert evidence["wire"][stack][protocol]["max_abs_diff"] <= 1e-4


def test_the_report_shows_each_model(run, browser):
    folder, _ = run
    assert_sound(browser, folder / "report.html")
    text = browser.execute_script("return document.querySelector('main').textContent")
    for words in ("Several models.", "Ten samples of", "convnet, TorchScript", "own, SavedModel"):
        assert words in " ".join(text.split()), words
    conditions = dict(
        line.removeprefix("- ").split(": ", 1)
        for line in (folder / "report.md").read_text().splitlines()
        if ": " in line
    )
    pattern = r"convnet.* \(70 % of the requests\) and .*own.* with weights as its factory made them \(30 %"
    assert re.search(pattern, conditions["Models"])
    assert conditions["Input"] == "32×32×3 images, pixels '-1-1'; the model gives logits"


def test_an_answer_of_the_wrong_model_is_an_error(both, tmp_path):
    convnet, own = both
    trial = OpenLoopPhase(
        id="trial",
        folder=tmp_path / "trial",
        protocol="rest",
        seed=1,
        rate=100,
        duration_s=1.0,
        lead_in_s=0.2,
        timeout_s=5.0,
        check_share=1.0,
    )
    with launch.start("tensorflow", convnet, ServingProfile(), tmp_path / "server", beside=[own]) as running:
        target = running.target
        asked = (
            Traffic(target, convnet.reference, 0.5),
            # The other's answers are expected, and convnet is asked.
            Traffic(replace(target.asked_for(own), model="convnet"), own.reference, 0.5),
        )
        folder = tmp_path / "generator"
        job = LoadJob(target=target, reference=convnet.reference, phases=(trial,), mix=asked, folder=folder)
        run_phases(job, on_event=lambda _: None, check=running.check)
    values = json.loads((tmp_path / "trial" / "trial.json").read_text())
    assert values["checked"] == values["requests"]["sent"] > 60
    assert 0.35 < values["wrong"] / values["checked"] < 0.65
    assert values["errors"] == {"wrong_answer": values["wrong"]}
