"""Where a SavedModel leaves an ONNX graph: one that the importer wrote, and a port written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import onnx_bisection, savedmodel
from models.tensorflow_quietly import tf

RANDOM = np.random.default_rng(6)
KERNELS = [RANDOM.normal(size=size).astype(np.float32) / 3 for size in ((4, 3, 3, 3), (4, 4, 3, 3), (4, 4, 1, 1))]
HEAD = RANDOM.normal(size=(4, 5)).astype(np.float32)
IMAGES = RANDOM.integers(0, 256, (2, 9, 8, 3), dtype=np.uint8)


def _onnx(path: Path, second: np.ndarray = KERNELS[1]) -> Path:
    """Two convolutions and a shortcut, as in a residual network."""
    constants = {"k0": KERNELS[0], "k1": second, "k2": KERNELS[2], "head": HEAD, "scale": np.array(255, np.float32)}
    pads = {"pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "scale"], ["scaled"], "scaling"),
        helper.make_node("Transpose", ["scaled"], ["x"], "layout", perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "k0"], ["a"], "first", strides=[2, 2], **pads),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("Conv", ["b", "k1"], ["c"], "second", **pads),
        helper.make_node("Conv", ["b", "k2"], ["d"], "shortcut"),
        helper.make_node("Add", ["c", "d"], ["e"], "join"),
        helper.make_node("GlobalAveragePool", ["e"], ["f"], "pool"),
        helper.make_node("Flatten", ["f"], ["g"], "flatten"),
        helper.make_node("MatMul", ["g", "head"], ["logits"], "head"),
        helper.make_node("Softmax", ["logits"], ["probabilities"], "softmax"),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 9, 8, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)
    return path


class Port(tf.Module):
    """The network as a user ports it to TensorFlow, with variables and TensorFlow's own padding where told so."""

    def __init__(self, same: bool) -> None:
        super().__init__()
        self.padding = "SAME" if same else [[0, 0], [1, 1], [1, 1], [0, 0]]
        self.kernels = [tf.Variable(kernel.transpose(2, 3, 1, 0)) for kernel in KERNELS]
        self.head = tf.Variable(HEAD)

    @tf.function(input_signature=[tf.TensorSpec([None, 9, 8, 3], tf.uint8, "images")])
    def __call__(self, images):
        first, second, shortcut = self.kernels
        x = tf.nn.relu(tf.nn.conv2d(tf.cast(images, tf.float32) / 255.0, first, 2, self.padding))
        x = tf.nn.conv2d(x, second, 1, "SAME") + tf.nn.conv2d(x, shortcut, 1, "VALID")
        return {"probabilities": tf.nn.softmax(tf.reduce_mean(x, [1, 2]) @ self.head)}


def test_an_imported_graph_agrees_with_its_source(tmp_path):
    path = _onnx(tmp_path / "model.onnx")
    savedmodel.export(path, tmp_path / "saved")
    assert onnx_bisection.first_difference(path, tmp_path / "saved", IMAGES, 1e-4) is None


def test_the_first_node_and_both_values_are_named(tmp_path):
    wrong = KERNELS[1].copy()
    wrong[2, 1, 1, 1] += 0.5
    savedmodel.export(_onnx(tmp_path / "wrong.onnx", wrong), tmp_path / "saved")
    path = _onnx(tmp_path / "model.onnx")
    found = onnx_bisection.first_difference(path, tmp_path / "saved", IMAGES, 1e-4)
    assert found is not None
    assert (found.operator, found.node, found.value, found.place[1]) == ("Conv", "second", "c", 2)
    (before, after) = (
        onnx_bisection.onnx_values(onnx.load(tmp_path / name), IMAGES)["c"] for name in ("model.onnx", "wrong.onnx")
    )
    assert found.in_onnx == pytest.approx(before[found.place], abs=1e-5)
    assert found.in_savedmodel == pytest.approx(after[found.place], abs=1e-5)
    assert found.max_abs_diff == pytest.approx(np.abs(after - before).max(), rel=1e-3)
    assert found.words().startswith(f"node second (Conv) is the first to differ: c{list(found.place)} is ")


@pytest.mark.parametrize(("same", "layer"), [(False, None), (True, "first")])
def test_a_port_with_one_padding_wrong_is_told_which_layer(tmp_path, same, layer):
    port = Port(same)
    tf.saved_model.save(port, str(tmp_path / "port"), signatures=port.__call__)
    found = onnx_bisection.first_difference(_onnx(tmp_path / "model.onnx"), tmp_path / "port", IMAGES, 1e-4)
    assert (found.node if found else None) == layer
