"""Calls of TensorFlow Serving that this server knows and does not answer."""

from __future__ import annotations

import json
import re

import grpc
import pytest
from tensorflow_serving.apis import classification_pb2, inference_pb2, regression_pb2

from tests.serving.engines.embedded_tfserving.embedded import Embedded

WORDS = "embedded-tfserving does not support {}: of the inference calls it answers Predict only"
REFUSED = re.compile(
    r'^:tensorflow:serving:request_count{model_name="([^"]+)",status="INVALID_ARGUMENT"} (\d+)$', re.MULTILINE
)


def refusals(server: Embedded) -> dict[str, int]:
    """Requests refused so far, by the model's name as the metrics page has it."""
    page = server.http("GET", "/monitoring/prometheus/metrics")[1].decode()
    return {model: int(count) for model, count in REFUSED.findall(page)}


@pytest.mark.parametrize(
    ("call", "request_"),
    [
        ("Classify", classification_pb2.ClassificationRequest()),
        ("Regress", regression_pb2.RegressionRequest()),
        ("MultiInference", inference_pb2.MultiInferenceRequest()),
    ],
)
def test_a_grpc_call_is_refused_as_for_a_model_without_such_a_signature_and_counted(
    batching_server: Embedded, call: str, request_
):
    before = refusals(batching_server)
    if call != "MultiInference":
        request_.model_spec.name = "cnn"
    with pytest.raises(grpc.RpcError) as refused:
        getattr(batching_server.prediction, call)(request_, timeout=30)
    assert isinstance(refused.value, grpc.Call)
    assert (refused.value.code().name, refused.value.details()) == ("INVALID_ARGUMENT", WORDS.format(call))
    assert refusals(batching_server)["(unknown)"] == before.get("(unknown)", 0) + 1


@pytest.mark.parametrize("call", ["classify", "regress"])
@pytest.mark.parametrize("where", ["", "/versions/1", "/labels/stable"])
def test_a_rest_call_is_refused_and_counted(batching_server: Embedded, call: str, where: str):
    before = refusals(batching_server)
    status, body = batching_server.http("POST", f"/v1/models/cnn{where}:{call}", {"examples": [{"x": 1.0}]})
    assert (status, json.loads(body)) == (400, {"error": WORDS.format(call)})
    assert refusals(batching_server)["cnn"] == before.get("cnn", 0) + 1


def test_a_rest_call_in_capitals_is_no_call(batching_server: Embedded):
    status, body = batching_server.http("POST", "/v1/models/cnn:CLASSIFY", {"examples": [{"x": 1.0}]})
    assert (status, json.loads(body)) == (400, {"error": "Malformed request: POST /v1/models/cnn:CLASSIFY"})
