"""Unary gRPC calls: against grpcio's server, and against a scripted peer that checks the rules of HTTP/2."""

from __future__ import annotations

from dataclasses import replace

import gevent.server
import gevent.socket
import numpy as np
import pytest
from hpack import Encoder
from hypothesis import given
from hypothesis import strategies as st

from loadtest.generator.http2 import GrpcClient
from models.problem import Problem
from serving.wire import http2_frames as h2
from tests.loadtest.generator.small_servers import Load, small_server, target

pytestmark = pytest.mark.alone

DUE = np.arange(40) / 200
MANY = np.arange(400) / 4000


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("ok", "ok"), ("unavailable", "grpc_UNAVAILABLE"), ("exhausted", "grpc_RESOURCE_EXHAUSTED")],
)
def test_every_call_ends_with_the_servers_status(mode, kind):
    with small_server("grpc", mode) as (where, _):
        assert Load(where, "grpc", DUE).kinds() == {kind: 40}


def test_what_the_server_says_of_the_first_error_is_kept():
    with small_server("grpc", "unavailable") as (where, _):
        _, said = Load(where, "grpc", DUE).recording.first_error or (-1, "")
    assert said == "not now"


def test_many_calls_at_once_share_the_connections():
    with small_server("grpc", "ok") as (where, _):
        assert Load(where, "grpc", MANY).kinds() == {"ok": 400}


def test_large_messages_both_ways_keep_the_flow_control():
    payload = h2.grpc_message(np.random.default_rng(0).bytes(300_000))
    with small_server("grpc", "echo", "grpc.http2.bdp_probe=0") as (where, _):
        load = Load(where, "grpc", DUE, payload=payload, keep=True)
    assert load.kinds() == {"ok": 40}
    assert set(load.recording.bodies.values()) == {payload[5:]}


def test_connections_that_the_server_retires_cost_no_call():
    with small_server("grpc", "ok", "grpc.max_connection_age_ms=200", "grpc.max_connection_age_grace_ms=500") as (
        where,
        _,
    ):
        assert Load(where, "grpc", np.arange(600) / 400).kinds() == {"ok": 600}


def test_a_call_that_is_too_slow_times_out():
    with small_server("grpc", "delay:2") as (where, _):
        load = Load(where, "grpc", DUE, timeout_s=0.5)
    assert load.kinds() == {"timeout": 40}


def test_a_server_that_dies_gives_connection_errors_and_the_trial_ends():
    def kill(loop):
        if loop.recording.offered > 150:
            process.kill()

    with small_server("grpc", "ok") as (where, process):
        load = Load(where, "grpc", np.arange(400) / 400, tick=kill)
    kinds = load.kinds()
    assert set(kinds) == {"ok", "connection"}
    assert kinds["ok"] > 50
    assert kinds["connection"] > 50


def test_no_server_and_no_http2_are_told_apart():
    client = GrpcClient("127.0.0.1:1", "/a.B/C", lambda *ended: None, lambda: None)
    with pytest.raises(Problem, match=r"cannot connect .*127\.0\.0\.1:1"):
        client.open()
    with small_server("rest", "garbage") as (where, _):
        client = GrpcClient(where.grpc, "/a.B/C", lambda *ended: None, lambda: None)
        with pytest.raises(Problem, match="gRPC API"):
            client.open(timeout_s=1)


class Peer:
    """A scripted HTTP/2 server in this process that notes every broken rule. A subclass says how to answer a call."""

    WINDOW = h2.DEFAULT_WINDOW
    STREAMS = 1000
    DELAY_S = 0.0

    def __init__(self):
        self.errors = []
        self.requests = []
        self.most_open = 0
        self.server = gevent.server.StreamServer(("127.0.0.1", 0), self.handle)

    def __enter__(self):
        self.server.start()
        return self, target(f"127.0.0.1:{self.server.server_port}")

    def __exit__(self, *failure):
        self.server.stop()

    def handle(self, socket, _):
        file = socket.makefile("rb")
        if file.read(len(h2.PREFACE)) != h2.PREFACE:
            self.errors.append("preface")
        socket.sendall(h2.settings([(h2.INITIAL_WINDOW_SIZE, self.WINDOW), (h2.MAX_CONCURRENT_STREAMS, self.STREAMS)]))
        connection_window = h2.DEFAULT_WINDOW
        windows: dict[int, int] = {}
        sizes: dict[int, int] = {}
        while head := file.read(9):
            high, low, kind, flags, stream = h2.FRAME.unpack(head)
            payload = file.read(high << 16 | low)
            if kind == h2.HEADERS:
                windows[stream] = self.WINDOW
                sizes[stream] = 0
                self.most_open = max(self.most_open, len(sizes))
            elif kind == h2.DATA:
                connection_window -= len(payload)
                windows[stream] -= len(payload)
                sizes[stream] += len(payload)
                if connection_window < 0 or windows[stream] < 0:
                    self.errors.append("flow control")
                if flags & h2.END_STREAM:
                    self.requests.append(sizes[stream])
                    gevent.spawn_later(self.DELAY_S, self.reply, socket, stream, sizes)
                elif windows[stream] == 0:
                    windows[stream] += 1000
                    socket.sendall(h2.window_update(stream, 1000))
                if connection_window < 20_000:
                    connection_window += 40_000
                    socket.sendall(h2.window_update(0, 40_000))

    def reply(self, socket, stream, open_streams):
        open_streams.pop(stream)
        for frame in self.answer(stream):
            socket.sendall(frame)

    def block(self, *fields):
        return Encoder().encode(list(fields), huffman=True)

    def answer(self, stream):
        head = self.block((":status", "200"), ("content-type", "application/grpc"))
        yield h2.frame(h2.HEADERS, h2.END_HEADERS, stream, b"\x20" + head)
        yield h2.frame(h2.DATA, 0, stream, h2.grpc_message(b"answer"))
        yield self.trailers(stream, "0")

    def trailers(self, stream, status):
        return h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, self.block(("grpc-status", status)))


def test_the_servers_limit_on_streams_is_kept():
    class Narrow(Peer):
        STREAMS = 2
        DELAY_S = 0.03

    with Narrow() as (peer, where):
        load = Load(where, "grpc", DUE)
    assert load.kinds() == {"ok": 40}
    assert peer.most_open == 2


def test_a_tiny_window_is_kept_and_the_whole_message_arrives():
    class Tiny(Peer):
        WINDOW = 700

    payload = h2.grpc_message(bytes(50_000))
    with Tiny() as (peer, where):
        load = Load(where, "grpc", DUE[:8], payload=payload, keep=True)
    assert load.kinds() == {"ok": 8}
    assert peer.errors == []
    assert peer.requests == [len(payload)] * 8
    assert set(load.recording.bodies.values()) == {b"answer"}


def test_headers_in_pieces_padding_and_pings_are_understood():
    class Fussy(Peer):
        def answer(self, stream):
            head = self.block((":status", "200"), ("content-type", "application/grpc"))
            yield h2.frame(h2.PING, 0, 0, b"12345678")
            yield h2.frame(h2.HEADERS, h2.PADDED | h2.PRIORITISED, stream, b"\x04" + bytes(5) + head[:3] + bytes(4))
            yield h2.frame(h2.CONTINUATION, 0, stream, head[3:4])
            yield h2.frame(h2.CONTINUATION, h2.END_HEADERS, stream, head[4:])
            message = h2.grpc_message(b"in three pieces")
            yield h2.frame(h2.DATA, h2.PADDED, stream, b"\x09" + message[:7] + bytes(9))
            yield h2.frame(0x42, 0xFF, stream, b"an extension")
            yield h2.frame(h2.DATA, 0, stream, message[7:9]) + h2.frame(h2.DATA, 0, stream, message[9:])
            yield self.trailers(stream, "0")

    with Fussy() as (_, where):
        load = Load(where, "grpc", DUE, keep=True)
    assert load.kinds() == {"ok": 40}
    assert set(load.recording.bodies.values()) == {b"in three pieces"}


@pytest.mark.parametrize(
    ("frames", "kind"),
    [
        (lambda p, s: [h2.frame(h2.RST_STREAM, 0, s, h2.WORD.pack(0x7))], "grpc_UNAVAILABLE"),
        (lambda p, s: [h2.frame(h2.RST_STREAM, 0, s, h2.WORD.pack(0x2))], "grpc_INTERNAL"),
        (lambda p, s: [p.trailers(s, "14")], "grpc_UNAVAILABLE"),
        (lambda p, s: [p.trailers(s, "99")], "grpc_UNKNOWN"),
        (lambda p, s: [p.trailers(s, "0")], "no_answer"),
        (lambda p, s: [h2.frame(h2.HEADERS, 0x5, s, p.block((":status", "502")))], "http_502"),
        (lambda p, s: [h2.frame(h2.HEADERS, 0x5, s, p.block((":status", "200")))], "grpc_UNKNOWN"),
        (lambda p, s: [h2.frame(h2.HEADERS, 0x5, s, b"\xff\xff\xff\xff\xff\xff")], "bad_response"),
        (lambda p, s: [h2.frame(h2.PUSH_PROMISE, 0x4, s, bytes(8))], "bad_response"),
        (lambda p, s: [b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"], "bad_response"),
    ],
)
def test_a_call_that_fails_is_counted_by_kind(frames, kind):
    class Failing(Peer):
        def answer(self, stream):
            return frames(self, stream)

    with Failing() as (_, where):
        assert Load(where, "grpc", DUE[:4], timeout_s=2).kinds() == {kind: 4}


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_the_body_of_an_error_is_quoted_whoever_answers(protocol):
    """A server over REST, and a proxy that knows no gRPC."""

    class Proxy(Peer):
        def answer(self, stream):
            yield h2.frame(h2.HEADERS, h2.END_HEADERS, stream, self.block((":status", "502")))
            yield h2.frame(h2.DATA, h2.END_STREAM, stream, b"Bad\n Gateway")

    with Proxy() as (_, where):
        load = Load(replace(where, http2=True), protocol, DUE[:4], timeout_s=2)
    assert load.kinds() == {"http_502": 4}
    assert (load.recording.first_error or (0, ""))[1] == "Bad Gateway"


@pytest.mark.parametrize(
    "refusal",
    [
        lambda stream: h2.frame(h2.GOAWAY, 0, 0, h2.WORD.pack(stream - 2 if stream > 1 else 0) + bytes(4)),
        lambda stream: h2.frame(h2.RST_STREAM, 0, stream, h2.WORD.pack(h2.REFUSED_STREAM)),
    ],
)
def test_a_call_that_was_refused_unread_is_sent_again(refusal):
    class Refusing(Peer):
        refused = 0

        def answer(self, stream):
            if not self.refused and len(self.requests) >= 10:
                self.refused += 1
                return [refusal(stream)]
            return super().answer(stream)

    with Refusing() as (peer, where):
        assert Load(where, "grpc", DUE).kinds() == {"ok": 40}
        assert peer.refused == 1
        assert len(peer.requests) >= 41


@given(st.binary(max_size=200), st.integers(1, 199))
def test_any_bytes_from_a_server_are_either_understood_or_a_protocol_error(data, split):
    headers = h2.ResponseHeaders()
    for block in (data[:split], data[split:]):
        try:
            http_status, grpc_status = headers.decode(block)
        except h2.ProtocolError:
            return
        kind = h2.kind_of(http_status, grpc_status)
        assert kind is None or kind.startswith(("grpc_", "http_"))
