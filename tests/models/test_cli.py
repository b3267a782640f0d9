from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from models import architectures, problem
from models import bundle as bundles
from models.__main__ import main
from tests.models import own_package

pytestmark = [pytest.mark.slow, pytest.mark.beside]

ROOT = Path(__file__).resolve().parents[2]


def _models(*arguments, **options):
    command = [sys.executable, "-m", "models", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120, **options)


@pytest.fixture
def models(monkeypatch, capfd):
    """As `_models`, inside this process: quicker, for what needs no process of its own."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["models", *map(str, arguments)])
        status = problem.run(main)
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    return run


def _fails(done):
    """The one line of a failure without a traceback."""
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_export_and_train_reuse_what_is_there(artifacts, models):
    again = _models("export", "--dataset", "digits", "--artifacts", artifacts)
    assert again.stdout == f"{artifacts / 'convnet' / '1'}\n"
    assert again.stderr.split() == ["export", "reused", str(artifacts / "convnet" / "1")]
    trained = models("train", "--dataset", "digits", "--artifacts", artifacts)
    assert trained.stdout == f"{artifacts}/convnet/checkpoints/digits-seed0-epochs2.pt\n"
    assert "reused" in trained.stderr


def test_export_is_quiet_and_reuses_the_checkpoint(artifacts, models, tmp_path):
    shutil.copytree(artifacts / "convnet" / "checkpoints", tmp_path / "convnet" / "checkpoints")
    done = models("export", "--dataset", "digits", "--artifacts", tmp_path)
    assert done.stdout == f"{tmp_path / 'convnet' / '1'}\n"
    steps = [line.split()[0] for line in done.stderr.splitlines()]
    assert set(steps) == {"export", "parity"}, done.stderr  # no training, and no library's remarks
    weights = [path / "convnet" / "1" / "checkpoint.pt" for path in (artifacts, tmp_path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_own_weights_and_own_unlabelled_pictures_become_a_bundle(models, tmp_path):
    torch.manual_seed(0)
    torch.save(architectures.named("lenet").network(5).state_dict(), tmp_path / "own.pth")
    (tmp_path / "pictures").mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{number}.png")
    own = ("--checkpoint", tmp_path / "own.pth", "--images", tmp_path / "pictures")
    declared = '--preprocessing={preset = "-1-1", resize = [40], centre_crop = [32], channel_order = "bgr"}'
    export = ("export", "--model", "lenet", *own, declared, "--artifacts", tmp_path / "artifacts")
    done = models(*export)
    assert done.returncode == 0, done.stderr
    made = bundles.load(Path(done.stdout.strip()))
    assert made.weights == "checkpoint"
    assert made.class_names == [f"class {number}" for number in range(5)]
    manifest = made.manifest
    assert manifest["dataset"]["name"] == "pictures"
    assert manifest["reference"] == {
        **{"images": 12, "of": 12, "folder": "pictures", "resized_from": None, "labelled": False},
    }
    assert {figure["accuracy"] for figure in manifest["parity"]["exports"].values()} == {None}
    assert manifest["training"]["preprocessing"] == {
        "input": None,
        "declared": {"preset": "-1-1", "resize": [40], "centre_crop": [32], "channel_order": "bgr"},
    }
    assert "reused" in models(*export).stderr
    verified = models("verify", made.folder)  # the steps before the network are found again
    assert "top-1 agreement 100.00%" in verified.stderr
    (tmp_path / "pictures" / "3.png").write_bytes(b"no picture")
    assert "3.png: no JPEG or PNG picture" in _fails(models(*export))
    assert bundles.versions(tmp_path / "artifacts", "lenet") == [1]


def test_a_module_of_the_user_s_own_becomes_a_bundle(models, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    model = own_package.write(tmp_path, "brought_package")
    (tmp_path / "labels.txt").write_text("\n".join("abcdefg"))
    export: tuple[object, ...] = ("export", "--dataset", "digits", "--model", model, "--input", "33x47x1")
    export += ("--classes", tmp_path / "labels.txt", "--artifacts", tmp_path / "artifacts")
    done = models(*export, "--preprocessing=-1-1")
    assert done.returncode == 0, done.stderr
    assert f"MODEL={model}, weights as the factory made them, 33x47x1 images, 7 classes" in done.stderr
    made = bundles.load(tmp_path / "artifacts" / "small" / "1")
    assert (made.model, made.weights, made.input_shape, made.classes) == ("small", "factory", (33, 47, 1), 7)
    own = made.manifest["training"]["own"]
    assert (own["factory"], own["output"]) == (model, "logits")
    assert own["preprocessing"] == {
        **{"mean": [127.5], "std": [127.5], "resize": None, "centre_crop": None},
        **{"channel_order": "rgb", "layout": "nchw"},
    }
    assert "reused" in models(*export, "--preprocessing=-1-1").stderr
    path = tmp_path / "brought_package" / "network.py"
    path.write_text(path.read_text().replace("16 * 4 * 6", "16 * 4 * 5"))
    monkeypatch.delitem(sys.modules, "brought_package.network")
    line = _fails(models(*export))
    assert f"MODEL={model}: fails on a batch of 3 with INPUT=33x47x1: RuntimeError: mat1 and mat2 shapes" in line
    assert f"({path}:18)" in line
    assert bundles.versions(tmp_path / "artifacts", "small") == [1]


def test_a_network_that_cannot_be_exported_is_one_line_and_leaves_nothing(models, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "branching_network.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.head = nn.Linear(3, 10)\n"
        "    def forward(self, x):\n"
        "        x = x.mean((2, 3))\n"
        "        return self.head(x if x.sum() > -1e9 else -x)\n"
    )
    export = ("export", "--dataset", "digits", "--model", "branching_network:Net", "--input", "8x8x3")
    done = models(*export, "--artifacts", tmp_path / "artifacts")
    weights, exported, error = done.stderr.splitlines()
    assert "weights as the factory made them" in weights
    assert exported.split() == ["export", "TorchScript", "and", "TorchServe", "archive"]
    assert error.startswith("error: MODEL=branching_network:Net: cannot be exported by torch.export: GuardOnDataDep")
    assert f"({tmp_path}/branching_network.py:8); forward must be one fixed computation of tensors" in error
    assert [path for path in (tmp_path / "artifacts").rglob("*") if path.is_file()] == []


def test_tensorflow_starts_without_a_word():
    done = subprocess.run(
        [sys.executable, "-c", "from models import savedmodel"], cwd=ROOT, capture_output=True, check=True
    )
    assert done.stdout + done.stderr == b""


def test_verify_runs_the_gate_again_and_finds_a_changed_byte(artifacts, models, tmp_path):
    shutil.copytree(artifacts, tmp_path / "copy")
    done = models("verify", "--artifacts", tmp_path / "copy")
    assert done.returncode == 0, done.stderr
    assert "top-1 agreement 100.00%" in done.stderr
    assert done.stdout == f"{tmp_path}/copy/convnet/1\n"
    archive = tmp_path / "copy" / "convnet" / "1" / "torchserve" / "convnet.mar"
    content = bytearray(archive.read_bytes())
    content[1000] ^= 1
    archive.write_bytes(content)
    line = _fails(models("verify", tmp_path / "copy" / "convnet" / "1", "--hashes-only"))
    assert "torchserve/convnet.mar: changed since the export" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "--dataset", "mnist"], "--dataset mnist: unknown; use one of cifar10, digits, fashion-mnist"),
        (["export", "--model", "vgg"], "--model vgg: unknown; use one of convnet"),
        (["train", "--dataset", "digits", "--epochs", "0"], "--epochs 0"),
        (["train", "--model", "nets:build"], "--model nets:build: a model of your own is trained by you; export it"),
        (["export", "--model", "nets:"], "model = 'nets:': use package.module:factory"),
        (["export", "--model", "n:f", "--input", "3x4"], "input = '3x4': use HEIGHTxWIDTHxCHANNELS"),
        (["export", "--model", "n:f", "--input", "8x8x3"], "MODEL=n:f: no module n, neither in the working folder nor"),
        (
            ["export", "--model", "lenet", "--input", "8x8x3"],
            "INPUT=8x8x3: lenet is trained on images of 32x32x3; leave INPUT out, or bring a CHECKPOINT",
        ),
        (
            ["export", "--model", "resnet18", "--input", "300x400x3"],
            "input = '300x400x3': resnet18 takes 224x224 images, and these would be 300x400; bring them to it, such as "
            "with resize = [224] and centre_crop = [224] in [preprocessing]",
        ),
        (["export", "--model", "lenet", "--output", "logits"], "OUTPUT=logits: lenet is a network of the house, which"),
        (["train", "--model", "vgg11", "--dataset", "digits"], "--model vgg11: too large to train here; export it"),
        (["export", "--model", "vgg11", "--checkpoint", "/nowhere"], "CHECKPOINT=/nowhere: no such file"),
        (["export", "--model", "vgg11", "--images", "/nowhere"], "IMAGES=/nowhere: no such folder"),
        (["export", "--savedmodel", "/nowhere"], "SAVEDMODEL=/nowhere: no such folder"),
        (["export", "--torchscript", "/nowhere", "--input", "8x8x3"], "TORCHSCRIPT=/nowhere: no such file"),
        (["export", "--onnx", "/nowhere"], "ONNX=/nowhere: no such file"),
        (["train", "--dataset", "cifar10", "--data-folder", "/nowhere"], "--data-folder /nowhere: no such folder"),
        (["verify"], "convnet: no bundle there; run python -m models export"),
    ],
)
def test_bad_input_is_one_line(arguments, message, models, tmp_path):
    assert message in _fails(models(*arguments, "--artifacts", tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_bad_input_shows_no_traceback():
    assert "no bundle there" in _fails(_models("verify", "/nowhere"))


@pytest.mark.parametrize("verb", ["train", "export", "verify"])
def test_every_verb_has_help(verb):
    done = _models(verb, "--help")
    assert done.returncode == 0
    assert "--artifacts" in done.stdout


def test_termination_while_training_leaves_nothing(tmp_path):
    command = [sys.executable, "-m", "models", "export", "--dataset", "digits", "--epochs", "500"]
    with subprocess.Popen(
        [*command, "--artifacts", tmp_path], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "images/s" in process.stderr.readline()
            started = time.monotonic()
            process.terminate()
            assert process.wait(timeout=30) == 130
            assert time.monotonic() - started < 15
            assert process.stderr.read().splitlines()[-1] == "stopped"
        finally:
            process.kill()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
