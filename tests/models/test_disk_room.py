"""A disk without room for a bundle is said before anything is made; one that is full in a line, with nothing left."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models import architectures, disk_room, pipeline, recipe, training, weights
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress
from models.recipe import Own
from models.training import Settings

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINTS = Path("convnet") / "checkpoints"


def _free(monkeypatch, size: float) -> None:
    real = shutil.disk_usage

    def usage(path):
        return real(path)._replace(free=int(size))

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_a_disk_without_room_is_said_before_any_training(monkeypatch, tmp_path):
    _free(monkeypatch, 2e6)
    monkeypatch.setattr(weights, "obtain", lambda *_: pytest.fail("it went on"))
    with pytest.raises(Problem) as caught:
        pipeline.export("convnet", "digits", Settings(epochs=2), tmp_path / "a" / "b", None, Progress())
    assert str(caught.value) == (
        f"{tmp_path / 'a' / 'b'}: 2.0 MB are free there, and the bundle of convnet takes 3.1 MB at least: make room; "
        "then give the same command again"
    )
    assert list(tmp_path.iterdir()) == []


def test_no_bundle_is_refused_that_would_fit(bundle, monkeypatch, tmp_path):
    made = recipe.read("convnet", "digits", Settings(), Own())
    size = sum(path.stat().st_size for path in bundle.folder.rglob("*") if path.is_file())
    _free(monkeypatch, size)
    disk_room.require(tmp_path, made, 10, Precision.FP32)
    _free(monkeypatch, 0.7 * size)
    with pytest.raises(Problem):
        disk_room.require(tmp_path, made, 10, Precision.FP32)
    disk_room.require(tmp_path, made, 10, Precision.BF16)  # four of six copies are half as large


@pytest.mark.parametrize("model", ["vgg11", "lenet"])
def test_weights_that_are_yet_to_be_made_are_counted_without_making_them(model, monkeypatch, tmp_path):
    with torch.device("meta"):
        network = architectures.named(model).network(10)
    expected = sum(tensor.nbytes for tensor in network.state_dict().values())
    _free(monkeypatch, 4.9 * expected)
    with pytest.raises(Problem, match=f"the bundle of {model} takes"):
        disk_room.require(tmp_path, recipe.read(model, "digits", Settings(), Own()), 10, Precision.FP32)


# A file-size limit stands for a disk that is full at that file: PyTorch's checkpoint, the ONNX file, TensorFlow's.
@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.parametrize(
    ("limit", "file"),
    [
        (400_000, "convnet/1"),
        pytest.param(530_000, "convnet/1", marks=pytest.mark.exhaustive),
        pytest.param(535_000, "saved_model.pb", marks=pytest.mark.exhaustive),
    ],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(limit, file, artifacts, tmp_path):
    shutil.copytree(artifacts / CHECKPOINTS, tmp_path / CHECKPOINTS)
    limited = "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
    limited += "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
    export = ("-m", "models", "export", "--dataset", "digits", "--artifacts", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", limited, str(limit), *export],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    *progress, line = done.stderr.splitlines()
    assert {one.split()[0] for one in progress} <= {"export"}, done.stderr
    assert line.startswith("error: ")
    assert file in line
    assert "no file may be as large (ulimit -f): allow more" in line
    assert [path.name for path in (tmp_path / "convnet").iterdir()] == ["checkpoints"]


def test_a_folder_that_was_made_for_a_bundle_goes_with_it(monkeypatch, tmp_path):
    """The first export of a model, which fails: no empty folder says that there is something."""
    monkeypatch.setattr(training, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    torch.save(architectures.named("lenet").network(10).state_dict(), tmp_path / "own.pth")
    with pytest.raises(OSError, match="No space left") as caught:
        pipeline.export(
            *("lenet", "digits", Settings(), tmp_path / "artifacts", None, Progress()),
            own=Own(checkpoint=tmp_path / "own.pth"),
        )
    assert caught.value.filename == str(tmp_path / "artifacts" / "lenet" / "1")
    assert [path.name for path in tmp_path.iterdir()] == ["own.pth"]
