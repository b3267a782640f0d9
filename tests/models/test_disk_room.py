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


# A file-size limit stands for a disk that is full at that file.
LIMITED = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[2:]])"
)


def _limited(limit: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Python with this command, whose files may be no larger."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.parametrize(
    "limit",
    [pytest.param(400_000, id="checkpoint"), pytest.param(530_000, id="torch.export", marks=pytest.mark.exhaustive)],
)
def test_a_full_disk_is_one_line_and_leaves_nothing(limit, artifacts, tmp_path):
    shutil.copytree(artifacts / CHECKPOINTS, tmp_path / CHECKPOINTS)
    done = _limited(limit, "-m", "models", "export", "--dataset", "digits", "--artifacts", str(tmp_path))
    assert done.returncode == 1, done.stderr
    *progress, line = done.stderr.splitlines()
    assert {one.split()[0] for one in progress} <= {"export"}, done.stderr
    refused = "no file may be as large (ulimit -f): allow more; then give the same command again"
    assert line == f"error: {tmp_path}/convnet/1: {refused}"
    assert [path.name for path in (tmp_path / "convnet").iterdir()] == ["checkpoints"]


@pytest.mark.exhaustive
@pytest.mark.beside
def test_tensorflow_s_words_for_a_full_disk_are_known(bundle, tmp_path):
    code = "import pathlib, sys; from models import problem, savedmodel; "
    code += "sys.exit(problem.run(lambda: savedmodel.export(*map(pathlib.Path, sys.argv[1:]))))"
    done = _limited(200_000, "-c", code, str(bundle.onnx), str(tmp_path / "1"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: a file could not be written (")
    assert line.endswith("no file may be as large (ulimit -f): allow more; then give the command again")


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
