from __future__ import annotations

import base64
import json
import subprocess
import sys
from dataclasses import replace

import httptools
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving import requests
from serving.engines.engine import Tensor
from serving.target import PROTOCOLS
from serving.wire.protobuf import tensorflow_serving_pb2 as tf_serving
from serving.wire.protobuf import torchserve_pb2 as torchserve
from tests.serving.targets import ENGINES, target

STACKS = tuple(ENGINES)

IMAGES = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
PROBABILITIES = np.array([[0.25, 0.75], [1.0, 0.0], [0.1, 0.9]], np.float32)


class Parsed:
    """A request as an HTTP server sees it."""

    def __init__(self, encoded: bytes) -> None:
        self.headers: dict[str, str] = {}
        self.body, self.url, self.complete = b"", b"", False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(encoded)
        self.method, self.keep_alive = parser.get_method(), parser.should_keep_alive()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode().lower()] = value.decode()

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        self.complete = True


@pytest.mark.parametrize(
    ("stack", "url"), [("pytorch", b"/predictions/convnet"), ("tensorflow", b"/v1/models/convnet:predict")]
)
@pytest.mark.parametrize("protocol", ["rest", "rest-binary"])
def test_a_rest_request_is_complete_http(stack, url, protocol):
    parsed = Parsed(requests.encode(target(stack), protocol, IMAGES))
    assert (parsed.complete, parsed.keep_alive, parsed.method, parsed.url) == (True, True, b"POST", url)
    assert parsed.headers["host"] == "127.0.0.1:2"
    assert int(parsed.headers["content-length"]) == len(parsed.body)


def test_json_rows_are_the_same_body_on_both_stacks():
    bodies = [Parsed(requests.encode(target(stack), "rest", IMAGES)).body for stack in STACKS]
    assert bodies[0] == bodies[1]
    assert np.array_equal(json.loads(bodies[0])["instances"], IMAGES)


def test_rest_binary_carries_raw_pixels():
    parsed = Parsed(requests.encode(target("pytorch"), "rest-binary", IMAGES))
    assert parsed.body == IMAGES.tobytes()
    assert parsed.headers["content-type"] == "application/octet-stream"
    body = json.loads(Parsed(requests.encode(target("tensorflow"), "rest-binary", IMAGES)).body)
    assert body["signature_name"] == "serving_bytes"
    assert [base64.b64decode(row["b64"]) for row in body["instances"]] == [image.tobytes() for image in IMAGES]


def test_grpc_messages_carry_raw_pixels():
    message = torchserve.PredictionsRequest.FromString(requests.encode(target("pytorch"), "grpc", IMAGES))
    assert (message.model_name, dict(message.input)) == ("convnet", {"data": IMAGES.tobytes()})
    predict = tf_serving.PredictRequest.FromString(requests.encode(target("tensorflow"), "grpc", IMAGES))
    tensor = predict.inputs["images"]
    assert predict.model_spec.name == "convnet"
    assert [dim.size for dim in tensor.tensor_shape.dim] == [3, 32, 32, 3]
    assert tensor.tensor_content == IMAGES.tobytes()


@pytest.mark.parametrize(
    ("stack", "method"),
    [
        ("pytorch", "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"),
        ("tensorflow", "/tensorflow.serving.PredictionService/Predict"),
    ],
)
def test_grpc_method(stack, method):
    assert requests.grpc_method(target(stack)) == method


@pytest.mark.parametrize(
    "images",
    [IMAGES.astype(np.float32), IMAGES[0], IMAGES[:0], IMAGES[:, :16]],
    ids=["float", "one image", "none", "other shape"],
)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_images_that_the_target_does_not_take_are_refused(images, protocol):
    with pytest.raises(ValueError, match="images are"):
        requests.encode(target("pytorch"), protocol, images)


def test_unknown_protocol():
    with pytest.raises(ValueError, match="use one of grpc, rest, rest-binary"):
        requests.encode(target("pytorch"), "soap", IMAGES)


def answer(stack: str, protocol: str, values: np.ndarray) -> bytes:
    """What the real server sends for ``values``."""
    if stack == "pytorch" and protocol == "grpc":
        return torchserve.PredictionResponse(prediction=values.tobytes()).SerializeToString()
    if stack == "pytorch" and protocol == "rest-binary":
        return values.tobytes()
    if protocol == "grpc":
        tensor = tf_serving.TensorProto(
            dtype=tf_serving.DT_FLOAT,
            tensor_shape=tf_serving.TensorShapeProto(dim=[{"size": size} for size in values.shape]),
            float_val=values.ravel(),
        )
        return tf_serving.PredictResponse(outputs={"probabilities": tensor}).SerializeToString()
    return json.dumps({"predictions": values.tolist()}).encode()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("stack", STACKS)
def test_answers_decode(stack, protocol):
    decoded = requests.decode(target(stack, classes=2), protocol, answer(stack, protocol, PROBABILITIES))
    assert decoded.dtype == np.float32
    assert np.array_equal(decoded, PROBABILITIES)


def test_tensor_content_decodes_too():
    tensor = tf_serving.TensorProto(
        dtype=tf_serving.DT_FLOAT,
        tensor_shape=tf_serving.TensorShapeProto(dim=[{"size": 3}, {"size": 2}]),
        tensor_content=PROBABILITIES.tobytes(),
    )
    body = tf_serving.PredictResponse(outputs={"probabilities": tensor}).SerializeToString()
    assert np.array_equal(requests.decode(target("tensorflow", classes=2), "grpc", body), PROBABILITIES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("body", [b"", b'{"error": "no"}', b"\xff\xff\xff", b'{"predictions": [[0.1, "x"]]}'])
def test_what_is_no_answer_raises(stack, protocol, body):
    with pytest.raises(ValueError, match=r"answer|probabilities|predictions"):
        requests.decode(target(stack, classes=2), protocol, body)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("stack", STACKS)
def test_an_answer_with_other_classes_raises(stack, protocol):
    with pytest.raises(ValueError, match=r"answer|probabilities|predictions"):
        requests.decode(target(stack, classes=7), protocol, answer(stack, protocol, PROBABILITIES))


@settings(deadline=None, max_examples=200)
@given(body=st.binary(max_size=200), stack=st.sampled_from(STACKS), protocol=st.sampled_from(PROTOCOLS))
def test_decode_returns_an_answer_or_raises_value_error(body, stack, protocol):
    try:
        decoded = requests.decode(target(stack, classes=2), protocol, body)
    except ValueError:
        return
    assert decoded.shape[1] == 2
    assert decoded.dtype == np.float32


@settings(deadline=None, max_examples=50)
@given(images=arrays.arrays(np.uint8, st.tuples(st.integers(1, 4), st.just(3), st.just(5), st.just(2))))
def test_every_pixel_arrives_in_order(images):
    to = target("tensorflow", shape=(3, 5, 2))
    body = Parsed(requests.encode(to, "rest", images[:, ::-1])).body  # not contiguous
    assert np.array_equal(json.loads(body)["instances"], images[:, ::-1])


def test_the_load_generators_imports_stay_light():
    code = (
        "import sys, serving.requests, serving.target, serving.profile;"
        "print([name for name in sys.modules if name.split('.')[0] in {'torch', 'tensorflow', 'ts', 'onnx'}])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_headers_base_path_and_version_of_the_targets_own():
    to = replace(
        target("pytorch"),
        headers=(("X-Tenant", "blue"), ("host", "models.example")),
        base_path="/serving",
        pinned_version="2.0",
    )
    encoded = requests.encode(to, "rest", IMAGES)
    parsed = Parsed(encoded)
    assert parsed.url == b"/serving/predictions/convnet/2.0"
    assert (parsed.headers["x-tenant"], parsed.headers["host"]) == ("blue", "models.example")
    assert encoded.lower().count(b"host:") == 1
    assert requests.rest_path(to) == "/serving/predictions/convnet/2.0"
    assert torchserve.PredictionsRequest.FromString(requests.encode(to, "grpc", IMAGES)).model_version == "2.0"


def test_a_body_of_the_users_own_is_sent_as_it_is():
    parsed = Parsed(requests.encode_body(target("tensorflow"), "rest", b'{"instances": []}'))
    assert (parsed.complete, parsed.body) == (True, b'{"instances": []}')
    assert parsed.headers["content-type"] == "application/json"
    assert requests.encode_body(target("tensorflow"), "grpc", b"\x0a\x00") == b"\x0a\x00"


def test_an_encoded_image_goes_to_torchserve_as_it_is_and_in_json_as_base64():
    to = replace(target("pytorch", classes=0), inputs=(Tensor("data", "bytes", (-1,)),), input_shape=())
    jpeg = np.array([b"\xff\xd8jpeg"], object)
    assert Parsed(requests.encode(to, "rest-binary", jpeg)).body == b"\xff\xd8jpeg"
    assert json.loads(Parsed(requests.encode(to, "rest", jpeg)).body) == {"instances": [{"b64": "/9hqcGVn"}]}
    with pytest.raises(ValueError, match="one encoded image or string a request, not 2"):
        requests.encode(to, "rest-binary", np.array([b"a", b"b"], object))
