"""Every family of the house through every export, the parity gate, and both servers. Long by nature: VGG has 0.5 GB of
weights, six times in a bundle."""

from __future__ import annotations

import multiprocessing
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from loadtest.analysis import summary
from models import architectures, pipeline, recipe, training
from models import bundle as bundles
from models.progress import Progress
from serving import wire_parity
from serving.profile import ServingProfile
from serving.runtimes.process import launch

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1500)]
ROOT = Path(__file__).resolve().parents[2]
PROFILE = ServingProfile(max_batch_size=16)
# These leave memory for tests beside them.
SMALL = ("convnet", "lenet")


def _export(model: str, artifacts: Path) -> None:
    recipe.LARGE_IMAGES = 48
    pipeline.export(model, "digits", training.Settings(epochs=training.EPOCHS["digits"]), artifacts, None, Progress())


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(name, marks=[pytest.mark.beside] if name in SMALL else [])
        for name in sorted(architectures.ARCHITECTURES)
    ],
)
def test_passes_the_gate_and_wire_parity_on_its_servers(model, tmp_path):
    try:
        # In a process of its own, as make compare has it: VGG fills gigabytes, which the servers need afterwards.
        exporting = multiprocessing.get_context("spawn").Process(target=_export, args=(model, tmp_path))
        exporting.start()
        exporting.join()
        assert exporting.exitcode == 0
        bundle = bundles.load(tmp_path / model / "1")
        assert bundle.weights == ("trained" if bundle.input_shape == (32, 32, 3) else "seeded")
        figures = bundle.manifest["parity"]
        assert set(figures["exports"]) >= {"torchscript", "torch_export", "onnx", "savedmodel"}
        assert all(figure.get("top1_agreement", 1.0) == 1.0 for figure in figures["exports"].values())
        with np.load(bundle.reference) as reference:
            best = reference["probabilities"].argmax(axis=1)
        assert len(np.unique(best)) >= 5  # top-1 agreement says something: the best class is not always the same
        assert bundle.manifest["reference"]["images"] == len(best) == figures["samples"]
        for target in ("pytorch", "tensorflow"):
            with launch.start(target, bundle, PROFILE, tmp_path / target, startup_timeout_s=240) as running:
                found = wire_parity.check(running.target, bundle.reference)
            assert set(found) >= {"grpc", "rest"}
            assert all(agreement.samples == len(best) for agreement in found.values())
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)


def test_smoke_brings_a_large_model_to_a_valid_report_within_six_minutes(tmp_path):
    started = time.monotonic()
    command = [sys.executable, "-m", "loadtest", "compare", "--experiment", "smoke", "--model", "resnet18"]
    command += ["--artifacts", str(tmp_path / "artifacts"), "--results", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < 360
    assert "Untrained weights: speed and parity are real, accuracy is not." in done.stdout
    figures = summary.read(tmp_path / "results" / "latest")
    assert figures.weights == {"resnet18": "seeded"}
    assert figures.parity.proven
    assert len(figures.measurements) == 4  # two servers, two protocols
    assert all(item.valid and item.error_ratio == 0 for item in figures.measurements)
    assert max(item.offered_rate for item in figures.measurements) < 80  # what smoke asks of a small model
