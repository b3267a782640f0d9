"""One server that holds several models: a whole comparison of both real servers, and what a wrong model's answer is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from loadtest.compare import compare
from loadtest.experiment import Generator
from loadtest.generator.phases import Traffic
from loadtest.generator_process import run_phases
from models import bundle as bundles
from models.bundle import Bundle
from serving import launch
from serving.profile import ServingProfile

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = """
name = "several"
dataset = "digits"
models = { convnet = 0.7, lenet = 0.3 }
scenarios = ["ladder"]

[ladder]
rates = { grpc = [80.0], rest = [80.0] }
repetitions = 1
duration_s = 2.0
lead_in_s = 0.5

[warm_up]
window_s = 0.25
min_s = 1.0
max_s = 5.0
tolerance = 0.3
"""
# The page's count of predictions, by model, of each engine.
COUNTS = {
    "pytorch": r'^tandem_handler_seconds_count\{model="(\w+)",.*\} (\S+)$',
    "tensorflow": r'^:tensorflow:serving:request_latency_count\{model_name="(\w+)",.*\} (\S+)$',
}


@pytest.fixture(scope="module")
def both(artifacts, tmp_path_factory) -> tuple[Path, list[Bundle]]:
    """A folder of artifacts with a bundle of each of two architectures, and the bundles."""
    folder = tmp_path_factory.mktemp("both")
    shutil.copytree(artifacts / "convnet", folder / "convnet")
    command = [sys.executable, "-m", "models", "export", "--model", "lenet", "--dataset", "digits"]
    done = subprocess.run(
        [*command, "--artifacts", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder, [bundles.load(folder / name / "1") for name in ("convnet", "lenet")]


@pytest.mark.timeout(280)
def test_both_servers_answer_for_both_models_each_its_share(both, tmp_path, monkeypatch):
    pages: dict[str, str] = {}
    stop = launch.RunningTarget.stop

    def read_and_stop(running: launch.RunningTarget) -> None:
        if running.target.metrics and running.target.stack not in pages:
            with urllib.request.urlopen(running.target.metrics, timeout=10) as answer:
                pages[running.target.stack] = answer.read().decode()
        stop(running)

    monkeypatch.setattr(launch.RunningTarget, "stop", read_and_stop)
    experiment = tmp_path / "several.toml"
    experiment.write_text(EXPERIMENT)
    page = compare(str(experiment), {}, artifacts=both[0], results=tmp_path / "results")

    summary = json.loads((page.parent / "summary.json").read_text())
    assert summary["experiment"]["models"] == {"convnet": 0.7, "lenet": 0.3}
    assert "model" not in summary["experiment"]
    for target in summary["targets"]:
        assert target["models"] == [
            {"name": "convnet", "version": 1, "share": 0.7},
            {"name": "lenet", "version": 1, "share": 0.3},
        ]
    assert summary["parity"]["proven"], summary["parity"]["why_not_proven"]
    for model in ("convnet", "lenet"):
        evidence = summary["parity"]["by_model"][model]
        assert set(evidence["exports"]) == {"pytorch", "torchscript", "onnx", "savedmodel"}
        for stack in ("pytorch", "tensorflow"):
            for protocol in ("grpc", "rest"):
                assert evidence["wire"][stack][protocol]["max_abs_diff"] <= 1e-4
    assert len(summary["measurements"]) == 4
    for measurement in summary["measurements"]:
        assert measurement["valid"], measurement["why_not_valid"]
        parts = measurement["by_model"]
        for figure, total in measurement["requests"].items():
            assert sum(part["requests"][figure] for part in parts.values()) == total
        assert all(0 < part["latency_ms"]["p50"] <= part["latency_ms"]["p99"] for part in parts.values())
        # 160 requests: 48 ± 18 (three standard deviations) for lenet.
        assert parts["lenet"]["requests"]["sent"] == pytest.approx(0.3 * measurement["requests"]["sent"], abs=20)
    same = {
        protocol: {
            tuple(part["requests"]["scheduled"] for part in item["by_model"].values())
            for item in summary["measurements"]
            if item["protocol"] == protocol
        }
        for protocol in ("grpc", "rest")
    }
    assert all(len(found) == 1 for found in same.values())  # both targets are asked for the same

    for stack, counts in COUNTS.items():
        answered: dict[str, float] = {}
        for model, count in re.findall(counts, pages[stack], re.MULTILINE):
            answered[model] = answered.get(model, 0) + float(count)
        assert set(answered) == {"convnet", "lenet"}
        assert answered["lenet"] / sum(answered.values()) == pytest.approx(0.3, abs=0.04), (stack, answered)
    shown = page.read_text(encoding="utf-8")
    assert "Several models." in shown
    assert "Ten samples of" in shown


def test_an_answer_of_the_wrong_model_is_an_error(both, tmp_path):
    convnet, lenet = both[1]
    trial = {"kind": "open-loop", "id": "trial", "folder": str(tmp_path / "trial"), "protocol": "rest", "seed": 1}
    trial |= {"rate": 100, "duration_s": 1.0, "lead_in_s": 0.2, "check_share": 1.0}
    with launch.start("tensorflow", convnet, ServingProfile(), tmp_path / "server", beside=[lenet]) as running:
        target = running.target
        run_phases(
            target,
            convnet.reference,
            [trial],
            mix=[
                Traffic(target, convnet.reference, 0.5),
                # Asked for convnet, where lenet's answer is right.
                Traffic(target, lenet.reference, 0.5),
            ],
            folder=tmp_path / "generator",
            generator=Generator(),
            exporter_port=0,
            cores=(),
            on_event=lambda _: None,
            check=running.check,
        )
    values = json.loads((tmp_path / "trial" / "trial.json").read_text())
    assert values["checked"] == values["requests"]["sent"] > 60
    assert 0.4 < values["wrong"] / values["checked"] < 0.6
    assert values["errors"] == {"wrong_answer": values["wrong"]}
