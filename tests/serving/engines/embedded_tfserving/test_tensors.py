"""Hand-encoded answers are what protobuf reads, and TensorProtos decode as the runtime decodes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tensorflow_serving.apis import predict_pb2

from serving.engines.embedded_tfserving import tensors
from serving.engines.embedded_tfserving.status import ServingError

NUMBERS = [number for number in tensors.TYPES if number != tensors.STRING]


@st.composite
def typed_arrays(draw):
    number = draw(st.sampled_from(NUMBERS))
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
    return number, draw(arrays.arrays(tensors.TYPES[number][0], shape))


@given(typed_arrays(), st.booleans())
def test_encoded_arrays_are_read_by_protobuf_and_by_us(case, as_content):
    number, array = case
    message = predict_pb2.PredictResponse.FromString(tensors.encode("näme", array, number, as_content=as_content))
    proto = message.outputs["näme"]
    decoded = tensors.decode(proto, "näme")
    assert decoded.dtype == array.dtype
    np.testing.assert_array_equal(decoded, array)
    if array.size and number not in (22, 23):  # make_ndarray of this TensorFlow reads no uint32_val
        np.testing.assert_array_equal(tf.make_ndarray(proto), array)


def test_strings_are_bytes():
    array = np.array([[b"\xff\x00", b""], [b"hi", b"x" * 300]], object)
    proto = predict_pb2.PredictResponse.FromString(tensors.encode("s", array, tensors.STRING)).outputs["s"]
    np.testing.assert_array_equal(tensors.decode(proto, "s"), array)


def test_the_last_value_fills_the_rest_and_none_means_zeros():
    proto = tf.make_tensor_proto(np.zeros((2, 2), np.uint8))
    proto.ClearField("tensor_content")
    np.testing.assert_array_equal(tensors.decode(proto, "x"), np.zeros((2, 2)))
    proto.int_val.extend([1, 258])
    np.testing.assert_array_equal(tensors.decode(proto, "x"), [[1, 2], [2, 2]])


@pytest.mark.parametrize("sizes", [[-1, 3], [2**40], [2**20, 2**20, 2**20], [1] * 70, [2**62] * 10**6])
def test_impossible_shapes_are_refused(sizes):
    proto = tf.make_tensor_proto(np.zeros(3, np.uint8))
    del proto.tensor_shape.dim[:]
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    with pytest.raises(ServingError, match="tensor parsing error: x"):
        tensors.decode(proto, "x")


def test_few_bytes_do_not_become_very_many():
    proto = tf.make_tensor_proto(1.0, shape=[1000, 32, 32, 3])
    assert tensors.decode(proto, "x").shape == (1000, 32, 32, 3)
    proto.tensor_shape.dim[0].size = 10_000
    with pytest.raises(ServingError, match="tensor parsing error: x"):
        tensors.decode(proto, "x")


def string_tensor(content: bytes, *sizes: int) -> Any:
    proto = tf.make_tensor_proto([b""])
    proto.Clear()
    proto.dtype = tensors.STRING
    for size in sizes:
        proto.tensor_shape.dim.add(size=size)
    proto.tensor_content = content
    return proto


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=6))
def test_strings_in_tensor_content_are_read(strings):
    content = b"".join([tensors.varint(len(one)) for one in strings]) + b"".join(strings)
    decoded = tensors.decode(string_tensor(content, len(strings)), "s")
    assert decoded.tolist() == strings
    for wrong in (content + b"x", content[:-1]):
        if wrong:  # without content there are no strings, which are empty ones
            with pytest.raises(ServingError, match="tensor parsing error: s"):
                tensors.decode(string_tensor(wrong, len(strings)), "s")


@pytest.mark.parametrize(
    ("content", "sizes"),
    [(b"\x03abc", (2**40,)), (b"\x03abc", (2,)), (b"\xff\xff\xff\xff\xff\x01", (1,)), (b"\x80", (1,)), (b"\x00", (0,))],
)
def test_sizes_that_lie_are_refused(content, sizes):
    with pytest.raises(ServingError, match="tensor parsing error: s"):
        tensors.decode(string_tensor(content, *sizes), "s")


@pytest.mark.parametrize("field", ["tensor_content", "string_val"])
def test_strings_have_as_many_dimensions_as_the_runtime_takes_from_numpy(field):
    """One more would end the process."""
    for rank in (32, 33):
        proto = string_tensor(b"", *[1] * rank)
        setattr(proto, field, b"\x01a") if field == "tensor_content" else proto.string_val.append(b"a")
        if rank == 32:
            assert tensors.decode(proto, "s").ravel().tolist() == [b"a"]
        else:
            with pytest.raises(ServingError, match="tensor parsing error: s"):
                tensors.decode(proto, "s")


def test_types_that_no_input_has_are_named():
    proto = tf.make_tensor_proto(1.0)
    proto.dtype = 21
    assert (tensors.decode(proto, "x").size, tensors.type_name(proto.dtype)) == (0, "variant")
    for number in (20, 101):  # a resource, a reference
        proto.dtype = number
        with pytest.raises(ServingError, match="tensor parsing error: x"):
            tensors.decode(proto, "x")
