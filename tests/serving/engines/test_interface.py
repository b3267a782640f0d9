"""Samples fit the input that a server describes, or the error says what it takes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from serving.engines import interface
from serving.engines.engine import Description, Tensor
from tests.serving.targets import target

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)
STRINGS = np.array([b"one", b"two"], object)


def takes(datatype: str, *shape: int, sample: tuple[int, ...] | None = None):
    described = Tensor("x", datatype, shape)
    return replace(target("pytorch"), inputs=(described,), input_shape=shape[1:] if sample is None else sample)


@pytest.mark.parametrize(
    ("to", "samples", "shape"),
    [
        (takes("float32", -1, 3), ROWS, (2, 3)),
        (takes("float32", 2, 3), ROWS, (2, 3)),
        (takes("float32"), ROWS, (2, 3)),
        (takes("bfloat16", -1, -1), ROWS, (2, 3)),
        (takes("float32", 3, sample=(3,)), ROWS[:1], (3,)),
        (takes("bytes", -1), STRINGS, (2,)),
        (takes("bytes", -1, 1), STRINGS, (2, 1)),
        (takes("bytes", -1), np.array([b"one"]), (1,)),
    ],
    ids=["batched", "fixed batch", "shape not said", "bfloat16", "no batch", "strings", "a string a row", "S array"],
)
def test_samples_take_the_shape_of_the_input(to, samples, shape):
    assert interface.of_input(to, samples).shape == shape


@pytest.mark.parametrize(
    ("to", "samples", "said"),
    [
        (takes("float32", -1, 4), ROWS, r"samples are \(2, 3\); convnet takes \(-1, 4\) 'x'"),
        (takes("float32", -1, 3), ROWS.astype(np.float64), "samples are float64; convnet takes float32 'x'"),
        (takes("float32", -1, 3), ROWS[:0], r"samples are \(0, 3\); convnet takes one at least"),
        (takes("float32", 3, sample=(3,)), ROWS, r"samples are \(2, 3\); convnet takes \(3,\) 'x'"),
        (takes("bytes", -1), ROWS, "samples are float32; convnet takes bytes 'x'"),
        (
            replace(target("pytorch"), inputs=(Tensor("a", "int64", (-1,)), Tensor("b", "int64", (-1,)))),
            ROWS,
            r"convnet takes 2 inputs \(a, b\): give a value for each, by name",
        ),
    ],
    ids=["shape", "type", "none", "two without a batch", "numbers for strings", "several inputs"],
)
def test_what_does_not_fit_is_refused_with_what_the_model_takes(to, samples, said):
    with pytest.raises(ValueError, match=said):
        interface.of_input(to, samples)


def test_numbers_in_another_byte_order_are_the_same_numbers():
    found = interface.of_input(takes("float32", -1, 3), ROWS.astype(">f4"))
    assert found.tobytes() == ROWS.tobytes()


@pytest.mark.parametrize(
    ("to", "values", "rows"),
    [
        (takes("float32", -1, 3), np.zeros((2, 2, 5)), (2, 10)),
        (takes("float32", -1, 3), np.zeros(4, np.int64), (4, 1)),
        (takes("float32", 3, sample=(3,)), np.zeros(10), (1, 10)),
        (target("pytorch"), np.zeros((2, 10)), (2, 10)),
        (target("pytorch"), np.array(1.5), (1, 1)),
        (target("pytorch"), np.zeros((0, 10)), (0, 0)),
    ],
    ids=["deep", "one number a sample", "no batch", "bundle", "scalar", "nothing"],
)
def test_an_answer_is_a_row_a_sample(to, values, rows):
    found = interface.rows(to, values)
    assert (found.shape, found.dtype) == (rows, np.float32)


def test_strings_stay_strings():
    found = interface.rows(target("pytorch"), np.array([b"cat", b"horse"], object))
    assert (found.tolist(), found.dtype.kind) == ([[b"cat"], [b"horse"]], "S")


def test_which_output_counts():
    to = target("pytorch")
    assert interface.output(to, ["a", "probabilities"]) == "probabilities"
    assert interface.output(to, ["a", "b"]) == "a"
    described = replace(to, outputs=(Tensor("b", "float32", (-1,)), Tensor("a", "float32", (-1,))))
    assert interface.output(described, ["a", "b"]) == "b"
    with pytest.raises(ValueError, match="the answer has the outputs a, not 'b'"):
        interface.output(described, ["a"])
    with pytest.raises(ValueError, match="no outputs"):
        interface.output(to, [])


TWO = replace(
    target("pytorch"), inputs=(Tensor("a", "float32", (-1, 3)), Tensor("b", "int64", (-1,))), input_shape=(), classes=0
)


def two(count: int = 2, **types: str) -> np.ndarray:
    kinds = [("a", types.get("a", "f4"), (3,)), ("b", types.get("b", "i8"))]
    found = np.zeros(count, kinds)
    found["a"], found["b"] = np.arange(3 * count).reshape(count, 3), np.arange(count)
    return found


def test_each_of_several_inputs_takes_its_field():
    found = interface.carried(TWO, interface.of_input(TWO, two()))
    assert [(one.name, one.datatype, one.values.tolist()) for one in found] == [
        ("a", "float32", [[0, 1, 2], [3, 4, 5]]),
        ("b", "int64", [0, 1]),
    ]
    alone = replace(TWO, inputs=(Tensor("a", "float32", (3,)), Tensor("b", "int64", (-1,))))
    assert [one.values.shape for one in interface.carried(alone, two(1))] == [(3,), (1,)]


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        (two()[["a"]], "samples have values for a; convnet takes a, b"),
        (two(b="f8"), "samples are float64; convnet takes int64 'b'"),
        (two(0), "takes one at least"),
    ],
    ids=["one missing", "type", "none"],
)
def test_several_inputs_that_do_not_fit_are_named(samples, said):
    with pytest.raises(ValueError, match=said):
        interface.of_input(TWO, samples)


def test_the_output_that_the_user_names_counts():
    described = replace(TWO, outputs=(Tensor("b", "float32", (-1,)), Tensor("a", "float32", (-1,))), output="a")
    assert interface.judged(described) == interface.output(described, ["b", "a"]) == "a"
    with pytest.raises(ValueError, match="the answer has the outputs b, not 'a'"):
        interface.output(described, ["b"])


def test_what_one_answer_leaves_open_another_fills_in():
    model = Description(inputs=(Tensor("x", "uint8", (-1,)),), versions=("1",))
    assert model.completed(Description("triton 2.51.0", versions=("2",))) == replace(model, server="triton 2.51.0")
