"""REST's JSON: the fast paths agree with the slow one, and what is no JSON is refused."""

from __future__ import annotations

import json
import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.embedded_tfserving import json_document, json_tensors
from serving.engines.embedded_tfserving.json_images import images
from serving.engines.embedded_tfserving.signature import TensorInfo
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code


def signature(shape: tuple[int, ...], dtype: int = 4) -> Any:
    info = TensorInfo("images", "images:0", dtype, shape)
    return SimpleNamespace(inputs=[info], outputs=[info], input_names={"images"})


SMALL = signature((-1, 2, 3))

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


parse = json_document.parse


@given(JSON, st.booleans())
def test_both_parsers_read_what_the_standard_one_reads(value, ascii_only):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=1).encode()
    assert parse(text) == json.loads(text)
    twice = b'{"instances":%b,"instances":0}' % text
    assert parse(twice) == {"instances": json.loads(text)}


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:0123456789.eE+-\\ntrufalsNI ', max_size=60))
def test_no_document_breaks_the_reader(document):
    body = document if isinstance(document, bytes) else document.encode()
    try:
        json_tensors.read(body, lambda _: SMALL)
    except ServingError as error:
        assert error.message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", math.nan),
        ("-NaN", math.nan),
        ("Infinity", math.inf),
        ("-Infinity", -math.inf),
        ("Inf", math.inf),
        ("-Inf", -math.inf),
    ],
)
def test_numbers_beyond_json_are_read(text, value):
    parsed = parse(text.encode())
    assert parsed == value or (math.isnan(parsed) and math.isnan(value))
    document = parse(f'{{"a": ["{text}", "\\"{text}", {text}]}}'.encode())
    assert document["a"][:2] == [text, f'"{text}']
    assert str(document["a"][2]) == str(value)


@given(JSON, st.text(alphabet='{}[]",:x0 ', max_size=20))
def test_what_follows_the_document_is_ignored(value, more):
    text = json.dumps({"instances": value})
    assert parse(f"\ufeff \n{text}{more}".encode()) == json.loads(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": {"x": 1, "x": 2}, "a": 3}', {"a": {"x": 1}}),
        ('{"a": [[{"x": 1}, {"x": 1, "x": 2}]]}', {"a": [[{"x": 1}, {"x": 1}]]}),
        ('{"a": [1, {"x": 1, "x": 2}]}', {"a": [1, {"x": 1}]}),
        (r'{"x": 1, "\u0078": 2}', {"x": 1}),
        ('{"a": "one:two", "b": 1}', {"a": "one:two", "b": 1}),
    ],
)
def test_the_first_of_equal_keys_counts(text, value):
    assert parse(text.encode()) == value


@given(st.lists(st.binary().map(lambda data: re.sub(rb'[\x00-\x1f"\\]', b"", data)), min_size=1))
def test_bytes_that_are_no_text_go_through(strings):
    texts = signature((-1,), 7)
    for row in (b'"%b"', b'{"images":"%b"}'):
        body = b'{"instances":[%b]}' % b",".join([row % text for text in strings])
        _, (array,), _ = json_tensors.read(body, lambda _: texts)
        assert array.tolist() == strings


@pytest.mark.parametrize(
    ("number", "value"),
    [
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2.0**64),
        ("-9223372036854775808", -(2**63)),
        ("-9223372036854775809", -(2.0**63)),
        ("12345678901234567890123", 12345678901234567890123.0),
    ],
)
def test_both_parsers_read_integers_beyond_64_bits_as_floats(number, value):
    for text in (f'{{"instances":{number}}}', f'{{"instances":{number},"instances":NaN}}'):
        parsed = parse(text.encode())["instances"]
        assert (type(parsed), parsed) == (type(value), value)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "JSON Parse error: The document is empty"),
        (b" \n", "JSON Parse error: The document is empty. at offset: 2"),
        (b'{"instances":[1,]}', "JSON Parse error: Invalid value. at offset: 16"),
        (b"[1e999]", "JSON Parse error: Number too big to be stored in double. at offset: 1"),
        (b"[" + b"9" * 5000 + b"]", "JSON Parse error: Number too big to be stored in double. at offset: 1"),
        (b'["a\tb"]', "JSON Parse error: Invalid escape character in string. at offset: 3"),
        (b'["\\udc00"]', "The request's body is not valid JSON: its text is not valid Unicode (surrogates not"),
        ('{"instances":1}'.encode("utf-16"), "JSON Parse error: Invalid value. at offset: 0"),
        (b"[" * 100_000, "The request's body is nested too deeply"),
    ],
)
def test_what_is_no_json_is_refused(body, message):
    with pytest.raises(ServingError) as refused:
        parse(body)
    assert refused.value.code == Code.INVALID_ARGUMENT
    assert refused.value.message.startswith(message)


def test_a_long_value_is_shown_by_its_beginning():
    assert json_document.shown(["x" * 1000]) == '["' + "x" * 198 + "..."
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    assert json_document.shown(deep) == "[" * 200 + "..."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({}, "{}"),
        ([], "[]"),
        ({"a": []}, '{\n    "a": []\n}'),
        ([{"x": 1.0}, None], '[{\n        "x": 1.0\n    }, null]'),
        ({"a": {"b": "é\n"}, "c": [[1, 2]]}, '{\n    "a": {\n        "b": "é\\n"\n    },\n    "c": [[1, 2]]\n}'),
    ],
)
def test_a_value_is_shown_as_the_real_server_shows_it(value, text):
    assert json_document.shown(value) == text


@pytest.mark.parametrize("depth", [64, 65, 199, 300, 900, 1100])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"b64":', "}"), ('[{"a":', "}]")])
@pytest.mark.parametrize("key", ["instances", "inputs"])
def test_deep_values_are_refused(depth, opening, closing, key):
    body = f'{{"{key}": [{opening * depth}1{closing * depth}]}}'.encode()
    with pytest.raises(ServingError):
        json_tensors.read(body, lambda _: signature((-1,), 1))


def test_as_many_dimensions_as_numpy_has_are_read():
    nested = "[" * 64 + "1" + "]" * 64
    for rows in (f'{{"instances": {nested}}}', f'{{"inputs": {nested}}}'):
        assert json_tensors.read(rows.encode(), lambda _: signature((-1,), 1))[1][0].ndim == 64


@given(
    st.integers(1, 3).flatmap(
        lambda rows: st.lists(st.integers(0, 255), min_size=6 * rows, max_size=6 * rows).map(
            lambda numbers: np.array(numbers, np.uint8).reshape(rows, 2, 3)
        )
    ),
    st.sampled_from([(",", ":"), (", ", ": ")]),
    st.booleans(),
)
def test_the_image_path_reads_what_it_takes(pixels, separators, named):
    request: dict[str, Any] = {"signature_name": "serving_default"} if named else {}
    body = json.dumps({**request, "instances": pixels.tolist()}, separators=separators).encode()
    found = images(body, lambda _: SMALL)
    assert found is not None
    np.testing.assert_array_equal(found[1], pixels)
    np.testing.assert_array_equal(json_tensors.read(body, lambda _: SMALL)[1][0], pixels)


@pytest.mark.parametrize(
    "rows",
    [
        "[[[1,2,3],[4,5,6]],[[1,2,3],[4,5]]]",
        "[[[1 2,3],[4,5,6]]]",
        "[[[1,,3],[4,5,6]]]",
        "[[[01,2,3],[4,5,6]]]",
        "[[[1,2,256],[4,5,6]]]",
        "[[[1.0,2,3],[4,5,6]]]",
        "[[[-1,2,3],[4,5,6]]]",
        "[[[1,2,3],[4,5,true]]]",
        "[]",
        "[,]",
    ],
)
def test_the_image_path_leaves_the_unusual_to_the_general_reader(rows):
    assert images(b'{"instances":' + rows.encode() + b"}", lambda _: SMALL) is None


@given(st.lists(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=2), min_size=1, max_size=5))
def test_dense_lists_and_single_elements_give_the_same_array(rows):
    info = TensorInfo("x", "x:0", 1, (-1, 2))
    dense = json_tensors._dense(rows, info)
    shape, flat = json_tensors._flat(rows, info)
    np.testing.assert_array_equal(dense, json_tensors._array(flat, shape, info))


def test_answers_keep_what_is_not_finite():
    outputs = [np.array([[1.5, np.nan], [np.inf, -np.inf]], np.float32)]
    body = json_tensors.write(signature((-1, 2), 1), outputs, row_format=True)
    assert json.loads(body, parse_constant=str) == {"predictions": [[1.5, "NaN"], ["Infinity", "-Infinity"]]}


def test_bytes_come_back_as_base64():
    info = TensorInfo("echo_bytes", "e:0", 7, (-1,))
    outputs = [np.array([b"\xff\x00", b"hi"], object)]
    body = json_tensors.write(SimpleNamespace(outputs=[info]), outputs, row_format=False)  # type: ignore[arg-type]
    assert json.loads(body) == {"outputs": [{"b64": "/wA="}, {"b64": "aGk="}]}


def test_what_is_not_finite_keeps_its_place_among_named_rows():
    infos = [TensorInfo("a", "a:0", 1, (-1,)), TensorInfo("b", "b:0", 1, (-1, 2))]
    outputs = [np.array([0.1, np.nan], np.float32), np.array([[1, np.inf], [2, 3]], np.float32)]
    body = json_tensors.write(SimpleNamespace(outputs=infos), outputs, row_format=True)  # type: ignore[arg-type]
    assert body == b'{"predictions":[{"a":0.1,"b":[1.0,Infinity]},{"a":NaN,"b":[2.0,3.0]}]}'
    scalar = json_tensors.write(SimpleNamespace(outputs=infos[:1]), [np.array(-np.inf, np.float32)], row_format=False)  # type: ignore[arg-type]
    assert scalar == b'{"outputs":-Infinity}'
    empty = json_tensors.write(SimpleNamespace(outputs=infos[:1]), [np.zeros((2, 0), np.float32)], row_format=True)  # type: ignore[arg-type]
    assert empty == b'{"predictions":[[],[]]}'


def test_base64_may_hold_blanks():
    body = b'{"instances":[{"b64":"aG\\n k="}]}'
    assert json_tensors.read(body, lambda _: signature((-1,), 7))[1][0].tolist() == [b"hi"]


def test_text_of_more_dimensions_than_the_runtime_takes_is_refused():
    for depth, fits in ((32, True), (33, False)):
        body = b'{"inputs":' + b"[" * depth + b'"a"' + b"]" * depth + b"}"
        if fits:
            assert json_tensors.read(body, lambda _: signature((-1,), 7))[1][0].ndim == depth
        else:
            with pytest.raises(ServingError, match="tensor parsing error: images"):
                json_tensors.read(body, lambda _: signature((-1,), 7))
