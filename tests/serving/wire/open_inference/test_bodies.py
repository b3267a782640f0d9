"""Bodies of the REST API, as the pages of the protocol and of its binary-data extension show them, and malformed ones.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md
https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_binary_data.md
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from serving.wire.open_inference import rest
from serving.wire.open_inference.records import NamedTensor, TensorMetadata

INPUTS = [
    NamedTensor("input0", "UINT32", np.array([[1, 2], [3, 4]], np.uint32)),
    NamedTensor("input1", "BOOL", np.array([True, False, True])),
]
OUTPUT = {"name": "output0", "shape": [3, 2], "datatype": "FP32", "data": [1.0, 1.1, 2.0, 2.1, 3.0, 3.1]}
VALUES = np.array([[1.0, 1.1], [2.0, 2.1], [3.0, 3.1]], np.float32)


def test_the_paths():
    assert rest.infer_path("my model", "v10") == "/v2/models/my%20model/versions/v10/infer"
    assert rest.infer_path("m/x") == "/v2/models/m%2Fx/infer"
    assert rest.model_path("m") == "/v2/models/m"
    assert rest.ready_path("m", "1") == "/v2/models/m/versions/1/ready"
    assert (rest.SERVER, rest.SERVER_LIVE, rest.SERVER_READY) == ("/v2", "/v2/health/live", "/v2/health/ready")


def test_the_request_of_the_protocols_page():
    assert json.loads(rest.encode(INPUTS, ["output0"], "42")) == {
        "id": "42",
        "inputs": [
            {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "data": [1, 2, 3, 4]},
            {"name": "input1", "shape": [3], "datatype": "BOOL", "data": [True, False, True]},
        ],
        "outputs": [{"name": "output0"}],
    }
    assert json.loads(rest.encode(INPUTS)).keys() == {"inputs"}  # what is optional is left out


def test_the_request_of_the_extensions_page():
    body, length = rest.encode_binary(INPUTS, ["output0"])
    assert json.loads(body[:length]) == {
        "inputs": [
            {"name": "input0", "shape": [2, 2], "datatype": "UINT32", "parameters": {"binary_data_size": 16}},
            {"name": "input1", "shape": [3], "datatype": "BOOL", "parameters": {"binary_data_size": 3}},
        ],
        "outputs": [{"name": "output0", "parameters": {"binary_data": True}}],
    }
    assert body[length:] == bytes.fromhex("01000000 02000000 03000000 04000000 010001")
    assert rest.json_length(body) == length
    all_outputs, length = rest.encode_binary(INPUTS)
    assert json.loads(all_outputs[:length])["parameters"] == {"binary_data_output": True}


def test_the_answer_of_the_protocols_page():
    answer = rest.decode(json.dumps({"id": "42", "outputs": [OUTPUT]}).encode())
    assert (answer.model, answer.version, answer.id) == ("", "", "42")
    (output,) = answer.outputs
    assert (output.name, output.datatype) == ("output0", "FP32")
    np.testing.assert_array_equal(output.values, VALUES)


def test_an_answer_with_all_that_the_schema_has():
    body = {
        "model_name": "m",
        "model_version": "3",
        "id": "42",
        "parameters": {"took_ms": 1.5},
        "outputs": [
            {**OUTPUT, "parameters": {"content_type": "np"}},
            {"name": "nested", "shape": [2, 2], "datatype": "INT8", "data": [[1, 2], [3, -4]]},
            {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["Zürich", ""]},
            {"name": "flags", "shape": [2], "datatype": "BOOL", "data": [True, False]},
            {"name": "none", "shape": [0, 3], "datatype": "FP64", "data": []},
        ],
    }
    answer = rest.decode(json.dumps(body).encode())
    assert (answer.model, answer.version, answer.id) == ("m", "3", "42")
    values = [one.values.tolist() for one in answer.outputs[1:]]
    assert values == [[[1, 2], [3, -4]], ["Zürich".encode(), b""], [True, False], []]


def test_what_is_no_number_is_read_where_a_server_writes_it():
    body = b'{"outputs": [{"name": "a", "shape": [3], "datatype": "FP32", "data": [NaN, -Infinity, 1]}]}'
    np.testing.assert_array_equal(rest.decode(body).outputs[0].values, [np.nan, -np.inf, 1])


def test_the_answer_of_the_extensions_page():
    head = {"name": "output0", "shape": [3, 2], "datatype": "FP32", "parameters": {"binary_data_size": 24}}
    as_json = {"name": "text", "shape": [1], "datatype": "BYTES", "data": ["}{"]}
    more = {"name": "more", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 9}}
    start = json.dumps({"outputs": [head, as_json, more]}).encode()
    body = start + VALUES.tobytes() + b"\1\0\0\0{\0\0\0\0"
    for length in (None, len(start)):
        answer = rest.decode(body, length)
        np.testing.assert_array_equal(answer.outputs[0].values, VALUES)
        assert answer.outputs[1].values.tolist() == [b"}{"]
        assert answer.outputs[2].values.tolist() == [b"{", b""]


def test_what_a_server_says_of_itself():
    body = b'{"name": "triton", "version": "2.51.0", "extensions": ["classification", "binary_tensor_data"]}'
    found = rest.read_server(body)
    assert (found.name, found.version) == ("triton", "2.51.0")
    assert rest.BINARY_EXTENSION in found.extensions
    assert rest.read_server(b'{"name": "mlserver", "version": "1.7.1", "extensions": []}').extensions == ()


def test_what_a_server_says_of_a_model():
    body = {
        "name": "m",
        "versions": ["1", "2"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}],
        "outputs": [{"name": "label", "datatype": "BYTES", "shape": [-1]}],
    }
    found = rest.read_model(json.dumps(body).encode())
    assert (found.name, found.versions, found.platform) == ("m", ("1", "2"), "onnxruntime_onnx")
    assert found.inputs == (TensorMetadata("images", "UINT8", (-1, 32, 32, 3)),)
    assert found.outputs == (TensorMetadata("label", "BYTES", (-1,)),)
    least = rest.read_model(b'{"name": "m", "platform": ""}')
    assert (least.versions, least.inputs, least.outputs) == ((), (), ())


@pytest.mark.parametrize(
    ("body", "ready"),
    [
        (b"", True),
        (b'{"live": true}', True),
        (b'{"live": false}', False),
        (b'{"name": "m", "ready": true}', True),
        (b'{"name": "m", "ready": false}', False),
    ],
)
def test_whether_it_is_ready(body, ready):
    assert rest.read_ready(body) is ready


@pytest.mark.parametrize("read", [rest.decode, rest.read_server, rest.read_model, rest.read_ready])
def test_an_error_object_is_passed_on(read):
    with pytest.raises(ValueError, match="the server says: Model resnet not found"):
        read(b'{"error": "Model resnet not found"}')


MALFORMED = {
    "nothing": (b"", "does not start with JSON"),
    "no JSON": (b"<html>502 Bad Gateway</html>", "does not start with JSON"),
    "JSON cut short": (b'{"outputs": [', "does not start with JSON"),
    "a list": (b"[]", "the answer is no JSON object"),
    "no outputs": ({}, "outputs: missing"),
    "outputs no list": ({"outputs": {}}, "outputs: {} is no list"),
    "output no object": ({"outputs": [3]}, r"outputs\[0\]: 3 is no object"),
    "model name": ({"model_name": 3, "outputs": []}, "model_name: 3 is no string"),
    "id": ({"id": 42, "outputs": []}, "id: 42 is no string"),
    "name missing": ({"outputs": [{**OUTPUT, "name": None}]}, r"outputs\[0\].name: missing"),
    "name a number": ({"outputs": [OUTPUT, {**OUTPUT, "name": 1}]}, r"outputs\[1\].name: 1 is no string"),
    "datatype missing": ({"outputs": [{"name": "a", "shape": [1], "data": [1]}]}, r"outputs\[0\].datatype: missing"),
    "datatype unknown": ({"outputs": [{**OUTPUT, "datatype": "FP8"}]}, r"outputs\[0\].datatype: 'FP8' is no datatype"),
    "shape missing": ({"outputs": [{**OUTPUT, "shape": None}]}, r"outputs\[0\].shape: missing"),
    "shape a number": ({"outputs": [{**OUTPUT, "shape": 6}]}, r"outputs\[0\].shape: 6 is no list"),
    "size negative": ({"outputs": [{**OUTPUT, "shape": [-1, 2]}]}, r"outputs\[0\].shape: -1 is no size"),
    "size a text": ({"outputs": [{**OUTPUT, "shape": ["3", 2]}]}, r"outputs\[0\].shape: 3 is no size"),
    "size a truth": ({"outputs": [{**OUTPUT, "shape": [True, 6]}]}, r"outputs\[0\].shape: True is no size"),
    "data missing": ({"outputs": [{**OUTPUT, "data": None}]}, r"outputs\[0\].data: missing"),
    "data a number": ({"outputs": [{**OUTPUT, "data": 1}]}, r"outputs\[0\].data: 1 is no list"),
    "too few": ({"outputs": [{**OUTPUT, "data": [1.0]}]}, r"outputs\[0\].data: 1 values, where shape \[3, 2\] takes 6"),
    "a null": ({"outputs": [{**OUTPUT, "data": [1, 2, 3, 4, 5, None]}]}, r"outputs\[0\].data: None is no FP32"),
    "a text": ({"outputs": [{**OUTPUT, "data": [1, 2, 3, 4, 5, "6"]}]}, r"outputs\[0\].data: 6 is no FP32"),
    "ragged": ({"outputs": [{**OUTPUT, "data": [[1, 2], [3]]}]}, r"outputs\[0\].data: lists of different lengths"),
    "out of range": (
        {"outputs": [{**OUTPUT, "datatype": "UINT8", "data": [1, 2, 3, 4, 5, 256]}]},
        r"outputs\[0\].data: 256 is no UINT8",
    ),
    "a fraction": (
        {"outputs": [{**OUTPUT, "datatype": "INT64", "data": [1, 2, 3, 4, 5, 6.5]}]},
        r"outputs\[0\].data: 6.5 is no INT64",
    ),
    "no truth": ({"outputs": [{**OUTPUT, "datatype": "BOOL", "shape": [1], "data": [1]}]}, "1 is no BOOL"),
    "no text": ({"outputs": [{**OUTPUT, "datatype": "BYTES", "shape": [1], "data": [1]}]}, "1 is no string"),
    "parameters": ({"outputs": [{**OUTPUT, "parameters": [1]}]}, r"outputs\[0\].parameters: \[1\] is no object"),
    "given twice": (
        {"outputs": [{**OUTPUT, "parameters": {"binary_data_size": 24}}]},
        r"outputs\[0\].data: given, though its binary_data_size is, too",
    ),
}


@pytest.mark.parametrize(("body", "said"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_is_an_error_with_the_field_named(body, said):
    with pytest.raises(ValueError, match=said):
        rest.decode(body if isinstance(body, bytes) else json.dumps(body).encode())


def binary(size: object, behind: bytes, datatype: str = "FP32", shape: tuple[int, ...] = (2,)) -> bytes:
    output = {"name": "a", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    return json.dumps({"outputs": [output]}).encode() + behind


SIZE = r"outputs\[0\].parameters.binary_data_size"
MALFORMED_BINARY = {
    "too short": (binary(8, b"1234"), f"{SIZE}: 8, of 4 bytes that are left"),
    "no bytes": (binary(8, b""), f"{SIZE}: 8, of 0 bytes that are left"),
    "left over": (binary(8, b"123456789"), "1 bytes of binary data belong to none"),
    "not of the shape": (binary(4, b"1234"), f"{SIZE}: 4 bytes of FP32, where shape \\[2\\] takes 8"),
    "negative": (binary(-1, b""), f"{SIZE}: -1"),
    "a text": (binary("8", b"12345678"), f"{SIZE}: '8'"),
    "BYTES cut short": (binary(6, b"\5\0\0\0ab", "BYTES", (1,)), f"{SIZE}: value 0 of BYTES ends 3 bytes too late"),
    "BYTES without length": (binary(2, b"\5\0", "BYTES", (1,)), f"{SIZE}: value 0 of BYTES ends 2 bytes too late"),
    "BYTES too few": (binary(5, b"\1\0\0\0a", "BYTES"), f"{SIZE}: 1 values, where shape \\[2\\] takes 2"),
    "BOOL": (binary(2, b"\1\2", "BOOL"), f"{SIZE}: a BOOL is one byte, 0 or 1"),
}


@pytest.mark.parametrize(("body", "said"), MALFORMED_BINARY.values(), ids=MALFORMED_BINARY)
def test_malformed_binary_data_are_an_error_with_the_field_named(body, said):
    with pytest.raises(ValueError, match=said):
        rest.decode(body)


@pytest.mark.parametrize(("length", "said"), [(0, "0, of a body of"), (10**6, "1000000, of"), (9, "is no JSON")])
def test_a_wrong_length_of_the_json_is_an_error(length, said):
    with pytest.raises(ValueError, match=said):
        rest.decode(binary(8, b"12345678"), length)


MALFORMED_METADATA = {
    "no name": (rest.read_model, {"platform": "x"}, "name: missing"),
    "versions": (rest.read_model, {"name": "m", "versions": [1]}, r"versions\[0\]: 1 is no string"),
    "platform": (rest.read_model, {"name": "m", "platform": 1}, "platform: 1 is no string"),
    "inputs": (rest.read_model, {"name": "m", "inputs": {}}, "inputs: {} is no list"),
    "datatype": (
        rest.read_model,
        {"name": "m", "outputs": [{"name": "a", "datatype": "TYPE_FP32", "shape": [1]}]},
        r"outputs\[0\].datatype: 'TYPE_FP32' is no datatype",
    ),
    "shape": (
        rest.read_model,
        {"name": "m", "inputs": [{"name": "a", "datatype": "FP32", "shape": [-2]}]},
        r"inputs\[0\].shape: -2 is no size",
    ),
    "no version": (rest.read_server, {"name": "s"}, "version: missing"),
    "extensions": (rest.read_server, {"name": "s", "version": "1", "extensions": [[]]}, r"extensions\[0\]"),
}


@pytest.mark.parametrize(("read", "body", "said"), MALFORMED_METADATA.values(), ids=MALFORMED_METADATA)
def test_malformed_metadata_are_an_error_with_the_field_named(read, body, said):
    with pytest.raises(ValueError, match=said):
        read(json.dumps(body).encode())
