"""Operators of the importer against ONNX Runtime, in ONNX's layout and in the one that images arrive in.

What ONNX's own node tests (beside this file) leave out: the attributes that CNNs use, and an open batch size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import savedmodel
from models.problem import Problem
from models.tensorflow_quietly import tf
from tests.models.onnx_running import expected, imported

OPSET = 20
FLOAT = np.float32


def _random(*shape: int) -> np.ndarray:
    seed = sum(size * 31**place for place, size in enumerate(shape))
    return np.random.default_rng(seed).normal(size=shape).astype(FLOAT)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


@dataclass
class Case:
    """An operator with the run-time input ``x``, constant inputs (None: left out) and attributes."""

    operator: str
    x: np.ndarray
    constants: tuple[np.ndarray | None, ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = OPSET

    def __str__(self) -> str:
        attributes = ",".join(f"{key}={value}" for key, value in self.attributes.items())
        return f"{self.operator}-{self.opset}({attributes})"


def case(
    operator: str, x: np.ndarray, *constants: np.ndarray | None, outputs: int = 1, opset: int = OPSET, **attributes
):
    return Case(operator, x, constants, attributes, outputs, opset)


X = _random(2, 4, 9, 11)
M = _random(3, 5)
BATCH_NORM = (_random(4), _random(4), _random(4), np.abs(_random(4)) + 0.1)
UNARY = ["Abs", "Ceil", "Erf", "Exp", "Floor", "HardSwish", "Neg", "Reciprocal", "Relu", "Sigmoid", "Softplus", "Tanh"]
BINARY = ["Add", "Div", "Max", "Min", "Mul", "Sub", "Sum"]
COMPARISONS = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]
REDUCTIONS = ["ReduceMax", "ReduceMin", "ReduceProd"]
CASES = [
    *(case(name, X) for name in UNARY),
    *(case(name, np.abs(X) + 0.1) for name in ("Log", "Sqrt")),
    *(case(name, X, _random(2, 4, 9, 11)) for name in BINARY),
    *(case(name, X, _random(4, 1, 1)) for name in BINARY),
    *(case(name, X, _random(11)) for name in ("Add", "Mul")),
    case("Add", X, np.array(2.5, FLOAT)),
    case("Add", M, _random(2, 1, 5)),
    case("Max", X, _random(1, 4, 1, 1), _random(11)),
    case("Div", np.array([-7, 7, -8], np.int64), _ints(2, -2, 3)),
    *(case(name, np.round(X), np.zeros((1, 1, 1, 11), FLOAT)) for name in COMPARISONS),
    *(case(name, X > 0, np.array([True, False] * 5 + [True])) for name in ("And", "Or")),
    case("Not", X > 0),
    case("Pow", np.abs(X) + 0.1, np.array(3, np.int64)),
    case("Where", X > 0, _random(4, 1, 1), np.array(7, FLOAT)),
    case("Clip", X, np.array(-0.5, FLOAT), np.array(0.5, FLOAT)),
    case("Clip", 9 * X, np.array(0, FLOAT), np.array(6, FLOAT)),
    case("Clip", X, None, np.array(0.5, FLOAT)),
    case("HardSigmoid", 5 * X, alpha=0.1, beta=0.4),
    case("LeakyRelu", X, alpha=0.2),
    case("Elu", X, alpha=0.7),
    case("PRelu", X, _random(4, 1, 1)),
    case("Gelu", X),
    case("Gelu", X, approximate="tanh"),
    *(case(name, X, axis=axis) for name in ("Softmax", "LogSoftmax") for axis in (1, -1)),
    case("Cast", 100 * np.abs(X), to=TensorProto.INT64),
    case("Identity", X),
    case("Dropout", X, np.array(0.5, FLOAT)),
    # Convolutions and pools
    case("Conv", X, _random(6, 4, 3, 3)),
    case("Conv", X, _random(6, 4, 3, 5), _random(6), strides=[2, 3], pads=[1, 0, 2, 3]),
    case("Conv", X, _random(6, 4, 3, 3), dilations=[2, 3], pads=[1, 1, 1, 1]),
    case("Conv", X, _random(6, 4, 3, 3), dilations=[2, 2], strides=[2, 1]),
    case("Conv", X, _random(6, 2, 3, 3), _random(6), group=2, pads=[1, 1, 1, 1]),
    case("Conv", X, _random(8, 1, 3, 3), _random(8), group=4, pads=[1, 1, 1, 1]),
    case("Conv", X, _random(4, 1, 3, 3), group=4, strides=[2, 2], pads=[0, 1, 0, 1]),
    case("Conv", X, _random(4, 1, 3, 3), group=4, dilations=[2, 2]),
    case("Conv", X, _random(4, 1, 3, 3), group=4, strides=[1, 2]),
    case("Conv", X, _random(4, 1, 3, 3), group=4, strides=[2, 2], dilations=[2, 2]),
    *(
        case("Conv", X, _random(6, 4, 4, 3), auto_pad=mode, strides=[2, 2])
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    case("MaxPool", X, kernel_shape=[2, 2], strides=[2, 2]),
    case("MaxPool", X - 9, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    case("MaxPool", X, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    case("MaxPool", X - 9, kernel_shape=[3, 2], strides=[2, 4], pads=[1, 0, 1, 1], ceil_mode=1),
    case("MaxPool", X, kernel_shape=[3, 2], strides=[2, 1], dilations=[2, 3]),
    case("MaxPool", X - 9, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    case("AveragePool", X, kernel_shape=[2, 3], strides=[2, 2]),
    *(
        case("AveragePool", X, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 0, 1, 1], count_include_pad=include)
        for include in (0, 1)
    ),
    *(
        case("AveragePool", X, kernel_shape=[2, 4], strides=[2, 3], pads=[0, 1, 0, 1], ceil_mode=1, count_include_pad=n)
        for n in (0, 1)
    ),
    case("AveragePool", X, kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_UPPER"),
    case("GlobalAveragePool", X),
    case("GlobalMaxPool", X),
    case("BatchNormalization", X, *BATCH_NORM, epsilon=1e-3),
    case("GroupNormalization", X, _random(2), _random(2), num_groups=2, epsilon=1e-2, opset=18),
    case("GroupNormalization", X, _random(4), _random(4), num_groups=2, opset=21),
    # Matrices
    case("MatMul", M, _random(5, 4)),
    case("MatMul", _random(2, 3, 5), _random(2, 5, 4)),
    case("MatMul", M, _random(5)),
    case("Gemm", M, _random(5, 4), _random(4)),
    case("Gemm", M, _random(4, 5), _random(3, 1), transB=1, alpha=0.5, beta=2.0),
    case("Gemm", _random(5, 3), _random(5, 4), transA=1),
    # Shapes
    case("Reshape", X, _ints(0, -1)),
    case("Reshape", X, _ints(2, 9, -1)),
    case("Flatten", X),
    case("Flatten", X, axis=2),
    case("Flatten", X, axis=-1),
    case("Transpose", X, perm=[0, 2, 3, 1]),
    case("Transpose", X, perm=[3, 1, 0, 2]),
    case("Transpose", M),
    case("Squeeze", _random(2, 1, 3, 1), _ints(1, -1)),
    case("Squeeze", _random(2, 4, 1, 1)),
    case("Unsqueeze", X[0], _ints(0, -1)),
    case("Concat", X, _random(2, 3, 9, 11), axis=1),
    case("Concat", X, _random(2, 4, 9, 2), axis=-1),
    case("Split", X, _ints(1, 3), axis=1, outputs=2),
    case("Split", X, axis=-1, num_outputs=3, outputs=3),
    case("Slice", X, _ints(1, -3), _ints(2**63 - 1, -1), _ints(1, 3), _ints(2, 1)),
    case("Slice", X, _ints(-1), _ints(-(2**63)), _ints(2), _ints(-1)),
    case("Slice", M, _ints(0, 1), _ints(2, 3)),
    case("Gather", X, _ints(0, -1, 2), axis=1),
    case("Gather", X, np.array(1, np.int64), axis=-1),
    case("GatherND", X, np.array([[0, -1], [1, 2]], np.int64)),
    case("GatherND", X, np.array([[[0]], [[-1]]], np.int64), batch_dims=1),
    case("Expand", _random(4, 1, 1), _ints(2, 1, 3, 1)),
    case("Pad", X, _ints(0, 1, 2, 3, 0, 0, 1, 0), np.array(2.5, FLOAT)),
    case("Pad", X, _ints(2, 1, 0, 3), None, _ints(-2, 3), mode="reflect"),
    case("Shape", X),
    case("Shape", X, start=1, end=3),
    case("ConstantOfShape", _ints(2, 3)),
    case("Range", np.array(1, FLOAT), np.array(3, FLOAT), np.array(0.5, FLOAT)),
    *(case(name, X, _ints(2, 3)) for name in REDUCTIONS),
    *(case(name, X, _ints(-1, 1), keepdims=0) for name in (*REDUCTIONS, "ReduceMean", "ReduceSum")),
    case("ReduceMean", X, axes=[2, 3], opset=13),
    case("ReduceMean", X, keepdims=0),
    case("ReduceSum", X, noop_with_empty_axes=1),
]


def _model(case: Case, transposed: bool) -> onnx.ModelProto:
    """The operator on ``x``, or (transposed) on an input that lies N, H, W, C and is turned by a Transpose."""
    names = [f"c{index}" if array is not None else "" for index, array in enumerate(case.constants)]
    outputs = [f"y{index}" for index in range(case.outputs)]
    node = helper.make_node(
        case.operator, ["turned" if transposed else "x", *names], outputs, "under-test", **case.attributes
    )
    turn = [helper.make_node("Transpose", ["x"], ["turned"], "turn", perm=[0, 3, 1, 2])] if transposed else []
    kind = helper.np_dtype_to_tensor_dtype(case.x.dtype)
    sizes = [case.x.shape[axis] for axis in (0, 2, 3, 1)] if transposed else list(case.x.shape)
    sizes = ["n", *sizes[1:]] if case.operator not in ("ConstantOfShape", "Split") and case.x.ndim > 1 else sizes
    graph = helper.make_graph(
        [*turn, node],
        "test",
        [helper.make_tensor_value_info("x", kind, sizes)],
        [onnx.ValueInfoProto(name=name) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in zip(names, case.constants, strict=True) if name],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", case.opset)], ir_version=9)


def _compare(model: onnx.ModelProto, x: np.ndarray) -> None:
    for ours, theirs in zip(imported(model, {"x": x}), expected(model, {"x": x}), strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_operator_agrees_with_onnx_runtime(case):
    _compare(_model(case, transposed=False), case.x)


@pytest.mark.parametrize("case", [case for case in CASES if case.x.ndim == 4], ids=str)
def test_operator_agrees_on_images_that_lie_channels_last(case):
    _compare(_model(case, transposed=True), case.x.transpose(0, 2, 3, 1).copy())


def test_constants_are_folded_and_every_kind_is_read():
    nodes = [
        helper.make_node("Constant", [], ["a"], value_float=2.0),
        helper.make_node("Constant", [], ["b"], value_floats=[1.0, 2.0]),
        helper.make_node("Constant", [], ["i"], value_int=1),
        helper.make_node("Constant", [], ["j"], value_ints=[1, 2]),
        helper.make_node("Constant", [], ["t"], value=numpy_helper.from_array(_random(2))),
        helper.make_node("Mul", ["a", "b"], ["ab"]),
        helper.make_node("Add", ["ab", "t"], ["abt"]),
        helper.make_node("Add", ["i", "j"], ["ij"]),
        helper.make_node("Cast", ["ij"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["f", "abt"], ["c"]),
        helper.make_node("Add", ["x", "c"], ["y0"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph(nodes, "test", inputs, [onnx.ValueInfoProto(name="y0")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    _compare(model, _random(3, 2))
    importer = savedmodel.Importer(model)
    values = importer.build({"x": tf.zeros([1, 2])})
    folded = values["c"].constant
    assert folded is not None
    np.testing.assert_allclose(folded, [2.0 + 2 + _random(2)[0], 4 + 3 + _random(2)[1]], rtol=1e-6)


def test_sizes_to_resize_to_may_be_made_of_the_input_s_own():
    """The pattern of PyTorch's exporter for interpolate(size=...): Shape, Concat, Resize."""
    nodes = [
        helper.make_node("Shape", ["x"], ["kept"], start=0, end=2),
        helper.make_node("Concat", ["kept", "rest"], ["sizes"], axis=0),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y0"], mode="linear", antialias=1),
    ]
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 9, 7])],
        [onnx.ValueInfoProto(name="y0")],
        [numpy_helper.from_array(_ints(4, 11), "rest")],
    )
    _compare(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9), _random(3, 2, 9, 7)
    )


def test_shape_arithmetic_at_run_time():
    """The pattern of dynamic flattening: Shape, Gather, Unsqueeze, Concat, Reshape."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Shape", ["t"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["t", "target"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y0"]),
    ]
    constants = {"zero": np.array(0, np.int64), "axis": _ints(0), "rest": _ints(-1), "w": _random(24, 5)}
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 3, 4])],
        [onnx.ValueInfoProto(name="y0")],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    _compare(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9), _random(7, 2, 3, 4)
    )


@pytest.mark.parametrize(
    ("case", "message"),
    [
        (
            case("Det", _random(3, 3)),
            r"ONNX operator Det \(node under-test, opset 20\): unknown to the SavedModel importer",
        ),
        (case("Relu", X, opset=12), r"Relu \(node under-test, opset 12\): this opset is too old"),
        (case("Conv", _random(2, 4, 9), _random(6, 4, 3)), r"Conv \(node under-test, opset 20\): rank 3; only images"),
        (case("MaxPool", X, kernel_shape=[2, 2], outputs=2), "its second output"),
        (
            case("Pad", X, _ints(0, 0, 1, 1, 0, 0, 1, 1), mode="odd"),
            "mode='odd' is not supported.* constant, edge",
        ),
        (case("Relu", X, alpha=0.5), r"Relu \(node under-test, opset 20\): attribute alpha is not supported"),
        (case("Relu", X, opset=29), r"opset 29\): this opset is newer than what is tested"),
        (case("Conv", X, _random(6, 4, 3, 3), group=3), "4 channels, weights for 4 and 6 outputs, group=3 do not fit"),
        (case("Conv", X, _random(6, 4, 3, 3), kernel_shape=[2, 2]), r"kernel_shape=\[2, 2\], but the weights are"),
        (case("Conv", X, _random(6, 4, 3, 3), strides=[0, 1]), r"strides=\[0, 1\]; give two numbers of at least 1"),
        (case("Expand", _random(4, 1, 1), _ints(4, 99999, 99999)), "value y0: 4x99999x99999 is more than 2 GB"),
        (case("Tile", M, _ints(99999, 99999)), "more than 2 GB; mend the model's shapes"),
        (case("BatchNormalization", X, *BATCH_NORM, training_mode=1), "training mode cannot be served"),
        (case("MatMul", M, _random(4, 4)), r"MatMul \(node under-test, opset 20\): cannot be imported"),
    ],
    ids=str,
)
def test_what_cannot_be_imported_names_operator_node_and_opset(case, message):
    with pytest.raises(Problem, match=message):
        imported(_model(case, transposed=False), {"x": case.x})


def test_operator_of_another_domain_is_named_with_it():
    node = helper.make_node("FusedThing", ["x"], ["y0"], "odd", domain="com.example")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2])]
    graph = helper.make_graph([node], "test", inputs, [onnx.ValueInfoProto(name="y0")])
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.example", 3)]
    with pytest.raises(Problem, match=r"ONNX operator com.example::FusedThing \(node odd, opset 3\): unknown"):
        savedmodel.Importer(helper.make_model(graph, opset_imports=opsets, ir_version=9))
