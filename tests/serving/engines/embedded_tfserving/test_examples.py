"""Classify, Regress and MultiInference, over gRPC and REST, on a model with TF1's signatures, behind batching."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from tensorflow.core.example import example_pb2
from tensorflow_serving.apis import (
    classification_pb2,
    inference_pb2,
    input_pb2,
    regression_pb2,
)

from serving.engines.embedded_tfserving import classify_regress, examples, json_tensors
from serving.engines.embedded_tfserving.servable import TensorInfo
from serving.engines.embedded_tfserving.status import ServingError
from tests.serving.engines.embedded_tfserving.embedded import Embedded, running

CLASSIFY = "tensorflow/serving/classify"
REGRESS = "tensorflow/serving/regress"
PREDICT = "tensorflow/serving/predict"
INT32 = 3
CONFIG = """
model_config_list {{ config {{
  name: "scorer" base_path: "{folder}" model_platform: "tensorflow" model_version_policy {{ all {{}} }}
  version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }}
}} }}
"""
BATCHING = """
max_batch_size { value: 8 } batch_timeout_micros { value: 1000 }
num_batch_threads { value: 2 } max_enqueued_batches { value: 100 }
"""


def save(folder: Path, factor: float) -> None:
    """A model of examples with the features x (needed) and bias (0 where missing): the classes are "x" and "bias",
    their scores the features, and the regression is x * factor + bias."""
    import tensorflow as tf

    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        inputs, other = v1.placeholder(tf.string, [None]), v1.placeholder(tf.string, [None])
        wanted = {"x": tf.io.FixedLenFeature([], tf.float32), "bias": tf.io.FixedLenFeature([], tf.float32, 0.0)}
        features = tf.io.parse_example(inputs, wanted)
        x, bias = features["x"], features["bias"]
        scores = tf.stack([x, bias], axis=1)
        classes = tf.tile([["x", "bias"]], [tf.size(x), 1])
        value = x * factor + bias

        def signature(method: str, outputs: dict[str, Any], source: Any = inputs, alias: str = "inputs") -> Any:
            info = v1.saved_model.build_tensor_info
            described = {name: info(tensor) for name, tensor in outputs.items()}
            return v1.saved_model.build_signature_def({alias: info(source)}, described, method)

        signatures = {
            "serving_default": signature(CLASSIFY, {"classes": classes, "scores": scores}),
            "regress": signature(REGRESS, {"outputs": value}),
            "regress_column": signature(REGRESS, {"outputs": value[:, tf.newaxis]}),
            "only_scores": signature(CLASSIFY, {"scores": scores}),
            "only_classes": signature(CLASSIFY, {"classes": classes}),
            "as_tf2_saves_it": signature(PREDICT, {"scores": scores, "classes": classes}),
            "doubles": signature(CLASSIFY, {"scores": tf.cast(scores, tf.float64)}),
            "other_input": signature(CLASSIFY, {"scores": tf.strings.to_number([other])}, source=other),
            "other_alias": signature(REGRESS, {"outputs": value}, alias="examples"),
            "other_output": signature(CLASSIFY, {"value": value}),
            "other_method": signature("custom/method", {"scores": scores}),
            "three_outputs": signature(CLASSIFY, {"classes": classes, "scores": scores, "value": value}),
        }
        if factor != 10:
            signatures = {name: signatures[name] for name in ("serving_default", "regress")}
        builder = v1.saved_model.Builder(str(folder))
        builder.add_meta_graph_and_variables(session, ["serve"], signatures)
        builder.save()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Embedded]:
    """One model in two versions: version 1 multiplies by 10, version 2 by 100."""
    folder = tmp_path_factory.mktemp("examples")
    save(folder / "scorer" / "1", 10)
    save(folder / "scorer" / "2", 100)
    config, batching = folder / "models.txt", folder / "batching.txt"
    config.write_text(CONFIG.format(folder=folder / "scorer"))
    batching.write_text(BATCHING)
    flags = [f"--model_config_file={config}", "--enable_batching", f"--batching_parameters_file={batching}"]
    flags.append("--allow_version_labels_for_unavailable_models")
    with running(folder / "server", *flags) as started:
        yield started


def example(**features: float) -> Any:
    message = example_pb2.Example()
    for name, value in features.items():
        message.features.feature[name].float_list.value.append(value)
    return message


def given(*sent: Any, context: Any = None) -> Any:
    """An `Input`."""
    message = input_pb2.Input()
    if context is None:
        message.example_list.examples.extend(sent)
    else:
        message.example_list_with_context.examples.extend(sent)
        message.example_list_with_context.context.CopyFrom(context)
    return message


def specified(request: Any, signature: str = "", version: int = 1, label: str = "") -> Any:
    """The request with its model_spec filled in."""
    request.model_spec.name = "scorer"
    request.model_spec.signature_name = signature
    if label:
        request.model_spec.version_label = label
    else:
        request.model_spec.version.value = version
    return request


def classify(server: Embedded, data: Any, **spec: Any) -> Any:
    request = classification_pb2.ClassificationRequest(input=data)
    return server.prediction.Classify(specified(request, **spec), timeout=30)


def regress(server: Embedded, data: Any, signature: str = "regress", **spec: Any) -> Any:
    request = regression_pb2.RegressionRequest(input=data)
    return server.prediction.Regress(specified(request, signature, **spec), timeout=30)


def multi_request(data: Any, *tasks: tuple[str, str]) -> Any:
    """A MultiInferenceRequest with tasks of (signature, method name)."""
    request = inference_pb2.MultiInferenceRequest(input=data)
    for signature, method in tasks:
        specified(request.tasks.add(method_name=method), signature)
    return request


def refusal(call: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    """Code and message of a gRPC call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments, **named)
    error = caught.value
    assert isinstance(error, grpc.Call)
    return error.code().name, error.details() or ""


def rest(server: Embedded, body: Any, tail: str = "/versions/1:classify") -> tuple[int, Any]:
    status, answer = server.http("POST", "/v1/models/scorer" + tail, body)
    return status, json.loads(answer)


# gRPC


def test_classify_gives_labels_and_scores_of_each_example(server):
    response = classify(server, given(example(x=0.5, bias=2), example(x=3)))
    rows = [[(each.label, each.score) for each in row.classes] for row in response.result.classifications]
    assert rows == [[("x", 0.5), ("bias", 2)], [("x", 3), ("bias", 0)]]
    spec = response.model_spec
    assert (spec.name, spec.version.value, spec.signature_name) == ("scorer", 1, "serving_default")


def test_classify_leaves_out_what_the_signature_does_not_give(server):
    (scores,) = classify(server, given(example(x=1)), signature="only_scores").result.classifications
    assert [(each.label, each.score) for each in scores.classes] == [("", 1), ("", 0)]
    (classes,) = classify(server, given(example(x=1)), signature="only_classes").result.classifications
    assert [(each.label, each.score) for each in classes.classes] == [("x", 0), ("bias", 0)]


def test_classify_takes_a_signature_with_the_method_name_of_predict(server):
    response = classify(server, given(example(x=1)), signature="as_tf2_saves_it")
    assert response.result.classifications[0].classes[0].label == "x"


@pytest.mark.parametrize("signature", ["regress", "regress_column"])
def test_regress_gives_one_value_for_each_example(server, signature):
    response = regress(server, given(example(x=0.5, bias=2), example(x=3)), signature)
    assert [each.value for each in response.result.regressions] == [7, 30]
    assert (response.model_spec.version.value, response.model_spec.signature_name) == (1, signature)


def test_a_context_completes_every_example_and_gives_way_to_it(server):
    data = given(example(x=1), example(x=2, bias=5), context=example(bias=3, x=100))
    assert [each.value for each in regress(server, data).result.regressions] == [13, 25]


def test_a_version_is_found_by_its_number_its_label_or_as_the_latest(server):
    data = given(example(x=1))
    by_number = regress(server, data, version=2)
    by_label = regress(server, data, label="stable")
    latest = regression_pb2.RegressionRequest(input=data)
    latest.model_spec.name, latest.model_spec.signature_name = "scorer", "regress"
    answers = [by_number, by_label, server.prediction.Regress(latest, timeout=30)]
    assert [(each.model_spec.version.value, each.result.regressions[0].value) for each in answers] == [
        (2, 100),
        (1, 10),
        (2, 100),
    ]


def test_multi_inference_answers_every_task_in_order(server):
    data = given(example(x=1), context=example(bias=3))
    tasks = (("regress", REGRESS), ("", CLASSIFY), ("regress_column", REGRESS))
    response = server.prediction.MultiInference(multi_request(data, *tasks), timeout=30)
    first, second, third = response.results
    assert [each.value for each in first.regression_result.regressions] == [13]
    assert [each.score for each in second.classification_result.classifications[0].classes] == [1, 3]
    assert third.regression_result == first.regression_result
    specs = [(each.model_spec.name, each.model_spec.version.value) for each in response.results]
    assert specs == [("scorer", 1)] * 3
    names = [each.model_spec.signature_name for each in response.results]
    assert names == ["regress", "serving_default", "regress_column"]


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("nope", "No signature was found with the name: nope"),
        ("three_outputs", "Expected one or two output Tensors, found 3"),
        ("other_alias", 'No classification inputs found in SignatureDef: inputs {\n  key: "examples"\n'),
        (
            "other_output",
            'Expected classification signature outputs to contain at least one of "classes" or "scores". '
            "Signature was: inputs {\n",
        ),
        ("other_method", f"Expected classification signature method_name to be {CLASSIFY}. Was: custom/method"),
        ("doubles", "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE"),
    ],
)
def test_classify_refuses_a_signature_that_does_not_fit(server, signature, message):
    code, details = refusal(classify, server, given(example(x=1)), signature=signature)
    assert code == "INVALID_ARGUMENT"
    assert details.startswith(message)


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("nope", "No signature was found with the name: nope"),
        ("serving_default", "Expected one output Tensor."),
        ("other_alias", 'No regression inputs found in SignatureDef: inputs {\n  key: "examples"\n'),
        ("only_scores", 'No regression outputs found in SignatureDef: inputs {\n  key: "inputs"\n'),
    ],
)
def test_regress_refuses_a_signature_that_does_not_fit(server, signature, message):
    code, details = refusal(regress, server, given(example(x=1)), signature)
    assert code == "INVALID_ARGUMENT"
    assert details.startswith(message)


@pytest.mark.parametrize(
    "data", [input_pb2.Input(), given(), given(context=example(x=1))], ids=["unset", "list", "context"]
)
def test_no_examples_are_refused(server, data):
    tasks = multi_request(data, ("regress", REGRESS))
    for outcome in (
        refusal(classify, server, data),
        refusal(regress, server, data),
        refusal(server.prediction.MultiInference, tasks, timeout=30),
    ):
        assert outcome == ("INVALID_ARGUMENT", "Input is empty.")


def test_what_the_graph_refuses_is_said_in_its_words(server):
    code, details = refusal(classify, server, given(example(bias=1)))
    assert code == "INVALID_ARGUMENT"
    assert "Feature: x (data type: float) is required but could not be found." in details


def test_a_model_or_version_that_is_not_there_is_not_found(server):
    nobody = classification_pb2.ClassificationRequest(input=given(example(x=1)))
    assert refusal(server.prediction.Classify, nobody) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    nobody.model_spec.signature_name = "regress"
    assert refusal(server.prediction.Classify, nobody) == ("INVALID_ARGUMENT", "ModelSpec has no name specified.")
    nobody.model_spec.name = "nobody"
    outcome = refusal(server.prediction.Classify, nobody)
    assert outcome == ("NOT_FOUND", "Servable not found for request: Latest(nobody)")
    outcome = refusal(regress, server, given(example(x=1)), version=9)
    assert outcome == ("NOT_FOUND", "Servable not found for request: Specific(scorer, 9)")
    outcome = refusal(regress, server, given(example(x=1)), label="nope")
    assert outcome == ("INVALID_ARGUMENT", "Unrecognized servable version label: nope")


@pytest.mark.parametrize(
    ("tasks", "code", "message"),
    [
        ([], "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        ([("regress", REGRESS)] * 2, "INVALID_ARGUMENT", "Duplicate evaluation of signature: regress"),
        ([("nope", "x")], "INVALID_ARGUMENT", "Requested signature not found in model graph: nope"),
        ([("regress", PREDICT)], "UNIMPLEMENTED", f"Unsupported signature method_name: {PREDICT}"),
        ([("", REGRESS)], "INVALID_ARGUMENT", "Expected one output Tensor."),
        (
            [("", CLASSIFY), ("other_input", CLASSIFY)],
            "INVALID_ARGUMENT",
            "Input tensor must be the same for all Signatures.",
        ),
        (
            [("regress", REGRESS), ("doubles", CLASSIFY)],
            "INVALID_ARGUMENT",
            "Expected scores Tensor of DT_FLOAT. Got: DT_DOUBLE",
        ),
    ],
)
def test_multi_inference_refuses_tasks_that_do_not_go_together(server, tasks, code, message):
    request = multi_request(given(example(x=1)), *tasks)
    assert refusal(server.prediction.MultiInference, request, timeout=30) == (code, message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "Found ModelSpec with an empty model name."),
        ("another", "All ModelSpecs in a MultiInferenceRequest must access the same model name."),
    ],
)
def test_multi_inference_is_about_one_model(server, name, message):
    request = multi_request(given(example(x=1)), ("regress", REGRESS), ("", CLASSIFY))
    request.tasks[1].model_spec.name = name
    assert refusal(server.prediction.MultiInference, request, timeout=30) == ("INVALID_ARGUMENT", message)


# REST


def test_rest_classify_gives_pairs(server):
    body = {"examples": [{"x": 0.7, "bias": 2.0}, {"x": [3.0]}]}
    assert rest(server, body) == (200, {"results": [[["x", 0.7], ["bias", 2.0]], [["x", 3.0], ["bias", 0.0]]]})


def test_rest_regress_gives_numbers_with_the_context_merged(server):
    body = {"signature_name": "regress", "context": {"bias": 3.0}, "examples": [{"x": 1.0}, {"x": 0.07, "bias": 0.0}]}
    assert rest(server, body, "/versions/1:regress") == (200, {"results": [13.0, 0.7]})


def test_rest_keeps_what_is_not_finite(server):
    status, body = server.http("POST", "/v1/models/scorer/versions/1:classify", b'{"examples":[{"x":NaN,"bias":-Inf}]}')
    assert (status, body) == (200, b'{"results": [[["x", NaN], ["bias", -Infinity]]]}')


@pytest.mark.parametrize(
    ("tail", "value"),
    [("/versions/1", 10), ("/versions/2", 100), ("/labels/stable", 10), ("/labels/canary", 100), ("", 100)],
)
def test_rest_finds_a_version_by_its_number_its_label_or_as_the_latest(server, tail, value):
    body = {"signature_name": "regress", "examples": [{"x": 1.0}]}
    assert rest(server, body, tail + ":regress") == (200, {"results": [value]})


@pytest.mark.parametrize(
    ("tail", "status", "message"),
    [
        ("/versions/9:classify", 404, "Servable not found for request: Specific(scorer, 9)"),
        ("/labels/nope:classify", 400, "Unrecognized servable version label: nope"),
        (":CLASSIFY", 400, "Malformed request: POST /v1/models/scorer:CLASSIFY"),
        ("/versions/1:regress", 400, "Expected one output Tensor."),
    ],
)
def test_rest_refuses_what_it_cannot_find(server, tail, status, message):
    assert rest(server, {"examples": [{"x": 1.0}]}, tail) == (status, {"error": message})


def test_rest_faults_of_the_body_come_first(server):
    status, answer = rest(server, {"examples": []}, "/versions/9:classify")
    assert status == 400
    assert "is an empty array" in answer["error"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("[1]", "JSON Value: [1] Is not object"),
        ('{"signature_name": 1}', "not formatted correctly. 'signature_name' key must be a string value."),
        ("{}", "JSON Value: {} When method is classify, key 'examples' is expected and was not found"),
        ('{"examples": {}}', "Expecting 'examples' value to be an list/array"),
        ('{"examples": []}', "'examples' value is an empty array"),
        ('{"examples": [1]}', "Example must be JSON object but got JSON Number"),
        ('{"examples": [{}], "context": null}', "Example must be JSON object but got JSON Null"),
        ('{"examples": [{"f": null}]}', "Feature: f has element with unexpected JSON type: Null"),
        ('{"examples": [{"f": [[1]]}]}', "Feature: f has element with unexpected JSON type: Array"),
        ('{"examples": [{"f": {"b": 1}}]}', "Feature: f has element with unexpected JSON type: Object"),
        ('{"examples": [{"f": {"b64": "*"}}]}', "Unable to base64 decode"),
        ('{"examples": [{"f": [1, 1.5]}]}', "Unexpected element type in feature: f expecting type: int64"),
        ('{"examples": [{"f": [1.5, true]}]}', "Unexpected element type in feature: f expecting type: float"),
        ('{"examples": [{"f": ["", 1.5]}]}', "Unexpected element type in feature: f expecting type: bytes"),
        ('{"examples": [{"f": 9223372036854775808}]}', "Feature: f has uint64 element. Only int64 is supported."),
        ('{"examples": [{"f": 1e39}]}', "Cannot convert JSON value: 1e+39 to float without loss of precision."),
        (
            '{"examples": [{"f": -1.2345677e40}]}',
            "Cannot convert JSON value: -1.2345677000000001e+40 to float without loss of precision.",
        ),
        ('{"examples": [', "JSON Parse error: Invalid value. at offset: 14"),
    ],
)
def test_a_request_that_is_no_list_of_examples_is_refused(body, message):
    with pytest.raises(ServingError) as caught:
        examples.read(body.encode())
    assert caught.value.code.name == "INVALID_ARGUMENT"
    assert caught.value.message.endswith(message)


def test_json_becomes_features_of_the_kind_of_its_values():
    body = {
        "signature_name": "s",
        "examples": [
            {"i": 3, "l": [-1, True], "f": 0.5, "t": "é", "b": [{"b64": "/wA"}, "x"], "none": []},
            {"big": -(2**63)},
        ],
    }
    name, batch = examples.read(json.dumps(body).encode())
    first, second = (example_pb2.Example.FromString(each).features.feature for each in batch)
    assert name == "s"
    assert list(first["i"].int64_list.value) == [3]
    assert list(first["l"].int64_list.value) == [-1, 1]
    assert list(first["f"].float_list.value) == [0.5]
    assert list(first["t"].bytes_list.value) == ["é".encode()]
    assert list(first["b"].bytes_list.value) == [b"\xff\x00", b"x"]
    assert first["none"].WhichOneof("kind") is None
    assert list(second["big"].int64_list.value) == [-(2**63)]


def test_the_first_of_several_equal_keys_counts():
    name, batch = examples.read(b'{"signature_name":"a","examples":[{"x":1}],"examples":[],"signature_name":"b"}')
    assert (name, len(batch)) == ("a", 1)


def test_a_name_that_is_no_utf8_is_taken():
    _, (serialized,) = examples.read(b'{"examples":[{"\xff":1}]}')
    assert list(example_pb2.Example.FromString(serialized).features.feature) == ["\ufffd"]


# Results


def outputs_of(*aliases: str) -> Any:
    """A signature with these outputs, which it says are of a type that they are not."""
    return SimpleNamespace(outputs=[TensorInfo(alias, alias + ":0", INT32, None) for alias in aliases])


LABELS = np.array([[b"a", b"b"]], object)
SCORES = np.zeros((1, 2), np.float32)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"scores": SCORES[0]}, "Expected Tensor shape: [batch_size num_classes] but got [2]"),
        ({"classes": b"scalar"}, "Expected Tensor shape: [batch_size num_classes] but got []"),
        ({"classes": SCORES.astype(np.int64)}, "Expected classes Tensor of DT_STRING. Got: DT_INT64"),
        ({"scores": LABELS}, "Expected scores Tensor of DT_FLOAT. Got: DT_STRING"),
        ({"classes": LABELS[:0]}, "Expected classes output batch size of 1. Got: 0"),
        ({"scores": np.zeros((3, 2), np.float32)}, "Expected scores output batch size of 1. Got: 3"),
        (
            {"classes": LABELS, "scores": SCORES[:, :1]},
            "Tensors class and score should match in dim_size(1). Got 2 vs. 1",
        ),
    ],
)
def test_outputs_that_are_no_classification_are_refused(outputs, message):
    with pytest.raises(ServingError, match=re.escape(message)):
        classify_regress.classification(outputs_of(*outputs), list(outputs.values()), 1)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (SCORES, "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got [1,2]"),
        (np.float32(1), "Expected output Tensor shape to be either [batch_size] or [batch_size, 1] but got []"),
        (SCORES.T, "Input batch size did not match output batch size: 1 vs. 2"),
        (np.zeros(1, np.float64), "Expected output Tensor of DT_FLOAT.  Got: DT_DOUBLE"),
    ],
)
def test_an_output_that_is_no_regression_is_refused(output, message):
    with pytest.raises(ServingError, match=re.escape(message)):
        classify_regress.regression(outputs_of("outputs"), [output], 1)


def test_a_label_that_is_no_utf8_is_answered():
    labels = np.array([[b"\xff"]], object)
    result = classify_regress.classification(outputs_of("classes"), [labels], 1)
    assert json.loads(json_tensors.write_results(result)) == {"results": [[["\ufffd", 0.0]]]}


# Metrics


def test_calls_are_counted_by_their_method(server):
    def series() -> dict[str, float]:
        page = server.http("GET", "/monitoring/prometheus/metrics")[1].decode()
        return {
            name: float(value) for name, value in re.findall(r"^(:tensorflow:serving:\S+) (\S+)$", page, re.MULTILINE)
        }

    data = given(example(x=1))
    before = series()
    classify(server, data)
    regress(server, data)
    server.prediction.MultiInference(multi_request(data, ("regress", REGRESS), ("", CLASSIFY)), timeout=30)
    rest(server, {"examples": [{"x": 1.0}]})
    rest(server, {"signature_name": "regress", "examples": [{"x": 1.0}]}, "/versions/1:regress")
    rest(server, {"examples": [{"x": 1.0}]}, "/versions/1:regress")
    refusal(regress, server, data, "nope")
    after = series()

    model = ':tensorflow:serving:%s{model_name="scorer",'
    latency, runtime = model % "request_latency_count", model % "runtime_latency_count"
    expected = {
        model % "request_count" + 'status="OK"}': 5,
        model % "request_count" + 'status="INVALID_ARGUMENT"}': 2,
        latency + 'API="Classify",entrypoint="GRPC"}': 1,
        latency + 'API="Regress",entrypoint="GRPC"}': 1,
        latency + 'API="MultiInference",entrypoint="GRPC"}': 1,
        latency + 'API="classify",entrypoint="REST"}': 1,
        latency + 'API="regress",entrypoint="REST"}': 1,
        runtime + 'API="Classify",runtime="TF1"}': 2,
        runtime + 'API="Regress",runtime="TF1"}': 2,
        runtime + 'API="MultiInference",runtime="TF1"}': 2,
    }
    assert {name: after[name] - before.get(name, 0) for name in expected} == expected
