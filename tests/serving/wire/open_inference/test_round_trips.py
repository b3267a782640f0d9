"""Tensors of every type over every way that the protocol has, there and back."""

from __future__ import annotations

import math

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving.wire.open_inference import datatypes, rest, rpc
from serving.wire.open_inference.records import NamedTensor
from serving.wire.protobuf import open_inference_pb2 as messages

SHAPES = arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
NUMBERS = [one.name for one in datatypes.DATATYPES if one.name not in ("BF16", "BYTES")]


def objects(values: list[bytes], shape: tuple[int, ...]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array.reshape(shape)


@st.composite
def tensors(draw: st.DrawFn, *, for_json: bool = False) -> NamedTensor:
    datatype, shape = draw(st.sampled_from(list(datatypes.BY_NAME))), draw(SHAPES)
    if datatype == "BYTES":
        text = st.text(max_size=5).map(str.encode) if for_json else st.binary(max_size=5)
        size = math.prod(shape)
        values = objects(draw(st.lists(text, min_size=size, max_size=size)), shape)
    elif datatype == "BF16":  # those float32 that are bfloat16, too
        bits = draw(arrays.arrays(np.uint16, shape, elements=st.integers(0, 0x7F7F)))
        values = (bits.astype(np.uint32) << 16).view(np.float32)
    else:
        dtype = np.dtype(datatypes.BY_NAME[datatype].numpy)
        finite = for_json and dtype.kind == "f"
        one = arrays.from_dtype(dtype, allow_nan=False, allow_infinity=False) if finite else arrays.from_dtype(dtype)
        values = draw(arrays.arrays(dtype, shape, elements=one))
    return NamedTensor(draw(st.text(min_size=1, max_size=5)), datatype, values)


def same(found: NamedTensor, sent: NamedTensor) -> None:
    assert (found.name, found.datatype, found.values.shape) == (sent.name, sent.datatype, sent.values.shape)
    assert found.values.dtype == sent.values.dtype
    np.testing.assert_array_equal(found.values, sent.values)


def as_answer(request: bytes, length: int | None = None) -> bytes:
    """A request turned into an answer: inputs and outputs are written alike."""
    head = orjson.loads(request[:length])
    answer = orjson.dumps({"model_name": "m", "model_version": "1", "id": "7", "outputs": head["inputs"]})
    return answer + (request[length:] if length else b"")


@settings(deadline=None)
@given(st.lists(tensors(for_json=True), min_size=1, max_size=3))
def test_json(sent):
    answer = rest.decode(as_answer(rest.encode(sent)))
    assert (answer.model, answer.version, answer.id) == ("m", "1", "7")
    for found, one in zip(answer.outputs, sent, strict=True):
        same(found, one)


@settings(deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=3), st.booleans())
def test_binary_data_behind_json(sent, told):
    """Whether the answer's header says where they start, or it has to be found."""
    body = as_answer(*rest.encode_binary(sent))
    answer = rest.decode(body, rest.json_length(body) if told else None)
    for found, one in zip(answer.outputs, sent, strict=True):
        same(found, one)


def as_message(request: bytes, **changes: object) -> messages.ModelInferResponse:
    asked = messages.ModelInferRequest.FromString(request)
    answer = messages.ModelInferResponse(
        model_name="m", model_version="1", id="7", raw_output_contents=asked.raw_input_contents
    )
    for one in asked.inputs:
        answer.outputs.add(name=one.name, datatype=one.datatype, shape=one.shape)
    return answer


@settings(deadline=None)
@given(st.lists(tensors(), min_size=1, max_size=3))
def test_grpc_with_raw_contents(sent):
    answer = rpc.decode(as_message(rpc.encode("m", sent)).SerializeToString())
    assert (answer.model, answer.version, answer.id) == ("m", "1", "7")
    for found, one in zip(answer.outputs, sent, strict=True):
        same(found, one)


@settings(deadline=None)
@given(st.lists(tensors().filter(lambda one: one.datatype not in ("FP16", "BF16")), min_size=1, max_size=3))
def test_grpc_with_contents_by_type(sent):
    answer = as_message(rpc.encode("m", sent))
    del answer.raw_output_contents[:]
    for output, one in zip(answer.outputs, sent, strict=True):
        getattr(output.contents, datatypes.BY_NAME[one.datatype].contents).extend(one.values.ravel().tolist())
    for found, one in zip(rpc.decode(answer.SerializeToString()).outputs, sent, strict=True):
        same(found, one)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=200) | st.binary(max_size=50).map(lambda rest: b'{"outputs": [{"name": "a"' + rest))
def test_any_bytes_are_an_answer_or_a_value_error(body):
    for decode in (rest.decode, rpc.decode, rest.read_model, rest.read_server, rpc.read_model, rpc.read_server):
        try:
            decode(body)
        except ValueError:
            continue


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
outputs = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text(max_size=3) | json_values,
        "datatype": st.sampled_from([*datatypes.BY_NAME, "FP8"]) | json_values,
        "shape": st.lists(st.integers(-1, 4), max_size=3) | json_values,
        "data": json_values,
        "parameters": st.fixed_dictionaries({}, optional={"binary_data_size": st.integers(-1, 9)}) | json_values,
    },
)


@settings(deadline=None, max_examples=300)
@given(st.lists(outputs | json_values, max_size=2), st.binary(max_size=8))
def test_any_json_is_an_answer_or_a_value_error_that_names_a_field(given_outputs, behind):
    try:
        body = orjson.dumps({"model_name": "m", "outputs": given_outputs}) + behind
    except orjson.JSONEncodeError:  # integers that JSON libraries do not agree on
        return
    try:
        answer = rest.decode(body)
    except ValueError as error:
        assert str(error).startswith(("outputs", "the answer is no JSON"))
        return
    assert len(answer.outputs) == len(given_outputs)


@pytest.mark.parametrize("datatype", NUMBERS)
def test_the_extremes_of_each_type_survive_json(datatype):
    dtype = np.dtype(datatypes.BY_NAME[datatype].numpy)
    if dtype.kind == "b":
        values = np.array([True, False])
    else:
        limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
        values = np.array([limits.min, limits.max], dtype)
    sent = NamedTensor("x", datatype, values)
    same(rest.decode(as_answer(rest.encode([sent]))).outputs[0], sent)


def test_bfloat16_is_rounded_to_the_nearest():
    values = np.array([1.0, 3.14159, -1e-40, np.nan, np.inf, 3.4e38], np.float32)
    raw = datatypes.to_raw(values, "BF16")
    found = datatypes.from_raw(raw, "BF16", [6], "x")
    np.testing.assert_array_equal(found[:2], np.array([1.0, 3.140625], np.float32))
    assert np.isnan(found[3])
    assert found[4] == np.inf


def test_what_json_cannot_carry_is_refused_before_it_is_sent():
    with pytest.raises(ValueError, match=r"inputs\[0\].data: JSON has no NaN and no infinity"):
        rest.encode([NamedTensor("x", "FP32", np.array([np.nan], np.float32))])
    with pytest.raises(ValueError, match=r"inputs\[1\].data: bytes that are no UTF-8 text"):
        rest.encode(
            [NamedTensor("x", "BYTES", objects([b"a"], (1,))), NamedTensor("y", "BYTES", objects([b"\xff"], (1,)))]
        )
