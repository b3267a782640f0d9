"""The AOTInductor package, compiled by this machine's real compiler."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from models import aot_inductor, parity, torch_export, training
from models import bundle as bundles
from models.bundle import Bundle
from models.problem import Problem
from tests.components import require
from tests.models.resnet_tiny import untrained

pytestmark = [pytest.mark.slow, pytest.mark.beside]

ROOT = Path(__file__).resolve().parents[2]


def _command(artifacts: Path) -> list[str]:
    return [sys.executable, "-m", "models", "export", "--dataset", "digits", "--artifacts", str(artifacts), "--aot"]


@pytest.fixture
def checkpoints(artifacts, tmp_path) -> Path:
    """A folder of artifacts with a trained model and no bundle."""
    shutil.copytree(artifacts / "convnet" / "checkpoints", tmp_path / "convnet" / "checkpoints")
    return tmp_path


def test_no_compiler_is_one_line_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "/nowhere/c++")
    assert aot_inductor.compiler() is None
    done = subprocess.run(_command(tmp_path), cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    message = "error: --aot: no C++ compiler (/nowhere/c++ does not start); install g++, or name another in CXX\n"
    assert done.stderr == message
    assert list(tmp_path.iterdir()) == []


def test_a_compiler_that_fails_is_quoted(bundle, tmp_path, monkeypatch):
    compiler = tmp_path / "broken-c++"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo "broken 1.0" && exit\necho "no space left" >&2\nexit 1\n'
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    package = tmp_path / "package" / "model.pt2"
    with pytest.raises(Problem, match=r"AOTInductor could not compile model.pt2 with broken 1.0; export") as caught:
        aot_inductor.export(bundle.program, package)
    assert "no space left" in "\n".join(caught.value.details)
    assert not package.exists()


def test_a_package_for_another_cpu_is_never_loaded(tmp_path):
    with pytest.raises(Problem, match=r"model.pt2: compiled for riscv64 DEFAULT, and this is .*; export with --aot"):
        aot_inductor.load(tmp_path / "model.pt2", made_for="riscv64 DEFAULT")


def test_stopping_the_export_stops_the_compiler(checkpoints):
    require("g++")
    with subprocess.Popen(_command(checkpoints), cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            for line in process.stderr:
                if "compiling with" in line:
                    break
            while not (started := psutil.Process(process.pid).children(recursive=True)):
                assert process.poll() is None
            process.terminate()
            assert process.wait(timeout=30) == 130
            assert process.stderr.read().splitlines()[-1] == "stopped"
        finally:
            process.kill()
    _, alive = psutil.wait_procs(started, timeout=10)
    assert alive == []
    assert [path.name for path in (checkpoints / "convnet").iterdir()] == ["checkpoints"]


@pytest.mark.exhaustive
def test_the_package_passes_the_gate_and_its_bundle_is_reused(artifacts, tmp_path):
    require("g++")
    shutil.copytree(artifacts, tmp_path / "artifacts")

    def run(*command):
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)

    first = run(*_command(tmp_path / "artifacts"))
    assert first.returncode == 0, first.stderr
    assert {line.split()[0] for line in first.stderr.splitlines()} == {"export", "parity"}  # no library's remarks
    folder = tmp_path / "artifacts" / "convnet" / "2"
    assert first.stdout == f"{folder}\n"
    bundle = bundles.load(folder)
    assert bundle.compiled_for == aot_inductor.cpu()
    assert bundle.manifest["aot_inductor"]["compiler"] == aot_inductor.compiler()
    figures = bundle.manifest["parity"]["exports"]["aot_inductor"]
    assert figures["max_abs_diff"] <= 1e-5
    assert figures["top1_agreement"] == 1.0
    again = run(*_command(tmp_path / "artifacts"))
    assert again.stderr.split() == ["export", "reused", str(folder)]
    verified = run(sys.executable, "-m", "models", "verify", str(folder))
    assert "aot_inductor" in verified.stderr, verified.stderr

    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["aot_inductor"]["cpu"] = "riscv64 DEFAULT"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    elsewhere = run(sys.executable, "-m", "models", "verify", str(folder))
    assert elsewhere.returncode == 1
    assert "compiled for riscv64 DEFAULT" in elsewhere.stderr.splitlines()[-1]


@pytest.mark.exhaustive
def test_a_deeper_network_compiles_and_takes_any_batch_size(tmp_path):
    require("g++")
    classifier = untrained()
    bundle = Bundle(tmp_path, {"model": "resnet-tiny", "version": 7, "aot_inductor": {"cpu": aot_inductor.cpu()}})
    torch_export.export(classifier, bundle.program)
    aot_inductor.export(bundle.program, bundle.compiled_program)
    predict = parity.RUNNERS["aot_inductor"](bundle)
    images = np.random.default_rng(5).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)
    expected = training.predict(classifier, images)
    for size in (1, 3, 70):
        np.testing.assert_allclose(predict(images[:size]), expected[:size], atol=1e-5)

    other = untrained()
    with torch.no_grad():
        other.network[-1].bias += torch.arange(10) / 10
    with pytest.raises(Problem, match=r"parity: aot_inductor .* sample 0 .* a compiled package shows no layer outputs"):
        raise parity._difference(
            "aot_inductor", bundle, other, images, parity.compare(predict(images), training.predict(other, images))
        )
