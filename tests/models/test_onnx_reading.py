"""Damaged and hostile ONNX files: each one line that names file, tensor or node, and the fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from models import onnx_reading, savedmodel
from models.problem import Problem

WEIGHTS = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)


def _model(sizes=("n", 2, 2, 3), weights=WEIGHTS, nodes=None, functions=()) -> onnx.ModelProto:
    nodes = nodes or [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"], "classifier"),
        helper.make_node("Softmax", ["logits"], ["probabilities"]),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, list(sizes))],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(weights, "w")],
    )
    opsets = [helper.make_opsetid("", 20), *([helper.make_opsetid("own", 1)] if functions else [])]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)


def _refused(path: Path, message: str) -> None:
    folder = path.parent / "saved"
    with pytest.raises(Problem, match=message) as caught:
        savedmodel.export(path, folder)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)
    assert not folder.exists()


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return folder / "model.onnx"


def test_a_whole_model_is_taken(tmp_path):
    savedmodel.export(_saved(_model(), tmp_path), tmp_path / "saved")
    images = np.random.default_rng(1).integers(0, 256, (2, 2, 2, 3), dtype=np.uint8)
    logits = images.reshape(2, 12).astype(np.float64) @ WEIGHTS
    expected = np.exp(logits - logits.max(axis=1, keepdims=True))
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(savedmodel.load(tmp_path / "saved")(images), expected, atol=1e-5)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_truncated_file_is_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "truncated.onnx"
    whole = _model().SerializeToString()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(Problem, match=r"truncated.onnx: not an ONNX (file|model), or a truncated one") as caught:
        onnx_reading.read(path)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_flipped_bytes_give_a_model_or_a_problem(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "flipped.onnx"
    whole = bytearray(_model().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(whole)
    try:
        savedmodel.Importer(onnx_reading.read(path))
    except Problem as problem:
        assert "\n" not in str(problem)


def test_a_name_that_would_break_the_line_is_shown_escaped(tmp_path):
    nodes = [helper.make_node("Nobody\nknows\x1b[31m", ["images"], ["probabilities"], "of\u2028two")]
    _refused(_saved(_model(nodes=nodes), tmp_path), r"Nobody\\nknows\\x1b\[31m \(node of\\u2028two, opset")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../secret.bin", r"model.onnx: external data '../secret.bin' of tensor w lies outside the model's folder"),
        ("/etc/passwd", r"'/etc/passwd' of tensor w lies outside the model's folder"),
        ("link.bin", r"'link.bin' of tensor w lies outside the model's folder"),
        ("", r"lies outside the model's folder"),
        ("absent.bin", r"'absent.bin' of tensor w is missing; put it beside the model"),
        ("short.bin", r"'short.bin' of tensor w ends before byte 144: it is truncated"),
    ],
)
def test_external_data_is_read_from_the_models_own_folder_alone(tmp_path, location, message):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "short.bin").write_bytes(WEIGHTS.tobytes()[:100])
    model = _model()
    (tensor,) = model.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "144")):
        tensor.external_data.add(key=key, value=value)
    _refused(_saved(model, folder), message)


def test_so_is_that_of_graphs_within_nodes(tmp_path):
    model = _model()
    tensor = numpy_helper.from_array(np.float32(1), "inner")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    given = helper.make_tensor_value_info("inner", TensorProto.FLOAT, [])
    branch = helper.make_graph([], "branch", [], [given], [tensor])
    model.graph.node.append(helper.make_node("If", ["flag"], ["x"], then_branch=branch, else_branch=branch))
    _refused(_saved(model, tmp_path), r"'/etc/passwd' of tensor inner lies outside the model's folder")


def test_external_data_beside_the_model_is_read(tmp_path):
    onnx.save_model(
        _model(), str(tmp_path / "model.onnx"), save_as_external_data=True, size_threshold=0, location="w.bin"
    )
    (tensor,) = onnx_reading.read(tmp_path / "model.onnx").graph.initializer
    assert np.array_equal(onnx_reading.array(tensor), WEIGHTS)


def _changed(**fields) -> onnx.ModelProto:
    model = _model()
    (tensor,) = model.graph.initializer
    del tensor.dims[:]
    tensor.dims.extend(fields["dims"])
    return model


def _nodes(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    return _model(nodes=[*nodes, helper.make_node("Softmax", ["logits"], ["probabilities"])])


CALL = helper.make_node("Twice", ["images"], ["logits"], domain="own")
RECURSIVE = helper.make_function(
    "own",
    "Twice",
    ["a"],
    ["b"],
    [helper.make_node("Twice", ["a"], ["b"], domain="own")],
    [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)],
)
OWN = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
# Each calls the one before twice: a file of a few kilobytes, and 2^40 nodes.
EXPLODING = [
    helper.make_function("own", "F0", ["a"], ["b"], [helper.make_node("Relu", ["a"], ["b"])], OWN),
    *(
        helper.make_function(
            "own",
            f"F{number}",
            ["a"],
            ["c"],
            [helper.make_node(f"F{number - 1}", [x], [y], domain="own") for x, y in (("a", "b"), ("b", "c"))],
            OWN,
        )
        for number in range(1, 41)
    ),
]
BOMB = helper.make_node("F40", ["images"], ["logits"], domain="own")
SHAPE = numpy_helper.from_array(np.array([10**6, 10**6], np.int64))
HUGE = (
    helper.make_node("Constant", [], ["shape"], value=SHAPE),
    helper.make_node("ConstantOfShape", ["shape"], ["logits"], "huge"),
)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_changed(dims=[10**9, 10**9]), r"ONNX tensor w: shape \[1000000000, 1000000000\] does not fit its data"),
        (_changed(dims=[-1, 3]), r"ONNX tensor w: shape \[-1, 3\] has a negative size"),
        (_nodes(*HUGE), r"1000000x1000000 is more than 2 GB; mend|its output would be 1000000x1000000, more than 2 GB"),
        (
            _nodes(
                helper.make_node("Add", ["logits", "w"], ["b"], "first"), helper.make_node("Relu", ["b"], ["logits"])
            ),
            r"ONNX operator Add \(node first\): uses logits, which a later node makes: a cycle, or nodes out of order",
        ),
        (_nodes(helper.make_node("Relu", ["absent"], ["logits"], "r")), r"node r\): uses absent, which nothing makes"),
        (
            _nodes(helper.make_node("Cast", ["images"], ["w"], "twice", to=TensorProto.FLOAT)),
            r"\(node twice\): makes w a second time",
        ),
        (_model(functions=[RECURSIVE], nodes=[CALL]), r"ONNX function own::Twice calls itself"),
        (_model(functions=EXPLODING, nodes=[BOMB]), r"local functions make [\d,]+ nodes, more than 1,000,000; export"),
        (_model(sizes=("n", "h", 2, 3)), r"model.onnx: input images is \[\?, \?, 2, 3\]; export it as \[N, H, W, C\]"),
        (_model(sizes=(1, 2, 2, 3)), r"input images is \[1, 2, 2, 3\]; .* with a free batch size N"),
        (_model(sizes=("n", 10**6, 10**6, 3)), r"ONNX value images: nx1000000x1000000x3 is more than 2 GB"),
        (_model(weights=np.where(WEIGHTS[2, 1] == WEIGHTS, np.nan, WEIGHTS)), r"model.onnx: weights w hold NaN"),
    ],
    ids=[
        *("gigantic weights", "negative size", "gigantic value", "cycle", "absent input", "made twice"),
        *("function of itself", "functions of functions", "free height", "fixed batch", "gigantic images", "NaN"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(tmp_path, model, message):
    _refused(_saved(model, tmp_path), message)
