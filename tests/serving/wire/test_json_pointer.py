"""RFC 6901, by its own example document (section 5), and what is said where nothing is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.wire import json_pointer

DOCUMENT = {"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4, "i\\j": 5, 'k"l': 6, " ": 7, "m~n": 8}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", DOCUMENT),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
    ],
)
def test_the_examples_of_the_rfc(pointer, value):
    assert json_pointer.find(DOCUMENT, pointer) == value


@pytest.mark.parametrize(
    ("pointer", "said"),
    [
        ("foo", "'foo' is no JSON Pointer: start it with '/'"),
        ("/m~n", "'/m~n' is no JSON Pointer: write '~' as '~0'"),
        ("/foo/2", "/foo/2: a list of 2 at /foo, no '2'"),
        ("/foo/00", "/foo/00: a list of 2 at /foo, no '00'"),
        ("/foo/-", "a list of 2 at /foo, no '-'"),
        ("/foo/0/x", "/foo/0/x: 'bar' at /foo/0, no 'x'"),
        ("/bar", "/bar: an object of 'foo', '', .* at the top, no 'bar'"),
    ],
)
def test_what_is_not_there_is_said_with_how_far_the_document_goes(pointer, said):
    with pytest.raises(ValueError, match=said):
        json_pointer.find(DOCUMENT, pointer)


@given(st.lists(st.text(max_size=4), max_size=4))
def test_every_name_can_be_pointed_at(names):
    document: object = "here"
    for name in reversed(names):
        document = {name: document}
    pointer = "".join("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
    assert json_pointer.find(document, pointer) == "here"
    assert json_pointer.parse(pointer) == tuple(names)
