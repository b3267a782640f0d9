"""Tensors of every type on TensorFlow Serving's wire, held to the messages of TensorFlow's own library."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving import requests
from serving.engines.engine import Tensor
from serving.engines.tensorflow_serving import tensor_types
from serving.wire.protobuf import tensorflow_serving_pb2 as messages
from tests.serving.targets import target

NUMERIC = [one.datatype for one in tensor_types.TYPES if one.datatype not in ("bytes", "bfloat16")]
SHAPES = arrays.array_shapes(min_dims=1, max_dims=3, max_side=4)


@settings(deadline=None)
@given(data=st.data(), datatype=st.sampled_from(NUMERIC))
def test_numbers_of_every_type_come_back(data, datatype):
    values = data.draw(arrays.arrays(datatype, SHAPES))
    tensor = messages.TensorProto.FromString(tensor_types.encode(values, datatype).SerializeToString())
    np.testing.assert_array_equal(tensor_types.decode(tensor, "x"), values)


@given(st.lists(st.binary(max_size=10), min_size=1))
def test_strings_come_back(strings):
    values = np.array([*strings, None], object)[:-1]
    assert tensor_types.decode(tensor_types.encode(values, "bytes"), "x").tolist() == strings


def test_bfloat16_comes_back_as_near_as_it_can():
    values = np.array([1.0, -2.5, 3.14159], np.float32)
    found = tensor_types.decode(tensor_types.encode(values, "bfloat16"), "x")
    assert found.tolist() == [1.0, -2.5, 3.140625]


@pytest.mark.parametrize(
    ("datatype", "as_content"),
    [*((one, way) for one in (*NUMERIC, "bfloat16") for way in (True, False)), ("bytes", False)],
)
def test_tensorflows_own_messages_are_read(datatype, as_content):
    """Also values one by one, which the server answers with."""
    tensor_pb2 = pytest.importorskip("tensorflow.core.framework.tensor_pb2")
    known = tensor_types.BY_DATATYPE[datatype]
    official = tensor_pb2.TensorProto(dtype=known.number)
    official.tensor_shape.dim.add().size = 2
    if datatype == "bytes":
        official.string_val.extend([b"a", b"bc"])
        expected: list = [b"a", b"bc"]
    else:
        expected = [True, False] if datatype == "bool" else [1, 2]
        bits = {"bfloat16": [0x3F80, 0x4000], "float16": [0x3C00, 0x4000]}.get(datatype, expected)
        dtype = "<u2" if "float16" in datatype else np.dtype(datatype).newbyteorder("<")
        if as_content:
            official.tensor_content = np.array(bits, dtype).tobytes()
        else:
            getattr(official, known.field).extend(bits)
    read = messages.TensorProto.FromString(official.SerializeToString())
    assert tensor_types.decode(read, "x").tolist() == expected


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        ({"dtype": 21}, "x.dtype: 21"),
        ({"dtype": 1, "tensor_shape": {"dim": [{"size": -1}]}}, r"x.tensor_shape: \(-1,\)"),
        ({"dtype": 1, "tensor_shape": {"dim": [{"size": 2}]}, "float_val": [1]}, r"\(2,\) has the wrong number"),
        ({"dtype": 1, "tensor_shape": {"dim": [{"size": 2}]}, "tensor_content": b"12345"}, "5 bytes are no whole"),
        ({"dtype": 7, "tensor_shape": {"dim": [{"size": 2}]}, "tensor_content": b"12"}, "x.tensor_content: strings"),
        ({"dtype": 4, "tensor_shape": {"dim": [{"size": 1}]}, "int_val": [256]}, "x.int_val: a value is out of uint8"),
        ({"dtype": 19, "tensor_shape": {"dim": [{"size": 1}]}, "half_val": [-1]}, "x.half_val: a value is out of"),
    ],
)
def test_a_malformed_tensor_is_an_error_with_the_field_named(tensor, said):
    with pytest.raises(ValueError, match=said):
        tensor_types.decode(messages.TensorProto(**tensor), "x")


def test_a_foreign_model_is_asked_by_its_own_names():
    to = replace(
        target("tensorflow", classes=0),
        inputs=(Tensor("tokens", "int64", (-1, 2)),),
        outputs=(Tensor("label", "bytes", (-1,)),),
        input_shape=(2,),
        pinned_version="canary",
    )
    values = np.array([[1, 2], [3, 4]])
    request = messages.PredictRequest.FromString(requests.encode(to, "grpc", values))
    assert (request.model_spec.version_label, list(request.inputs)) == ("canary", ["tokens"])
    assert tensor_types.decode(request.inputs["tokens"], "tokens").tolist() == [[1, 2], [3, 4]]
    answer = messages.PredictResponse(
        outputs={"label": tensor_types.encode(np.array([b"cat", b"dog"], object), "bytes")}
    ).SerializeToString()
    assert requests.decode(to, "grpc", answer).tolist() == [[b"cat"], [b"dog"]]
    assert requests.decode(replace(to, outputs=()), "rest", b'{"predictions": [1, 2]}').tolist() == [[1], [2]]
    several = b'{"predictions": [{"label": 1, "p": 0.5}, {"label": 2, "p": 0.5}]}'
    assert requests.decode(to, "rest", several).tolist() == [[1], [2]]
    with pytest.raises(ValueError, match="serving_bytes, which only Tandem's own exports have"):
        requests.encode(to, "rest-binary", values)
