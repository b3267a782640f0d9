"""A request of the user's own: what its placeholders become, and what of the answer counts."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import requests
from serving.engines import http_request
from serving.target import HttpRequest, Target
from tests.serving.targets import target
from tests.serving.test_requests import Parsed

IMAGES = np.array([[[[1], [2]]], [[[3], [255]]]], np.uint8)  # two images, 1 high, 2 wide
ONE = IMAGES[:1]
JPEG = np.array([b"\xff\xd8"], object)


def asked(**request: object) -> Target:
    given = HttpRequest(**{"path": "/score?k=1", **request})  # type: ignore[arg-type]
    return replace(target("pytorch", classes=0), engine="http", input_shape=(), request=given)


def sent(samples: np.ndarray, **request: object) -> Parsed:
    return Parsed(requests.encode(asked(**request), "rest", samples))


@pytest.mark.parametrize(
    ("body", "samples", "content"),
    [
        ('{"instances": $images}', IMAGES, b'{"instances": [[[[1],[2]]],[[[3],[255]]]]}'),
        ('{"x": $image, "y": ${image}}', ONE, b'{"x": [[[1],[2]]], "y": [[[1],[2]]]}'),
        ('{"x": $images_base64}', IMAGES, b'{"x": ["AQI=","A/8="]}'),
        ('{"uri": "data:image/jpeg;base64,$image_base64"}', JPEG, b'{"uri": "data:image/jpeg;base64,/9g="}'),
        ("$raw", IMAGES, b"\1\2\3\xff"),
        ("", JPEG, b"\xff\xd8"),
        ("--b\r\n\r\n$raw\r\n--b--", JPEG, b"--b\r\n\r\n\xff\xd8\r\n--b--"),
        (
            '{"price": "$$5", "t": $images}',
            np.array([b"Z\xc3\xbcrich"], object),
            b'{"price": "$5", "t": ["Z\xc3\xbcrich"]}',
        ),
        ('{"fixed": true}', ONE, b'{"fixed": true}'),
        ('{"x": $images}', np.array([[0.5, -1e-3]], np.float32), b'{"x": [[0.5,-0.001]]}'),
    ],
)
def test_placeholders_become_the_samples(body, samples, content):
    parsed = sent(samples, body=body)
    assert (parsed.complete, parsed.method, parsed.url) == (True, b"POST", b"/score?k=1")
    assert parsed.body == content


@pytest.mark.parametrize(
    ("request_", "kind"),
    [
        ({"body": '{"x": $images}'}, "application/json"),
        ({"body": "$raw"}, "application/octet-stream"),
        ({}, "application/octet-stream"),
        ({"body": "$raw", "content_type": "image/jpeg"}, "image/jpeg"),
    ],
)
def test_the_content_type_follows_from_the_body_or_is_the_users(request_, kind):
    assert sent(ONE, **request_).headers["content-type"] == kind


def test_a_get_has_no_body():
    parsed = sent(ONE, method="GET")
    assert (parsed.complete, parsed.method, parsed.body) == (True, b"GET", b"")
    assert not {"content-type", "content-length"} & parsed.headers.keys()


@pytest.mark.parametrize(
    ("body", "samples", "said"),
    [
        ('{"x": $image}', IMAGES, "one sample, not 2: use a batch of 1"),
        ('{"x": $image_base64}', IMAGES, "one sample, not 2: use a batch of 1"),
        ('{"x": $images}', JPEG, r"no UTF-8 text need \$images_base64"),
        ('{"x": $images}', np.array([np.nan]), "JSON has no NaN"),
        ("$raw", np.array([b"a", b"b"], object), "one string or encoded image is sent as bytes, not 2"),
    ],
)
def test_samples_that_the_body_cannot_hold_are_refused(body, samples, said):
    with pytest.raises(ValueError, match=said):
        sent(samples, body=body)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"method": "FETCH"}, "method = 'FETCH': use one of DELETE, GET, PATCH, POST, PUT"),
        ({"path": "score"}, "path = 'score': start it with '/'"),
        ({"path": "/a b"}, "path = '/a b'"),
        ({"path": "/a\r\nX: y"}, "path = "),
        ({"answer": "outputs"}, "answer = 'outputs' is no JSON Pointer"),
        ({"body": '{"x": $image_b64}'}, r"body: \$image_b64 is no placeholder: use one of \$images, "),
        ({"body": '{"x": "$images_base64"}'}, "no JSON once its placeholders are filled"),
        ({"body": "{x: $images}"}, "no JSON once its placeholders are filled"),
    ],
)
def test_a_request_that_cannot_be_names_the_key(request_, said):
    with pytest.raises(ValueError, match=said):
        http_request.check(HttpRequest(**request_))


def test_requests_that_can_be():
    text = HttpRequest(body="a: b", content_type="text/plain")
    for one in (HttpRequest(), HttpRequest(body="$raw"), text, HttpRequest(method="GET", path="/%20")):
        http_request.check(one)


@pytest.mark.parametrize(
    ("body", "pointer", "answer", "rows"),
    [
        ("$images", "/predictions", {"predictions": [[0.25, 0.75], [1, 0]]}, [[0.25, 0.75], [1, 0]]),
        ("$images", "/labels", {"labels": [3, 5]}, [[3], [5]]),
        ("$image", "", [0.25, 0.75], [[0.25, 0.75]]),
        ("$raw", "/result/0/score", {"result": [{"score": 0.5}]}, [[0.5]]),
        ("$image", "/label", {"label": "Kätzchen"}, [["Kätzchen".encode()]]),
        ("$image", "/ok", {"ok": True}, [[1]]),
        ("$images", "/ids", {"ids": [["a", "bc"]]}, [[b"a", b"bc"]]),
    ],
)
def test_what_of_the_answer_counts(body, pointer, answer, rows):
    found = requests.decode(asked(body=body, answer=pointer), "rest", json.dumps(answer).encode())
    assert found.tolist() == rows


@pytest.mark.parametrize(
    ("pointer", "answer", "said"),
    [
        ("", b"<html>", "the answer is no JSON"),
        ("/p", b'{"error": "no model"}', "/p: an object of 'error' at the top, no 'p'"),
        ("/p", b'{"p": {"cat": 0.9}}', "/p: {'cat': 0.9} is neither numbers nor strings"),
        ("/p", b'{"p": null}', "/p: None is neither"),
        ("/p", b'{"p": [[1], [1, 2]]}', "/p: lists of different lengths"),
    ],
)
def test_an_answer_without_values_says_what_is_there_instead(pointer, answer, said):
    with pytest.raises(ValueError, match=said):
        requests.decode(asked(answer=pointer), "rest", answer)


def test_the_number_of_values_is_checked_where_it_is_known():
    to = replace(asked(body="$images", answer="/p"), classes=3, input_shape=(1, 2, 1))
    with pytest.raises(ValueError, match="/p: 2 values a sample, not 3"):
        requests.decode(to, "rest", b'{"p": [[0.5, 0.5]]}')


@given(st.text(max_size=30), st.binary(max_size=30))
def test_any_template_fills_or_is_refused_and_any_answer_is_read_or_refused(body, answer):
    for attempt in (lambda: sent(ONE, body=body), lambda: requests.decode(asked(body=body), "rest", answer)):
        try:
            attempt()
        except ValueError:
            continue
