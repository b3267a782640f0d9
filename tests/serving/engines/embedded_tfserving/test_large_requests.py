"""Large gRPC requests and answers, their values in typed fields: they hold nobody up, and mean what small ones do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import predict_pb2

from serving.engines.embedded_tfserving import large_requests, tensors
from serving.engines.embedded_tfserving.grpc_service import PREDICTION_SERVICE
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code
from tests.serving.engines.embedded_tfserving.embedded import Embedded
from tests.serving.engines.embedded_tfserving.test_bad_requests import SLOWEST_STATUS_S, slowest_status

VALUES = 4_000_000


def request(signature: str = "", **inputs: np.ndarray) -> Any:
    """A PredictRequest to `misc`, its values in the typed fields."""
    message = predict_pb2.PredictRequest()
    message.model_spec.name, message.model_spec.signature_name = "misc", signature
    for alias, array in inputs.items():
        number = next(number for number, (dtype, _, _) in tensors.TYPES.items() if dtype == array.dtype)
        entry = tensors.encode(alias, array, number)
        message.inputs[alias].CopyFrom(predict_pb2.PredictResponse.FromString(entry).outputs[alias])
    return message


# The client's process must not be what holds the status calls up.
SEND = """
import sys, grpc
port, method, file = sys.argv[1:]
channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.max_receive_message_length", -1)])
try:
    print("OK", len(channel.unary_unary(method)(open(file, "rb").read(), timeout=100)), end="")
except grpc.RpcError as error:
    print(error.code().name, error.details(), end="")
"""
FLOATS = np.ones((VALUES // 2, 2), np.float32)
LARGE = {
    "floats": (request(x=FLOATS), "OK"),
    "small integers": (request(x=FLOATS.astype(np.uint8)), "INVALID_ARGUMENT Expects arg[0] to be float but uint8 is"),
    "large integers": (
        request(x=FLOATS.astype(np.int64) << 30),
        "INVALID_ARGUMENT Expects arg[0] to be float but int64",
    ),
    "strings": (
        request(x=np.full((VALUES // 8, 2), b"", object)),
        "INVALID_ARGUMENT Expects arg[0] to be float but string is",
    ),
    "integers both ways": (
        request(
            "ints",
            i=np.full(VALUES // 8, 2**30, np.int32),
            q=np.ones(VALUES // 8, bool),
            l=np.full(VALUES // 8, 2**40, np.int64),
        ),
        "OK",
    ),
    "unknown model": (request(x=FLOATS), "NOT_FOUND Servable not found for request: Latest(none)"),
    "cut off": (request(x=FLOATS), "INTERNAL"),
}
LARGE["unknown model"][0].model_spec.name = "none"


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_request_holds_nobody_up(recorded_server: Embedded, tmp_path: Path, name: str):
    message, answer = LARGE[name]
    file = tmp_path / "request"
    file.write_bytes(message.SerializeToString()[: -1 if name == "cut off" else None])
    command = [sys.executable, "-c", SEND, str(recorded_server.port), f"{PREDICTION_SERVICE}Predict", str(file)]
    answers = []

    def send() -> None:
        answers.append(subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout)

    slowest = slowest_status(recorded_server, send)
    assert answers[0].startswith(answer)
    assert slowest < SLOWEST_STATUS_S


@pytest.mark.slow
def test_what_is_large_is_answered_as_what_is_small(recorded_server: Embedded):
    many = large_requests.VALUES_AT_ONCE + 1
    numbers = np.random.default_rng(0).integers(-(2**30), 2**30, many)
    bools = numbers % 2 == 0
    sent = request("ints", i=numbers.astype(np.int32), q=bools, l=numbers)
    sent.output_filter.extend(["i2", "l2", "notq"])
    answer = recorded_server.prediction.Predict(sent, timeout=60)
    assert answer.model_spec.signature_name == "ints"
    read = {alias: tensors.decode(proto, alias) for alias, proto in answer.outputs.items()}
    assert read.keys() == {"i2", "l2", "notq"}
    np.testing.assert_array_equal(read["i2"], 2 * numbers)
    np.testing.assert_array_equal(read["l2"], 2 * numbers)
    np.testing.assert_array_equal(read["notq"], ~bools)
    words = np.array([str(number).encode() for number in numbers], object)
    answer = recorded_server.prediction.Predict(request("bytes", text_bytes=words), timeout=60)
    assert list(answer.outputs["echo_bytes"].string_val) == words.tolist()
    assert list(answer.outputs["length"].int_val) == [len(word) for word in words]


@given(st.dictionaries(st.text(max_size=5), st.lists(st.floats(width=32), max_size=5), max_size=3), st.text(max_size=5))
def test_a_decoded_request_is_the_request(inputs, signature):
    arrays = {alias: np.array(values, np.float32) for alias, values in inputs.items()}
    message = request(signature, **arrays)
    message.output_filter.append("y")
    rest, decoded = large_requests.decode(message.SerializeToString())
    for alias, array in arrays.items():
        np.testing.assert_array_equal(decoded[alias].values(), array)
        assert decoded[alias].dtype == 1
    assert decoded.keys() == arrays.keys()
    message.inputs.clear()
    assert predict_pb2.PredictRequest.FromString(rest) == message


def test_a_tensor_that_is_not_one_is_refused_when_it_is_asked_for():
    message = request(x=np.zeros(3, np.float32), y=np.zeros(3, np.float32))
    message.inputs["x"].tensor_shape.dim[0].size = -1
    message.inputs["y"].dtype = 101
    _, decoded = large_requests.decode(message.SerializeToString())
    for alias in ("x", "y"):
        with pytest.raises(ServingError, match=f"INVALID_ARGUMENT: tensor parsing error: {alias}"):
            decoded[alias].values()
    with pytest.raises(ServingError) as refused:
        large_requests.decode(message.SerializeToString()[:-1])
    assert (refused.value.code, refused.value.message) == (Code.INTERNAL, "")
