"""Requests sent before the answers to earlier ones: each gets its own answer, whatever follows it."""

from __future__ import annotations

import json
import re
import socket

import pytest

from tests.serving.engines.embedded_tfserving.embedded import Embedded

BODY = json.dumps({"instances": [[[[0, 0, 0]] * 32] * 32]}).encode()
STATUS = b"GET /v1/models/cnn HTTP/1.1\r\nHost: x\r\n\r\n"


def predict(*headers: str) -> bytes:
    lines = ["POST /v1/models/cnn:predict HTTP/1.1", "Host: x", f"Content-Length: {len(BODY)}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + BODY


def statuses(server: Embedded, data: bytes, *, half_close: bool = False) -> list[bytes]:
    """Of the answers that come until the server closes or says nothing for two seconds."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=2) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while part := connection.recv(2**20):
                received += part
        except TimeoutError:
            pass
    return re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)


@pytest.mark.parametrize("junk", [b"\x00\x01 nonsense\r\n\r\n", b"POST\r\n\r\n"])
def test_what_makes_no_sense_is_refused_after_the_answers_to_what_did(batching_server: Embedded, junk: bytes):
    assert statuses(batching_server, predict() + STATUS + predict() + junk) == [b"200", b"200", b"200", b"400"]


def test_what_follows_the_last_request_of_a_connection_changes_nothing(batching_server: Embedded):
    assert statuses(batching_server, predict("Connection: close") + b"more") == [b"200"]


def test_thousands_of_requests_behind_one_that_computes_are_all_answered(batching_server: Embedded):
    answers = statuses(batching_server, predict() + STATUS * 3000 + b"GET /v2 HTTP/1.1\r\n\r\n")
    assert answers == [b"200"] * 3001 + [b"404"]


@pytest.mark.parametrize("count", [1, 3])
def test_a_client_that_has_said_all_it_wants_still_gets_its_answers(batching_server: Embedded, count: int):
    assert statuses(batching_server, predict() * count, half_close=True) == [b"200"] * count


UPGRADE = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


def test_a_client_that_would_rather_speak_http_2_is_answered_in_http_1(batching_server: Embedded):
    """As the HTTP client of Java's library asks with every first request, bodies included."""
    status = b"GET /v1/models/cnn HTTP/1.1\r\nHost: x\r\n" + "\r\n".join(UPGRADE).encode() + b"\r\n\r\n"
    assert statuses(batching_server, predict(*UPGRADE) + status * 3000 + predict()) == [b"200"] * 3002


@pytest.mark.parametrize("method", [b"CONNECT", b"TRACE", b"BREW", b"get", b"PROPFIND"])
def test_other_methods_are_not_implemented(batching_server: Embedded, method: bytes):
    target = b"x:1" if method == b"CONNECT" else b"/v1/models/cnn"
    assert statuses(batching_server, method + b" " + target + b" HTTP/1.1\r\nHost: x\r\n\r\nmore") == [b"501"]
