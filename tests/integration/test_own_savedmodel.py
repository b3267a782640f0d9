"""A model whose source is not here, as a TorchScript file, an ONNX file, and a SavedModel that a user built in Keras:
each behind the real server that serves it, in one run."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from loadtest.analysis import summary
from models import architectures
from models import bundle as bundles
from models.bundle import Kind
from serving.engines import registry
from tests.components import require_program
from tests.integration.briefly import BRIEFLY
from tests.models import keras_port

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]
FLOATS = ["cast", "normalised", "transposed", "softmax"]  # what is around files of floats [N, C, H, W] -> logits


def test_files_of_one_model_come_to_a_report_each_on_its_server(tmp_path):
    require_program(registry.engine("triton"))
    torch.manual_seed(0)
    network = architectures.named("lenet").network(10).eval()
    keras_port.lenet(network.state_dict()).export(tmp_path / "port", verbose=False)
    example = torch.zeros(2, 3, 32, 32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # both are deprecated, and what such files are made with
        torch.jit.trace(network, example).save(str(tmp_path / "own-net.pt"))
        torch.onnx.export(
            network,
            (example,),
            str(tmp_path / "net.onnx"),
            input_names=["pixels"],
            output_names=["scores"],
            dynamic_axes={"pixels": {0: "batch"}, "scores": {0: "batch"}},
            dynamo=False,
        )
    command = [sys.executable, "-m", "loadtest", "compare", "--experiment", "smoke", "--input", "32x32x3", *BRIEFLY]
    command += ["--engines", "torchserve,tensorflow-serving,triton", "--set", "ladder.repetitions=1"]
    command += ["--torchscript", str(tmp_path / "own-net.pt")]
    command += ["--savedmodel", str(tmp_path / "port"), "--onnx", str(tmp_path / "net.onnx")]
    command += ["--artifacts", str(tmp_path / "artifacts"), "--results", str(tmp_path / "results")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = bundles.load(tmp_path / "artifacts" / "own_net" / "1").manifest
    around = {kind: manifest["own_files"][kind]["around"] for kind in Kind}
    assert around == {
        "torchscript": FLOATS,
        "onnx": ["renamed", *FLOATS],
        "savedmodel": ["renamed", "cast", "normalised", "softmax"],
    }
    exports = manifest["parity"]["exports"]
    assert [exports[kind]["top1_agreement"] for kind in Kind] == [1.0] * 3
    figures = summary.read(tmp_path / "results" / "latest")
    assert {kind: file.name for kind, file in figures.own_files.items()} == {
        Kind.TORCHSCRIPT: "own-net.pt",
        Kind.ONNX: "net.onnx",
        Kind.SAVEDMODEL: "port",
    }
    assert figures.parity.proven
    assert figures.parity.wire.keys() == {"pytorch", "tensorflow", "triton"}
    assert all((wire.max_abs_diff or 0.0) < 1e-4 for found in figures.parity.wire.values() for wire in found.values())
    assert len(figures.measurements) == 6  # three servers, two protocols
    assert all(item.error_ratio == 0 for item in figures.measurements)
    told = (tmp_path / "results" / "latest" / "report.md").read_text()
    for words in (
        "the user’s SavedModel",
        "the user’s TorchScript file",
        "the user’s file",
        "renames input and output, casts, scales the pixels and adds the softmax",
    ):
        assert words in told
