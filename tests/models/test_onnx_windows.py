"""Convolutions and pools with random attributes, against ONNX Runtime: a few examples every day, many in .ci/run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from tests.models.onnx_running import expected, imported

sides = st.integers(1, 9)
small = st.integers(1, 3)
pairs = st.lists(small, min_size=2, max_size=2)
pads = st.lists(st.integers(0, 2), min_size=4, max_size=4)
seeds = st.integers(0, 2**16)


@st.composite
def placements(draw: st.DrawFn) -> dict[str, Any]:
    """Where windows lie: strides, dilations, and pads given or chosen."""
    attributes: dict[str, Any] = {"strides": draw(pairs), "dilations": draw(pairs)}
    auto = draw(st.sampled_from(["NOTSET", "NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if auto == "NOTSET":
        attributes["pads"] = draw(pads)
    else:
        attributes["auto_pad"] = auto
        if auto != "VALID":  # ONNX Runtime refuses dilations there, or ignores them
            attributes["dilations"] = [1, 1]
    return attributes


def _model(operator: str, x: np.ndarray, weights: list[np.ndarray], attributes: dict[str, Any]) -> onnx.ModelProto:
    """The operator on an input that lies N, H, W, C."""
    names = [f"w{index}" for index in range(len(weights))]
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 3, 1, 2]),
        helper.make_node(operator, ["turned", *names], ["y"], "under-test", **attributes),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *x.shape[1:]])]
    constants = [numpy_helper.from_array(array, name) for name, array in zip(names, weights, strict=True)]
    graph = helper.make_graph(nodes, "test", inputs, [onnx.ValueInfoProto(name="y")], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _compare(operator: str, x: np.ndarray, weights: list[np.ndarray], attributes: dict[str, Any]) -> None:
    model = _model(operator, x, weights, attributes)
    try:
        (theirs,) = expected(model, {"x": x})
    except Exception:  # windows larger than the image and the like: ONNX Runtime's errors have no class of their own
        assume(False)
    assume(theirs.size > 0)
    (ours,) = imported(model, {"x": x})
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def convolution(seed, height, width, groups, depth, outputs, kernel, attributes, biased):
    random = np.random.default_rng(seed)
    x = random.normal(size=(2, height, width, groups * depth)).astype(np.float32)
    weights = [random.normal(size=(groups * outputs, depth, *kernel)).astype(np.float32)]
    if biased:
        weights.append(random.normal(size=groups * outputs).astype(np.float32))
    _compare("Conv", x, weights, {**attributes, "group": groups})


def transposed_convolution(seed, height, width, groups, depth, outputs, kernel, attributes, biased, data):
    random = np.random.default_rng(seed)
    x = random.normal(size=(2, height, width, groups * depth)).astype(np.float32)
    weights = [random.normal(size=(groups * depth, outputs, *kernel)).astype(np.float32)]
    if biased:
        weights.append(random.normal(size=groups * outputs).astype(np.float32))
    below = [
        max(stride, dilation) for stride, dilation in zip(attributes["strides"], attributes["dilations"], strict=True)
    ]
    attributes["output_padding"] = [data.draw(st.integers(0, limit - 1)) for limit in below]
    _compare("ConvTranspose", x, weights, {**attributes, "group": groups})


def pools(seed, height, width, window, attributes, ceil_mode, include_pad):
    x = np.random.default_rng(seed).normal(size=(2, height, width, 3)).astype(np.float32) - 5
    attributes |= {"kernel_shape": window, "ceil_mode": int(ceil_mode)}
    given_pads = attributes.get("pads", [0, 0, 0, 0])
    assume(all(given_pads[side] < window[side % 2] for side in range(4)))  # others are refused by all
    reach = [(size - 1) * apart + 1 for size, apart in zip(window, attributes["dilations"], strict=True)]
    if attributes.get("auto_pad", "NOTSET").startswith("SAME"):
        # Where windows leave pixels out, ONNX Runtime pads by a negative number, other than for its convolutions.
        assume(all(size >= stride for size, stride in zip(window, attributes["strides"], strict=True)))
    else:  # where no window fits, ONNX Runtime rounds the number of windows towards zero: up
        room = (height + given_pads[0] + given_pads[2], width + given_pads[1] + given_pads[3])
        assume(all(size >= extent for size, extent in zip(room, reach, strict=True)))
    if include_pad is None:
        _compare("MaxPool", x, [], attributes)
    else:
        _compare("AveragePool", x, [], {**attributes, "count_include_pad": include_pad})


PLACES = (seeds, sides, sides)
CHANNELS = (small, small, small)
CHECKS: dict[str, tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]] = {
    "Conv": (convolution, (*PLACES, *CHANNELS, pairs, placements(), st.booleans())),
    "ConvTranspose": (transposed_convolution, (*PLACES, *CHANNELS, pairs, placements(), st.booleans(), st.data())),
    "pools": (pools, (*PLACES, pairs, placements(), st.booleans(), st.sampled_from([None, 0, 1]))),
}


def test_a_mean_over_nothing_but_padding_is_zero():
    attributes = {"strides": [1, 1], "dilations": [1, 2], "pads": [0, 1, 0, 1], "kernel_shape": [1, 2]}
    x = np.full((2, 1, 1, 3), -5, np.float32)
    model = _model("AveragePool", x, [], attributes)
    (ours,), (theirs,) = imported(model, {"x": x}), expected(model, {"x": x})
    np.testing.assert_array_equal(ours, np.zeros((2, 3, 1, 1)))
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("examples", [25, pytest.param(500, marks=[pytest.mark.exhaustive, pytest.mark.beside])])
@pytest.mark.parametrize("name", CHECKS)
def test_random_attributes(name, examples):
    check, strategies = CHECKS[name]
    settings(max_examples=examples, deadline=None)(given(*strategies)(check))()
