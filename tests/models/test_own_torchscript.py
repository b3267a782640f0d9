"""A model that comes as a TorchScript file, an ONNX file, or both: what it takes is found out, what cannot be served is
refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import nn

from models import onnx_export, own_files, own_torchscript, pipeline, savedmodel, torchscript, training
from models.bundle import Around, Weights
from models.declaration import Output, Preprocessing
from models.own_onnx import OwnOnnx
from models.problem import Problem
from models.progress import Progress
from models.recipe import Own
from models.training import Settings
from tests.models import keras_port

pytestmark = [pytest.mark.slow, pytest.mark.beside]

IMAGES = keras_port.images()
SHAPE = (32, 32, 3)
SCALED = Preprocessing(scale=1.0, mean=keras_port.MEAN, std=keras_port.STD)


class _Head(nn.Module):
    """Two classes told by the mean of the picture; ``extra`` is added."""

    def __init__(self, extra: nn.Module | None = None) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.extra = extra or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.extra(self.linear(x.mean(dim=(2, 3))))


def _save(folder: Path, network: nn.Module, example: torch.Tensor, *, script: bool = False) -> Path:
    path = folder / "own-net.pt"
    made = torch.jit.script(network) if script else torch.jit.trace(network, example, check_trace=False)
    made.save(str(path))
    return path


def _read(path, shape=SHAPE, preprocessing=None, output=None):
    return own_torchscript.read(own_files.torchscript(path), shape, preprocessing, output)


@pytest.fixture(scope="module")
def side():
    return keras_port.classifier()


@pytest.fixture(scope="module")
def file(side, tmp_path_factory):
    """The network alone: floats [N, 3, 32, 32] to logits."""
    return _save(tmp_path_factory.mktemp("file"), side.network, torch.zeros(2, 3, 32, 32))


@pytest.fixture(scope="module")
def expected(side):
    return training.predict(side, IMAGES)


def test_a_network_for_floats_is_put_behind_the_declared_preprocessing(file, expected):
    network = _read(file, preprocessing=SCALED)
    assert (network.classes, network.weights) == (5, Weights.FILE)
    assert network.around == (Around.CAST, Around.NORMALISED, Around.TRANSPOSED, Around.SOFTMAX)
    np.testing.assert_allclose(training.predict(network.classifier, IMAGES), expected, atol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_network_that_speaks_the_wire_is_left_as_it_is(side, expected, tmp_path, frozen):
    traced = torch.jit.trace(side, side.example())
    (torch.jit.freeze(traced) if frozen else traced).save(str(tmp_path / "wire.pt"))
    network = _read(tmp_path / "wire.pt")
    assert network.around == ()
    np.testing.assert_allclose(training.predict(network.classifier, IMAGES), expected, atol=1e-5)


def test_logits_on_the_wire_get_a_softmax(side, expected, tmp_path):
    class Logits(nn.Module):
        def __init__(self):
            super().__init__()
            self.side = side

        def forward(self, images):
            return self.side.logits(images)

    path = _save(tmp_path, Logits(), side.example())
    network = _read(path, output=Output.LOGITS)
    assert network.around == (Around.SOFTMAX,)
    np.testing.assert_allclose(training.predict(network.classifier, IMAGES), expected, atol=1e-5)
    with pytest.raises(Problem, match=r"output = 'probabilities', and a row .* use output = 'logits'"):
        _read(path)


class _Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


def _nan(folder):
    network = _Head().eval()
    with torch.no_grad():
        network.linear.weight[0, 0] = float("nan")
    return _save(folder, network, torch.zeros(2, 3, 32, 32))


def _state_dict(folder):
    torch.save(_Head().state_dict(), folder / "own.pt")
    return folder / "own.pt"


def _truncated(folder):
    path = _save(folder, _Head(), torch.zeros(2, 3, 32, 32))
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _hollow(folder):
    path, hollow = _save(folder, _Head(), torch.zeros(2, 3, 32, 32)), folder / "hollow.pt"
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(hollow, "w") as written:
        for name in archive.namelist():
            if not name.endswith("constants.pkl"):
                written.writestr(name, archive.read(name))
    return hollow


REFUSED = {
    "another network": (lambda folder: _save(folder, nn.Conv2d(3, 4, 3), torch.zeros(2, 3, 32, 32)), r"gives \["),
    "NaN": (_nan, "holds NaN"),
    "a state dict": (_state_dict, r"a checkpoint \(use CHECKPOINT=\) and no TorchScript archive"),
    "a truncated file": (_truncated, "not a TorchScript archive, or a truncated one"),
    "a damaged file": (_hollow, "not a TorchScript archive, or a damaged one"),
    "nothing": (lambda folder: folder / "none.pt", "no such file"),
    "state": (lambda folder: _save(folder, _Head(_Counting()).eval(), torch.zeros(2, 3, 32, 32), script=True), "calls"),
    "one channel": (
        lambda folder: _save(folder, nn.Sequential(nn.Conv2d(1, 2, 32), nn.Flatten()), torch.zeros(2, 1, 32, 32)),
        r"fails on a batch of 3 with INPUT=32x32x3: RuntimeError: Given groups=1.* expected .* 1 channels",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_in_one_line(name, tmp_path):
    write, message = REFUSED[name]
    with pytest.raises(Problem, match=message) as raised:
        _read(write(tmp_path))
    assert str(raised.value).startswith("TORCHSCRIPT=")


def test_the_size_of_the_images_must_be_said(file):
    with pytest.raises(Problem, match=r"own-net.pt: say the size of its images, as INPUT=224x224x3"):
        _read(file, shape=None)


def _pictures(folder: Path) -> Path:
    folder.mkdir()
    for number, pixels in enumerate(IMAGES[:12]):
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def _export(tmp_path, **own):
    given = Own(images=tmp_path / "pictures", input=SHAPE, preprocessing=SCALED, **own)
    return pipeline.export("convnet", "digits", Settings(), tmp_path / "artifacts", None, Progress(), own=given)


def test_a_torchscript_file_alone_becomes_a_bundle(file, expected, tmp_path):
    _pictures(tmp_path / "pictures")
    bundle = _export(tmp_path, torchscript=file)
    assert (bundle.model, bundle.weights) == ("own_net", Weights.FILE)
    assert bundle.own_files["torchscript"]["name"] == "own-net.pt"
    exports = bundle.manifest["parity"]["exports"]
    assert set(exports) == {"pytorch", "torchscript", "onnx", "savedmodel"}  # torch.export takes no TorchScript
    assert max(figure.get("max_abs_diff", 0.0) for figure in exports.values()) < 1e-5
    served = torchscript.load(bundle.torchscript)(torch.from_numpy(IMAGES)).detach().numpy()
    np.testing.assert_allclose(served, expected, atol=1e-5)
    pipeline.verify(bundle, Progress())
    assert _export(tmp_path, torchscript=file).folder == bundle.folder  # reused


def test_onnx_beside_torchscript_is_what_the_savedmodel_is_made_of(side, file, expected, tmp_path):
    _pictures(tmp_path / "pictures")
    own = tmp_path / "own.onnx"
    batch = {"x": {0: "batch"}, "y": {0: "batch"}}
    options = {"dynamo": False, "dynamic_axes": batch, "input_names": ["x"], "output_names": ["y"]}
    with onnx_export._quiet():
        torch.onnx.export(side.network, (torch.zeros(2, 3, 32, 32),), str(own), **options)
    bundle = _export(tmp_path, torchscript=file, onnx=own)
    assert set(bundle.own_files) == {"torchscript", "onnx"}
    assert bundle.own_files["onnx"]["around"] == ["renamed", "cast", "normalised", "transposed", "softmax"]
    answers = savedmodel.load(bundle.savedmodel / "1")(IMAGES)
    np.testing.assert_allclose(answers, expected, atol=1e-5)

    other = onnx.load(str(own))
    for tensor in other.graph.initializer:
        if tensor.name.endswith("fc.bias"):
            tensor.CopyFrom(
                numpy_helper.from_array(numpy_helper.to_array(tensor) + np.arange(5, dtype="f"), tensor.name)
            )
    onnx.save(other, str(own))
    with pytest.raises(Problem, match=r"ONNX=own.onnx is not the model of the PyTorch side: sample 0 of the reference"):
        _export(tmp_path, torchscript=file, onnx=own)


def test_onnx_alone_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "own.onnx").write_bytes(b"")
    with pytest.raises(Problem, match=r"TorchServe needs the same model in PyTorch, .* TORCHSCRIPT=file.pt"):
        _export(tmp_path, onnx=tmp_path / "own.onnx")
    assert not (tmp_path / "artifacts").exists()


def _graph(
    folder: Path,
    given: tuple,
    *,
    kind: int = TensorProto.FLOAT,
    inputs: int = 1,
    nan: bool = False,
    operator: str = "Identity",
    opset: int = 18,
) -> Path:
    """The mean of each channel of float images, times two weights: [N, 2]."""
    weights = np.ones((3, 2), np.float32)
    weights[0, 0] = np.nan if nan else 1
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["f"], ["p"]),
        helper.make_node("Flatten", ["p"], ["q"]),
        helper.make_node(operator, ["q"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    names = ["x", "z"][:inputs]
    graph = helper.make_graph(
        nodes,
        "own",
        [helper.make_tensor_value_info(name, kind, given) for name in names],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.save(made, str(folder / "own.onnx"))
    return folder / "own.onnx"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"given": ["n", 3, 33, 47]}, r"input x is \[\?, 3, 33, 47\], and the model's images come as \[N, 3, 32, 32\]"),
        ({"given": [1, 3, 32, 32]}, "takes batches of 1 alone; export it with a free batch size"),
        ({"given": ["n", 3, 32, 32], "inputs": 2}, r"has 2 inputs \(x, z\)"),
        ({"given": ["n", 3, 32, 32], "kind": TensorProto.INT64}, "input x is int64; use uint8 or float32"),
        ({"given": ["n", 3, 32, 32], "nan": True}, "weights w hold NaN"),
        (
            {"given": ["n", 3, 32, 32], "operator": "Hardmax"},
            r"ONNX operator Hardmax \(node r, opset 18\): unknown to the SavedModel importer; build the model of oper",
        ),
        (
            {"given": ["n", 3, 32, 32], "opset": 12},
            r"opset 12\): this opset is too old; export the model with",
        ),
        ({"given": ["n", 3, 32, 32]}, "output y has 2 classes, and the PyTorch side has 5"),
    ],
)
def test_an_onnx_file_that_does_not_fit_is_refused_in_one_line(side, tmp_path, options, message):
    path = _graph(tmp_path, **options)
    with pytest.raises(Problem, match=message) as raised:
        OwnOnnx(own_files.onnx(path), side, IMAGES, 5)
    assert str(raised.value).startswith(f"ONNX={path}: ")


def test_an_onnx_file_gets_the_preprocessing_of_the_pytorch_side(tmp_path):
    """Resized with antialias, cropped, in BGR, normalised: as PyTorch does it, to 1e-5."""
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 4)).eval()
    preprocessing = Preprocessing(preset="imagenet", resize=(24, 20), centre_crop=(17, 16), channel_order="bgr")
    file = _save(tmp_path, network, torch.zeros(2, 3, 17, 16))
    side = _read(file, preprocessing=preprocessing).classifier
    own = tmp_path / "own.onnx"
    with onnx_export._quiet():
        program = torch.onnx.export(
            nn.Sequential(nn.AvgPool2d((9, 8), (8, 8)), nn.Flatten(), network[2]),
            (torch.zeros(2, 3, 17, 16),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
        )
        program.save(str(own))
    made = OwnOnnx(own_files.onnx(own), side, IMAGES, 4)
    made.write(tmp_path / "served.onnx")
    import onnxruntime

    session = onnxruntime.InferenceSession(str(tmp_path / "served.onnx"), providers=["CPUExecutionProvider"])
    answers = session.run(["probabilities"], {"images": IMAGES})[0]
    np.testing.assert_allclose(answers, training.predict(side, IMAGES), atol=1e-5)
