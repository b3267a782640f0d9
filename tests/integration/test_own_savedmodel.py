"""A SavedModel that a user built in Keras, beside a house architecture with their checkpoint, on the real servers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from loadtest.analysis import summary
from models import architectures
from models import bundle as bundles
from tests.integration.briefly import BRIEFLY
from tests.models import keras_port

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


def test_a_keras_port_comes_to_a_report(tmp_path):
    torch.manual_seed(0)
    network = architectures.named("lenet").network(10)
    torch.save(network.state_dict(), tmp_path / "lenet.pth")
    keras_port.lenet(network.state_dict()).export(tmp_path / "port", verbose=False)
    command = [sys.executable, "-m", "loadtest", "compare", "--experiment", "smoke", "--model", "lenet", *BRIEFLY]
    command += ["--checkpoint", str(tmp_path / "lenet.pth"), "--savedmodel", str(tmp_path / "port")]
    command += ["--artifacts", str(tmp_path / "artifacts"), "--results", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = bundles.load(tmp_path / "artifacts" / "lenet" / "1").manifest
    own = manifest["own_files"]["savedmodel"]
    assert own["around"] == ["renamed", "cast", "normalised", "softmax"]
    assert manifest["parity"]["exports"]["savedmodel"]["top1_agreement"] == 1.0
    figures = summary.read(tmp_path / "results" / "latest")
    assert figures.own_files[bundles.Kind.SAVEDMODEL].name == "port"
    assert figures.parity.proven
    assert len(figures.measurements) == 4  # two servers, two protocols
    assert all(item.error_ratio == 0 for item in figures.measurements)
    told = (tmp_path / "results" / "latest" / "report.md").read_text()
    assert "the user’s SavedModel" in told
    assert "renames input and output, casts, scales the pixels and adds the softmax" in told
