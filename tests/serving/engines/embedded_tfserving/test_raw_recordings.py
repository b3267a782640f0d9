"""Replays the bytes that were sent to the real server on connections of their own, and names every departure."""

from __future__ import annotations

import base64
import json
import re
import select
import socket
from typing import Any

import pytest

from tests.serving.engines.embedded_tfserving.embedded import Embedded
from tests.serving.engines.embedded_tfserving.test_recordings import TABLE, load, same

pytestmark = [pytest.mark.slow, pytest.mark.beside]

RAW = {recorded["name"]: recorded for recorded in load("probes-2-raw.jsonl")}
# What the recorder sent only when the server had waited for it.
SENT_LATER = {"raw_slow_body": b'{"instances":[[1,2]]}'}
SILENT_S = 1.0
REFUSED = ["HTTP/1.1 400 Bad Request"]
# Status lines, and whether the server closes, where they are not those of the real server.
DEPARTURES: dict[str, tuple[list[str], bool]] = {
    "raw_http12": (REFUSED, True),
    "raw_cl_plus": (REFUSED, True),
    "raw_cl_two_same": (REFUSED, True),
    "raw_tls_hello": (REFUSED, True),
    "raw_empty_line_first": (["HTTP/1.1 200 OK"], True),
}
Answer = tuple[str, Any]


def exchange(server: Embedded, data: bytes, later: bytes = b"") -> tuple[bytes, bool]:
    """What comes back until the server closes or says nothing for a second, and whether it closed."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=SILENT_S) as connection:
        connection.sendall(data)
        if later:
            assert not select.select([connection], [], [], 0.2)[0], "an answer before the whole request"
            connection.sendall(later)
        received = b""
        try:
            while part := connection.recv(65_536):
                received += part
        except TimeoutError:
            return received, False
        return received, True


def answers(data: bytes) -> list[Answer]:
    """The status line and the body of each response."""
    found = []
    while data:
        head, end, rest = data.partition(b"\r\n\r\n")
        assert end, data
        length = re.search(rb"(?i)\r\ncontent-length: ([0-9]+)", head)
        size = int(length[1]) if length else 0
        body = rest[:size].decode()
        found.append((head.split(b"\r\n", 1)[0].decode(), json.loads(body) if body[:1] == "{" else body))
        data = rest[size:]
    return found


@pytest.mark.parametrize("name", RAW)
def test_a_connection_is_answered_as_recorded(recorded_server: Embedded, name: str):
    recorded = RAW[name]
    received, closed = exchange(recorded_server, base64.b64decode(recorded["request_b64"]), SENT_LATER.get(name, b""))
    ours, theirs = answers(received), answers(recorded["response_body"].encode())
    if name in DEPARTURES:
        assert ([status for status, _ in ours], closed) == DEPARTURES[name]
        assert ([status for status, _ in theirs], recorded["closed"]) != DEPARTURES[name]
        assert f"`{name}`" in TABLE.read_text()
        return
    assert [status for status, _ in ours] == [status for status, _ in theirs]
    assert same([body for _, body in ours], [body for _, body in theirs])
    assert closed == recorded["closed"]
