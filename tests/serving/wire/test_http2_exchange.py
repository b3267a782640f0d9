"""One exchange after the other over HTTP/2, whatever the server sends; test_tls.py has a real server."""

from __future__ import annotations

import socket

import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from serving.wire import http2_frames as h2
from serving.wire.http2_exchange import Http2Connection

HEAD, _ = h2.rest_request(b"POST /v1 HTTP/1.1\r\nHost: h\r\n\r\n")
OK = Encoder().encode([(":status", "200")], huffman=False)
EARLY = Encoder().encode([(":status", "103"), ("link", "x")], huffman=False)
TRAILER = Encoder().encode([("checksum", "x")], huffman=False)
END = h2.END_HEADERS | h2.END_STREAM


def answered(said: bytes, body: bytes = b"") -> tuple[int, bytes]:
    """What comes of an exchange with a server that says this, whatever it is asked, and closes the connection."""
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(10)
        there.sendall(said)
        there.shutdown(socket.SHUT_WR)
        return Http2Connection(here).ask(HEAD, body)


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([h2.frame(h2.HEADERS, END, 1, OK)], (200, b"")),
        ([h2.settings([]), h2.frame(h2.HEADERS, 4, 1, OK), h2.frame(h2.DATA, 1, 1, b"yes")], (200, b"yes")),
        ([h2.frame(h2.HEADERS, 4, 1, OK), h2.frame(h2.DATA, 9, 1, b"\2yes\0\0")], (200, b"yes")),  # padded
        (
            [h2.frame(h2.HEADERS, 0, 1, OK[:1]), h2.frame(h2.CONTINUATION, 4, 1, OK[1:]), h2.frame(h2.DATA, 1, 1)],
            (200, b""),
        ),
        ([h2.frame(h2.HEADERS, 1, 1, OK[:1]), h2.frame(h2.CONTINUATION, 4, 1, OK[1:])], (200, b"")),
        (
            [h2.frame(h2.HEADERS, 4, 1, EARLY), h2.frame(h2.HEADERS, 4, 1, OK), h2.frame(h2.DATA, 1, 1, b"x")],
            (200, b"x"),
        ),
        (
            [h2.frame(h2.HEADERS, 4, 1, OK), h2.frame(h2.DATA, 0, 1, b"x"), h2.frame(h2.HEADERS, END, 1, TRAILER)],
            (200, b"x"),
        ),
        ([h2.frame(h2.PING, 0, 0, b"12345678"), h2.frame(h2.HEADERS, END, 1, OK)], (200, b"")),
    ],
)
def test_answers_are_read_whole(frames, expected):
    assert answered(b"".join(frames)) == expected


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", "it does not answer in HTTP/2"),
        (h2.frame(h2.RST_STREAM, 0, 1, h2.WORD.pack(h2.REFUSED_STREAM)), "reset the stream"),
        (h2.frame(h2.GOAWAY, 0, 0, h2.WORD.pack(0) * 2), "went away"),
        (h2.settings([(h2.MAX_FRAME_SIZE, 0)]), "SETTINGS with 0"),
        (h2.settings([(h2.INITIAL_WINDOW_SIZE, 2**31)]), "SETTINGS with 2147483648"),
        (h2.frame(h2.WINDOW_UPDATE, 0, 0, b"\0"), "too short"),
    ],
)
def test_what_is_no_answer_says_why(said, error):
    with pytest.raises(h2.ProtocolError, match=error):
        answered(said, b"body")


def test_a_lost_connection_is_one():
    with pytest.raises(ConnectionResetError):
        answered(h2.frame(h2.HEADERS, 4, 1, OK))


FRAMES = st.builds(
    h2.frame, st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 3]), st.binary(max_size=24)
)


@given(st.one_of(st.binary(max_size=64), st.lists(FRAMES, max_size=6).map(b"".join)), st.binary(max_size=100))
def test_whatever_a_server_says_ends_in_an_answer_or_an_error(said, body):
    try:
        status, answer = answered(said, body)
    except (OSError, h2.ProtocolError):
        return
    assert isinstance(status, int)
    assert isinstance(answer, bytes)
