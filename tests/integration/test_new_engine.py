"""An engine of the user's own, from one folder and one entry in the registry, with no other file touched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from serving import wire_parity
from serving.engines import registry
from serving.profile import ServingProfile
from serving.runtimes.process import launch

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder outside of the repository that holds the engine's, and the variables that make it known."""
    shutil.copytree(Path(__file__).parent / "tiny_engine", tmp_path / "plugins" / "users_own_engine")
    monkeypatch.setenv("TANDEM_ENGINES", "users_own_engine")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "plugins"))
    monkeypatch.syspath_prepend(tmp_path / "plugins")
    yield tmp_path
    sys.modules.pop("users_own_engine", None)
    registry._load.cache_clear()
    registry._further.cache_clear()


def test_it_is_started_and_serves_the_same_model_over_its_own_protocols(elsewhere, bundle):
    with launch.start("onnx", bundle, ServingProfile(threads=2), elsewhere / "server") as running:
        target = running.target
        assert (target.name, target.engine, target.metrics) == ("onnx", "tiny-onnx", None)
        assert {knob.name: knob.value for knob in target.knobs if knob.native_key} == {"threads": 2}
        found = wire_parity.check(target, bundle.reference)
        assert set(found) == {"grpc", "rest"}
        assert all(one.top1_agreement == 1.0 for one in found.values())
    assert not psutil.pid_exists(running.process.pid)


def test_the_command_line_knows_it(elsewhere, bundle):
    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", *arguments]
        return subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True).stdout

    assert "--onnx-grpc-port" in run("serving", "serve", "--help")
    folder = str(elsewhere / "parity")
    shown = run("serving", "parity", "--bundle", str(bundle.folder), "--target", "onnx", "--folder", folder)
    assert [line.split()[:4] for line in shown.splitlines()] == [
        ["onnx", "tiny-onnx", "convnet", "grpc"],
        ["onnx", "tiny-onnx", "convnet", "rest"],
    ]
    times = run("serving.engines.model_time", str(bundle.folder), "tiny-onnx", "--batches", "2", "--seconds", "0.01")
    assert times.startswith('{"ms":{"2":')


EXPERIMENT = """
name = "newcomer"
dataset = "digits"
scenarios = ["ladder"]
targets = ["tensorflow", "onnx", "onnx-threads"]
ladder = { rates = { grpc = [40.0], rest = [40.0] }, repetitions = 1, duration_s = 1.0, lead_in_s = 0.25 }
[warm_up]
window_s = 0.25
min_s = 0.5
max_s = 2.0
settle_s = 0.0
min_requests = 0
tolerance = 0.5
[[target]]
name = "onnx-threads"
engine = "tiny-onnx"
profile = { threads = 2 }
"""


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_it_is_compared_with_another_in_one_experiment_up_to_the_report(elsewhere, artifacts):
    """Three targets: the stand-in, and the newcomer twice with different profiles."""
    experiment = elsewhere / "newcomer.toml"
    experiment.write_text(EXPERIMENT)
    folders = ["--artifacts", str(artifacts), "--results", str(elsewhere / "results")]
    command = [sys.executable, "-m", "loadtest", "compare", "--experiment", str(experiment), *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=270, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (path for path in (elsewhere / "results").iterdir() if not path.is_symlink())
    summary = json.loads((run / "summary.json").read_text())
    targets = {target["name"]: target["engine"] for target in summary["targets"]}
    assert targets["onnx"] == targets["onnx-threads"] == "tiny-onnx"
    assert list(targets) == ["tensorflow", "onnx", "onnx-threads"]
    measured = {(one["target"], one["protocol"]) for one in summary["measurements"] if one["trials"]}
    assert measured == {(name, protocol) for name in targets for protocol in ("grpc", "rest")}
    assert summary["parity"]["proven"] is True
    page = (run / "report.html").read_text()
    assert all(text in page for text in ("Tiny ONNX", "onnx-threads", "Tiny ONNX is made for a test."))
