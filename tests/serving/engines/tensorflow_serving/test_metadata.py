"""What TensorFlow Serving says of a model: its recorded answer, and messages of its own library."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from serving.engines import registry
from serving.engines.engine import Tensor
from serving.engines.tensorflow_serving import metadata
from tests.serving.targets import target

RECORDED = Path(__file__).parents[1] / "embedded_tfserving" / "recordings" / "rest.jsonl"
INPUTS = (Tensor("images", "uint8", (-1, 32, 32, 3)),)
OUTPUTS = (Tensor("classes", "int64", (-1,)), Tensor("probabilities", "float32", (-1, 10)))


def recorded() -> bytes:
    lines = (json.loads(line) for line in RECORDED.read_text().splitlines())
    return next(one["response_body"] for one in lines if one["name"] == "metadata_version").encode()


def asked(protocol: str, version: str = ""):
    to = replace(target("tensorflow"), pinned_version=version)
    question = registry.engine(to.engine).metadata(to, protocol)
    assert question is not None
    return question


def test_the_servers_recorded_answer_is_read():
    question = asked("rest")
    assert (question.path, question.message) == ("/v1/models/convnet/metadata", None)
    found = question.read(recorded())
    assert (found.inputs, found.outputs, found.versions, found.server) == (INPUTS, OUTPUTS, ("1",), "")


def test_messages_of_its_own_library_are_read_and_understood():
    official = pytest.importorskip("tensorflow_serving.apis.get_model_metadata_pb2")
    question = asked("grpc", "3")
    assert question.path == "/tensorflow.serving.PredictionService/GetModelMetadata"
    request = official.GetModelMetadataRequest.FromString(question.message)
    assert (request.model_spec.name, request.model_spec.version.value) == ("convnet", 3)
    assert list(request.metadata_field) == ["signature_def"]
    signatures = official.SignatureDefMap()
    serving = signatures.signature_def["serving_default"]
    for name, tensor, number in [("images", serving.inputs["images"], 4), ("p", serving.outputs["p"], 1)]:
        tensor.name, tensor.dtype = f"{name}:0", number
        for size in (-1, 10):
            tensor.tensor_shape.dim.add().size = size
    answer = official.GetModelMetadataResponse()
    answer.model_spec.name, answer.model_spec.version.value = "convnet", 3
    answer.metadata["signature_def"].Pack(signatures)
    found = question.read(answer.SerializeToString())
    assert found.inputs == (Tensor("images", "uint8", (-1, 10)),)
    assert found.outputs == (Tensor("p", "float32", (-1, 10)),)
    assert found.versions == ("3",)


@pytest.mark.parametrize(
    ("version", "path"),
    [("7", "/v1/models/convnet/versions/7/metadata"), ("canary", "/v1/models/convnet/labels/canary/metadata")],
)
def test_a_version_or_a_label_that_is_asked_for(version, path):
    assert asked("rest", version).path == path


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no TensorFlow Serving metadata"),
        (b'{"error": "Servable not found"}', "no TensorFlow Serving metadata"),
        (
            b'{"model_spec": {"version": "1"}, "metadata": {"signature_def": {"signature_def": {"a": {}, "b": {}}}}}',
            "the model has the signatures a, b, not serving_default",
        ),
        (
            b'{"model_spec": {"version": "1"}, "metadata": {"signature_def": {"signature_def": '
            b'{"serving_default": {"inputs": {"x": {"dtype": "DT_VARIANT", "tensor_shape": {}}}, "outputs": {}}}}}}',
            "serving_default.x.dtype",
        ),
        (
            b'{"model_spec": {"version": "1"}, "metadata": {"signature_def": {"signature_def": '
            b'{"serving_default": {"inputs": {"x": {"dtype": "DT_INT8"}}, "outputs": {}}}}}}',
            "metadata.signature_def.serving_default: 'tensor_shape'",
        ),
    ],
)
def test_what_is_no_metadata_says_what_is_wrong(body, said):
    with pytest.raises(ValueError, match=said):
        metadata.read_json(body)


@pytest.mark.parametrize("message", [b"\xff\xff", b""])
def test_what_is_no_metadata_message_says_so(message):
    with pytest.raises(ValueError, match=r"no TensorFlow Serving metadata message|signatures none, not"):
        metadata.read_message(message)
