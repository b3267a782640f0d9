"""Requests with several inputs, as each protocol has them, and answers with several outputs."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from serving import reference_file, requests
from serving.engines.engine import Tensor
from serving.reference_file import structured
from serving.target import HttpRequest, Target
from serving.wire.open_inference import datatypes
from serving.wire.protobuf import open_inference_pb2 as inference
from serving.wire.protobuf import tensorflow_serving_pb2 as tf_serving
from tests.serving.targets import target
from tests.serving.test_requests import Parsed

INPUTS = (Tensor("ids", "int64", (-1, 3)), Tensor("scale", "float32", (-1,)), Tensor("word", "bytes", (-1, 1)))
OUTPUTS = (Tensor("boxes", "float32", (-1, 4)), Tensor("scores", "float32", (-1, 2)))


def words(*values: bytes) -> np.ndarray:
    return np.array([*values, None], object)[:-1]


SAMPLES = structured(
    {
        "ids": np.arange(6, dtype=np.int64).reshape(2, 3),
        "scale": np.array([0.5, 2], np.float32),
        "word": words(b"fox", b"\xffcat"),
    }
)


def taking(engine: str, **changes: object) -> Target:
    found = replace(target("tensorflow"), engine=engine, inputs=INPUTS, outputs=OUTPUTS, input_shape=(), classes=0)
    return replace(found, **changes)  # type: ignore[arg-type]


def test_open_inference_names_each_tensor():
    request = inference.ModelInferRequest.FromString(requests.encode(taking("open-inference"), "grpc", SAMPLES))
    assert [(one.name, one.datatype, list(one.shape)) for one in request.inputs] == [
        ("ids", "INT64", [2, 3]),
        ("scale", "FP32", [2]),
        ("word", "BYTES", [2, 1]),
    ]
    assert request.raw_input_contents[0] == SAMPLES["ids"].tobytes()
    assert request.raw_input_contents[2] == b"\3\0\0\0fox\4\0\0\0\xffcat"
    parsed = Parsed(requests.encode(taking("open-inference"), "rest-binary", SAMPLES))
    length = int(parsed.headers["inference-header-content-length"])
    head = json.loads(parsed.body[:length])
    assert [one["parameters"]["binary_data_size"] for one in head["inputs"]] == [48, 8, 15]
    assert parsed.body[length : length + 48] == SAMPLES["ids"].tobytes()
    body = json.loads(Parsed(requests.encode(taking("open-inference"), "rest", SAMPLES[:1])).body)
    assert [(one["name"], one["data"]) for one in body["inputs"]] == [
        ("ids", [0, 1, 2]),
        ("scale", [0.5]),
        ("word", ["fox"]),
    ]


def test_tensorflow_serving_takes_objects_as_rows_and_names_in_a_message():
    body = json.loads(Parsed(requests.encode(taking("tensorflow-serving"), "rest", SAMPLES)).body)
    assert body["instances"] == [
        {"ids": [0, 1, 2], "scale": 0.5, "word": [{"b64": base64.b64encode(b"fox").decode()}]},
        {"ids": [3, 4, 5], "scale": 2.0, "word": [{"b64": base64.b64encode(b"\xffcat").decode()}]},
    ]
    request = tf_serving.PredictRequest.FromString(requests.encode(taking("tensorflow-serving"), "grpc", SAMPLES))
    assert sorted(request.inputs) == ["ids", "scale", "word"]
    assert [dim.size for dim in request.inputs["word"].tensor_shape.dim] == [2, 1]
    assert list(request.inputs["word"].string_val) == [b"fox", b"\xffcat"]


def test_columns_where_an_input_has_no_batch():
    alone = (Tensor("ids", "int64", (-1, 3)), Tensor("table", "float32", (2, 2)))
    samples = structured({"ids": np.arange(3).reshape(1, 3), "table": np.ones((1, 2, 2), np.float32)})
    body = json.loads(Parsed(requests.encode(taking("tensorflow-serving", inputs=alone), "rest", samples)).body)
    assert body == {"inputs": {"ids": [[0, 1, 2]], "table": [[1, 1], [1, 1]]}}
    with pytest.raises(ValueError, match=r"samples are \(2, 2, 2\); convnet takes \(2, 2\) 'table'"):
        requests.encode(taking("tensorflow-serving", inputs=alone), "rest", np.concatenate([samples, samples]))


def test_others_get_an_object_for_each_sample_or_say_that_they_cannot():
    plain = SAMPLES[["ids", "scale"]]
    own = HttpRequest(path="/score", body='{"rows": $images}')
    to = taking("http", inputs=(), outputs=(), request=own)
    assert json.loads(Parsed(requests.encode(to, "rest", plain)).body) == {
        "rows": [{"ids": [0, 1, 2], "scale": 0.5}, {"ids": [3, 4, 5], "scale": 2.0}]
    }
    one = replace(to, request=HttpRequest(body='{"row": $image}'))
    assert json.loads(Parsed(requests.encode(one, "rest", plain[:1])).body) == {"row": {"ids": [0, 1, 2], "scale": 0.5}}
    for body in ("$raw", '"$image_base64"', "$images_base64"):
        with pytest.raises(ValueError, match=r"samples of several inputs \(ids, scale\) need \$images or \$image"):
            requests.encode(replace(to, request=HttpRequest(body=body)), "rest", plain[:1])
    torchserve = taking("torchserve", inputs=(), outputs=())
    rows = json.loads(Parsed(requests.encode(torchserve, "rest", plain)).body)["instances"]
    assert rows[1] == {"ids": [3, 4, 5], "scale": 2.0}
    with pytest.raises(ValueError, match="as JSON alone: use rest"):
        requests.encode(torchserve, "grpc", plain)


@pytest.mark.parametrize(
    "body",
    [
        {"predictions": [{"scores": [1, 2], "boxes": [0, 0, 0, 0]}, {"scores": [3, 4], "boxes": [0, 0, 0, 0]}]},
        {"outputs": {"scores": [[1, 2], [3, 4]], "boxes": [[0, 0, 0, 0], [0, 0, 0, 0]]}},
    ],
    ids=["rows", "columns"],
)
def test_the_named_output_is_judged(body):
    to = taking("tensorflow-serving", output="scores")
    assert requests.decode(to, "rest", json.dumps(body).encode()).tolist() == [[1, 2], [3, 4]]
    with pytest.raises(ValueError, match="the answer has the outputs boxes, scores, not 'labels'"):
        requests.decode(replace(to, output="labels"), "rest", json.dumps(body).encode())


def test_an_only_output_as_a_column_is_the_answer():
    to = taking("tensorflow-serving", outputs=OUTPUTS[1:])
    assert requests.decode(to, "rest", b'{"outputs": [[1, 2]]}').tolist() == [[1, 2]]
    assert requests.decode(to, "rest", b'{"outputs": 0.5}').tolist() == [[0.5]]
    for broken in (b'{"outputs": {"scores": [[1], [1, 2]]}}', b'{"outputs": "x"}', b"[]", b"7", b'{"predictions": []}'):
        with pytest.raises(ValueError, match=r"no predictions|predictions are"):
            requests.decode(to, "rest", broken)


NUMBERS = ("int8", "int64", "uint16", "float32", "float64", "bool")
NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x2FF, exclude_characters="\x7f"), min_size=1, max_size=12
)


@st.composite
def several(draw: st.DrawFn) -> np.ndarray:
    """Samples of one to four inputs of any names, types and shapes."""
    count = draw(st.integers(1, 4))
    columns: dict[str, np.ndarray] = {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)):
        shape = (count, *draw(st.lists(st.integers(1, 3), max_size=2)))
        if draw(st.booleans()):
            columns[name] = draw(arrays.arrays(draw(st.sampled_from(NUMBERS)), shape))
        else:
            size = int(np.prod(shape))
            pieces = draw(st.lists(st.binary(max_size=9), min_size=size, max_size=size))
            columns[name] = words(*pieces).reshape(shape)
    return structured(columns)


@settings(max_examples=60, deadline=None)
@given(samples=several())
def test_a_run_s_file_gives_back_what_is_asked(samples, tmp_path_factory):
    path = tmp_path_factory.mktemp("reference") / "reference.npz"
    reference_file.write(path, reference_file.Samples(samples), None, 0.1)
    with np.load(path) as values:
        found = reference_file.samples(values).images
    assert found.dtype == samples.dtype
    assert _same(found, samples)


def _same(found: np.ndarray, samples: np.ndarray) -> bool:
    return all(
        found[name].tolist() == samples[name].tolist()
        if samples[name].dtype.kind == "O"
        else np.array_equal(found[name], samples[name], equal_nan=samples[name].dtype.kind == "f")
        for name in samples.dtype.names or ()
    )


@settings(max_examples=60, deadline=None)
@given(samples=several())
def test_what_a_message_carries_is_what_was_asked(samples):
    """Where nobody says what the model takes, names and types are the samples'."""
    to = taking("open-inference", inputs=(), outputs=())
    request = inference.ModelInferRequest.FromString(requests.encode(to, "grpc", samples))
    assert [one.name for one in request.inputs] == list(samples.dtype.names or ())
    for one, raw in zip(request.inputs, request.raw_input_contents, strict=True):
        values = datatypes.from_raw(raw, one.datatype, list(one.shape), one.name)
        column = samples[one.name]
        same = values.tolist() == column.tolist() if column.dtype.kind == "O" else values.tobytes() == column.tobytes()
        assert same
