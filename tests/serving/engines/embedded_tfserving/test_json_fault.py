"""What is no JSON is refused as RapidJSON refuses it: in its words, at its offset."""

from __future__ import annotations

import json
import re
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.engines.embedded_tfserving import json_fault
from serving.engines.embedded_tfserving.json_fault import Words, find

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)


@pytest.mark.parametrize(
    ("body", "words", "offset"),
    [
        (b"", Words.EMPTY, 0),
        (b"\xef\xbb\xbf \t", Words.EMPTY, 5),
        (b"\0[1]", Words.EMPTY, 0),
        (b"x", Words.VALUE, 0),
        (b"nul", Words.VALUE, 3),
        (b"nuLl", Words.VALUE, 2),
        (b"[Na]", Words.VALUE, 3),
        (b"[-Infinite]", Words.VALUE, 9),
        (b"[+1]", Words.VALUE, 1),
        (b"[-]", Words.VALUE, 2),
        (b"[1.]", Words.FRACTION, 3),
        (b"[1e]", Words.EXPONENT, 3),
        (b"[1e+,", Words.EXPONENT, 4),
        (b"[0, -1e309]", Words.TOO_BIG, 4),
        (b"[" + b"2" * 310 + b"]", Words.TOO_BIG, 1),
        (b"{a:1}", Words.NAME, 1),
        (b'{"a":1,}', Words.NAME, 7),
        (b'{"a" 1}', Words.COLON, 5),
        (b'{"a":1 "b":2}', Words.MEMBER, 7),
        (b'{"a":[1]]', Words.MEMBER, 8),
        (b"[01]", Words.ELEMENT, 2),
        (b"[[[[[[[1]]]]]}]", Words.ELEMENT, 13),
        (b'["a', Words.QUOTE, 3),
        (b'["a\0"]', Words.QUOTE, 3),
        (b'["a\n"]', Words.ESCAPE, 3),
        (b'["\\x41"]', Words.ESCAPE, 2),
        (b'["ab\\u12G4"]', Words.HEX, 4),
        (b'["ab\\ud800x"]', Words.SURROGATE, 4),
        (b'["ab\\ud800\\n"]', Words.SURROGATE, 4),
        (b'["ab\\ud800\\u12"]', Words.HEX, 4),
        (b'["ab\\ud800\\u0041"]', Words.SURROGATE, 4),
    ],
)
def test_each_fault_has_its_words_and_its_place(body, words, offset):
    """As python-rapidjson 1.25 says them, but for control characters, where RapidJSON 1.1.0 has other words."""
    assert find(body) == (words, offset)


@given(JSON, st.booleans(), st.sampled_from([None, 1]), st.text(alphabet='{}[]",:x0 ', max_size=5))
def test_a_document_that_it_takes_has_none_whatever_follows(value, ascii_only, indent, more):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent) + (" " + more if more else "")
    assert find(text.encode()) is None


@given(JSON.filter(lambda value: isinstance(value, dict | list)), st.floats(0, 1, exclude_max=True))
def test_a_document_that_is_cut_off_has_one_at_its_end(value, where):
    body = json.dumps(value).encode()
    body = body[: int(where * len(body))]
    found = find(body)
    assert found is not None
    assert len(body) - len(r"\ud83d\ude0") <= found.offset <= len(body)  # an escape's faults are at its beginning


@given(st.text(alphabet='{}[]",:0123456789.eE+-\\ntrufalsNI ', max_size=60) | JSON.map(json.dumps))
def test_what_is_skipped_as_sound_is_what_is_found_sound_one_by_one(text):
    body = text.encode()
    nothing, anywhere = re.compile(b"(?!)"), re.compile(b"")
    with mock.patch.multiple(json_fault, VALUE=nothing, ELEMENTS=anywhere, MEMBERS=anywhere):
        one_by_one = find(body)
    assert find(body) == one_by_one
