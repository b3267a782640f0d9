"""A target of the protocol, asked by what its server says of the model, or by a bundle's own interface."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from serving import requests
from serving.engines import open_inference_calls, registry
from serving.engines.engine import Description, Tensor
from serving.target import Target
from serving.wire.open_inference import rpc
from serving.wire.protobuf import open_inference_pb2 as messages
from tests.serving.targets import target
from tests.serving.test_requests import Parsed

IMAGES = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
ROWS = np.array([[0.25, 0.75], [1, 0]], np.float32)


def bundles(**changes: object) -> Target:
    return replace(target("pytorch", classes=2), engine="open-inference", **changes)  # type: ignore[arg-type]


def described(*outputs: str, version: str = "") -> Target:
    return bundles(
        inputs=(Tensor("x", "float32", (-1, 3)),),
        outputs=tuple(Tensor(name, "float32", (-1, 2)) for name in outputs),
        input_shape=(3,),
        classes=0,
        pinned_version=version,
    )


def test_a_bundles_interface_as_json():
    parsed = Parsed(requests.encode(bundles(), "rest", IMAGES))
    assert (parsed.url, parsed.headers["content-type"]) == (b"/v2/models/convnet/infer", "application/json")
    (tensor,) = json.loads(parsed.body)["inputs"]
    assert (tensor["name"], tensor["datatype"], tensor["shape"]) == ("images", "UINT8", [2, 32, 32, 3])
    assert tensor["data"] == IMAGES.ravel().tolist()


def test_a_bundles_interface_with_binary_data():
    parsed = Parsed(requests.encode(bundles(pinned_version="7"), "rest-binary", IMAGES))
    assert (parsed.url, parsed.headers["content-type"]) == (
        b"/v2/models/convnet/versions/7/infer",
        "application/octet-stream",
    )
    length = int(parsed.headers["inference-header-content-length"])
    assert json.loads(parsed.body[:length])["inputs"][0]["parameters"] == {"binary_data_size": IMAGES.size}
    assert parsed.body[length:] == IMAGES.tobytes()


def test_a_described_model_over_grpc():
    to = described("p", "q", version="3")
    request = messages.ModelInferRequest.FromString(requests.encode(to, "grpc", np.zeros((1, 3), np.float32)))
    assert (request.model_name, request.model_version) == ("convnet", "3")
    assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [("x", "FP32", [1, 3])]
    assert [one.name for one in request.outputs] == ["p", "q"]
    assert requests.grpc_method(to) == rpc.MODEL_INFER


def test_a_whole_body_of_the_users_own_gets_the_header_that_it_needs():
    head = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "UINT8", "parameters": {"binary_data_size": 1}}]}'
    parsed = Parsed(requests.encode_body(bundles(), "rest-binary", head + b"}"))
    assert (parsed.headers["inference-header-content-length"], parsed.body) == (str(len(head)), head + b"}")
    assert "inference-header-content-length" not in Parsed(requests.encode_body(bundles(), "rest", head)).headers
    with pytest.raises(ValueError, match="does not start with JSON"):
        requests.encode_body(bundles(), "rest-binary", b"\xff\xd8")


def body(**outputs: np.ndarray) -> bytes:
    listed = [
        {"name": name, "shape": values.shape, "datatype": "FP32", "data": values.ravel().tolist()}
        for name, values in outputs.items()
    ]
    return json.dumps({"model_name": "convnet", "outputs": listed}).encode()


def test_which_output_counts():
    answer = body(other=ROWS[:, :1], probabilities=ROWS)
    assert np.array_equal(requests.decode(bundles(), "rest", answer), ROWS)
    assert np.array_equal(requests.decode(described("other"), "rest", answer), ROWS[:, :1])
    with pytest.raises(ValueError, match="the answer has the outputs other, probabilities, not 'p'"):
        requests.decode(described("p"), "rest", answer)


def test_the_number_of_classes_is_checked_where_it_is_known():
    with pytest.raises(ValueError, match=r"probabilities.shape: \[2, 1\], not \[N, 2\]"):
        requests.decode(bundles(), "rest", body(probabilities=ROWS[:, :1]))


@pytest.mark.parametrize("protocol", ["rest", "rest-binary"])
def test_what_is_asked_of_a_server_over_rest(protocol):
    question = open_inference_calls.question(bundles(pinned_version="2"), protocol)
    assert registry.engine("open-inference").metadata(bundles(), protocol) is not None
    assert (question.path, question.message) == ("/v2/models/convnet/versions/2", None)
    model = {
        "name": "convnet",
        "versions": ["1", "2"],
        "platform": "x",
        "inputs": [{"name": "x", "datatype": "BF16", "shape": [-1, 3]}],
        "outputs": [{"name": "y", "datatype": "BYTES", "shape": [-1]}],
    }
    (server,) = question.also
    assert (server.path, server.message) == ("/v2", None)
    found = question.read(json.dumps(model).encode())
    found = found.completed(server.read(b'{"name": "mlserver", "version": "1.7.1", "extensions": []}'))
    assert found == Description(
        server="mlserver 1.7.1",
        inputs=(Tensor("x", "bfloat16", (-1, 3)),),
        outputs=(Tensor("y", "bytes", (-1,)),),
        versions=("1", "2"),
    )


def test_what_is_asked_of_a_server_over_grpc():
    question = open_inference_calls.question(bundles(pinned_version="2"), "grpc")
    assert question.message is not None
    assert question.path == "/inference.GRPCInferenceService/ModelMetadata"
    asked = messages.ModelMetadataRequest.FromString(question.message)
    assert (asked.name, asked.version) == ("convnet", "2")
    tensor = {"name": "x", "datatype": "UINT8", "shape": [-1, 3]}
    said = messages.ModelMetadataResponse(name="convnet", versions=["2"], inputs=[tensor], outputs=[tensor])
    described = Tensor("x", "uint8", (-1, 3))
    assert question.read(said.SerializeToString()) == Description("", (described,), (described,), ("2",))
    (server,) = question.also
    assert (server.path, server.message) == ("/inference.GRPCInferenceService/ServerMetadata", b"")
    name = messages.ServerMetadataResponse(name="triton", version="2.51.0").SerializeToString()
    assert server.read(name).server == "triton 2.51.0"
