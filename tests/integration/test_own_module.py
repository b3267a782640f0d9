"""A module of a user's own, outside the repository, from `make compare`'s command to a finished report on the real
servers; and every kind of preprocessing through every export."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from loadtest.analysis import summary
from models import bundle as bundles
from models import factories
from tests.integration.briefly import BRIEFLY
from tests.models import own_package

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


def _python(path: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command of Tandem's as make does, in its own folder; ``path``: PYTHONPATH, as it is given to make."""
    command = [sys.executable, "-m", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(path)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=500)


def test_a_package_outside_the_repository_comes_to_a_report(tmp_path, monkeypatch):
    model = own_package.write(tmp_path / "project", "shopnets")
    monkeypatch.syspath_prepend(tmp_path / "project")
    torch.save({"state_dict": factories.call(model, seed=3).state_dict()}, tmp_path / "small.pt")
    (tmp_path / "labels.txt").write_text("\n".join("abcdefg"))
    for number in range(40):
        kind = tmp_path / "pictures" / "abcdefg"[number % 7]
        kind.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (50, 60 + number, 3), np.uint8)
        Image.fromarray(pixels).save(kind / f"{number}.png")
    smoke = (ROOT / "experiments" / "smoke.toml").read_text()
    (tmp_path / "mine.toml").write_text(f"{smoke}\n[preprocessing]\npreset = '-1-1'\n")
    own = ("--model", model, "--checkpoint", tmp_path / "small.pt", "--input", "33x47x1")
    brought = ("--classes", tmp_path / "labels.txt", "--images", tmp_path / "pictures")
    places = ("--artifacts", tmp_path / "artifacts", "--results", tmp_path / "results")
    compare = ("loadtest", "compare", "--experiment", tmp_path / "mine.toml", *own, *brought, *places, *BRIEFLY)
    done = _python(tmp_path / "project", *compare)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ntrained" not in done.stdout
    figures = summary.read(tmp_path / "results" / "latest")
    assert figures.weights == {model: "checkpoint"}
    assert figures.parity.proven
    assert len(figures.measurements) == 4  # two servers, two protocols
    assert all(item.error_ratio == 0 for item in figures.measurements)  # valid or not, on a machine that others use
    assert {target.model for target in figures.targets} == {"small"}
    bundle = bundles.load(tmp_path / "artifacts" / "small" / "1")
    assert bundle.input_shape == (33, 47, 1)
    assert bundle.class_names == list("abcdefg")
    told = (tmp_path / "results" / "latest" / "report.md").read_text()
    assert model in told
    assert "33×47×1 images, pixels '-1-1'; the model gives logits" in told
    again = _python(tmp_path / "project", "models", "verify", *places[:2], "--model", model)
    assert again.returncode == 0, again.stderr
    assert "top-1 agreement 100.00%" in again.stderr


@pytest.mark.beside
@pytest.mark.parametrize(
    ("shape", "preprocessing"),
    [
        (
            (70, 60, 3),
            '{preset = "imagenet", resize = [50], centre_crop = [33, 47], channel_order = "bgr", layout = "nhwc"}',
        ),
        ((20, 20, 1), "{scale = 0.5, mean = [3], std = [70], resize = [33, 47]}"),
    ],
)
def test_preprocessing_is_the_same_in_every_export(shape, preprocessing, tmp_path):
    channels_last, gives_probabilities = "nhwc" in preprocessing, shape[2] == 1
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        f"        self.conv = nn.Conv2d({shape[2]}, 8, 3, 2)\n"
        "        self.head = nn.Linear(8 * 16 * 23, 10)\n"
        "    def forward(self, x):\n"
        f"        x = x.permute(0, 3, 1, 2) if {channels_last} else x\n"
        "        x = self.head(self.conv(x).relu().flatten(1))\n"
        f"        return x.softmax(1) if {gives_probabilities} else x\n"
    )
    size, output = "x".join(map(str, shape)), "probabilities" if gives_probabilities else "logits"
    command = ("models", "export", "--dataset", "digits", "--model", "nets:Net", "--input", size, "--output", output)
    done = _python(tmp_path, *command, f"--preprocessing={preprocessing}", "--artifacts", tmp_path / "artifacts")
    assert done.returncode == 0, done.stderr
    exports = bundles.load(tmp_path / "artifacts" / "Net" / "1").manifest["parity"]["exports"]
    assert set(exports) == {"pytorch", "torchscript", "torch_export", "onnx", "savedmodel"}
    assert all(figure.get("max_abs_diff", 0) < 1e-4 for figure in exports.values())
