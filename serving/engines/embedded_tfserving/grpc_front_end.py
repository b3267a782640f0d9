"""Unary gRPC on `http2` (https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md)."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from serving.engines.embedded_tfserving.compression import inflate, inflated_size
from serving.engines.embedded_tfserving.http2 import Http2Connection, Stream
from serving.engines.embedded_tfserving.identity import NAME
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code
from serving.wire.http2_frames import grpc_message

log = logging.getLogger(NAME)

# Encoded header blocks (HPACK without the dynamic table, so that they mean the same on every connection):
# ":status: 200" is entry 8 of the static table and "content-type" entry 31; 0x00 starts a literal name.
CONTENT_TYPE = b"\x0f\x10\x10application/grpc"
RESPONSE_HEADERS = b"\x88" + CONTENT_TYPE
OK_TRAILERS = b"\x00\x0bgrpc-status\x010"
UNSUPPORTED_MEDIA_TYPE = b"\x08\x03415"

# 256 MiB: 80,000 images of 32x32x3.
MAX_MESSAGE = 2**28
# The real server's: a longer text is cut, and its end says so.
MAX_ERROR_TEXT = 1024
TRUNCATED = b"...TRUNCATED"
# Messages that are larger when decompressed are decompressed beside the event loop: this many bytes take about 5 ms.
INFLATED_AT_ONCE = 2**20
AGE_JITTER = 0.1  # gRPC's: connections that were opened together must not all be opened again together
TIMEOUT_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def _literal(text: bytes) -> bytes:
    """An HPACK string literal without Huffman coding (RFC 7541, 5.2)."""
    if len(text) < 127:
        return bytes((len(text),)) + text
    rest, size = len(text) - 127, [127]
    while rest >= 128:
        size.append(rest % 128 + 128)
        rest //= 128
    return bytes((*size, rest)) + text


def trailers(code: Code, message: str) -> bytes:
    """The encoded trailers of a failed call."""
    text = message.encode("utf-8", "replace")
    if len(text) > MAX_ERROR_TEXT:
        text = text[:MAX_ERROR_TEXT].decode("utf-8", "ignore").encode() + TRUNCATED  # no half characters
    quoted = quote(text, safe=" !\"#$&'()*+,-./:;<=>?@[\\]^_`{|}~")
    block = b"\x00\x0bgrpc-status" + _literal(str(int(code)).encode())
    return block + (b"\x00\x0cgrpc-message" + _literal(quoted.encode()) if text else b"")


class Call:
    """One call under way. Exactly one of `reply` and `fail` is called, on the event loop's thread; both do nothing
    once the client has gone."""

    __slots__ = ("alive", "connection", "deadline", "front_end", "stream")

    def __init__(self, front_end: GrpcFrontEnd, connection: Http2Connection, stream: Stream) -> None:
        self.front_end = front_end
        self.connection = connection
        self.stream = stream
        self.alive = True
        self.deadline: asyncio.TimerHandle | None = None

    def expire(self) -> None:
        """The client's deadline has passed."""
        self.fail(ServingError(Code.DEADLINE_EXCEEDED, "Deadline Exceeded"))

    def reply(self, message: bytes) -> None:
        """Send the answer."""
        if self.alive:
            self._end()
            self.connection.respond(self.stream, RESPONSE_HEADERS, grpc_message(message), OK_TRAILERS)

    def fail(self, error: ServingError) -> None:
        """Send a status other than OK."""
        if self.alive:
            self._end()
            self.connection.respond(self.stream, b"", b"", RESPONSE_HEADERS + trailers(error.code, error.message))

    def _end(self) -> None:
        self.forget()
        self.front_end.calls.pop((self.connection, self.stream.id), None)

    def forget(self) -> None:
        """Send nothing more."""
        self.alive = False
        if self.deadline is not None:
            self.deadline.cancel()


Method = Callable[[bytes, Call], None]


@contextmanager
def answering(call: Call) -> Iterator[None]:
    """What is raised in a ``with`` block is the call's answer."""
    try:
        yield
    except ServingError as error:
        call.fail(error)
    except Exception as error:  # a fault of ours must not take the connection's other calls down
        log.exception("a call failed")
        call.fail(ServingError(Code.INTERNAL, f"{type(error).__name__}: {error}"))


class GrpcFrontEnd:
    """Hands each call to its method. `max_calls` bounds the calls under way, as the real server's threads do.

    After `age_s` seconds, give or take a tenth, a connection is retired: its client is asked to connect anew, and its
    calls are finished, for `grace_s` seconds at most. None: without limit.
    """

    def __init__(
        self,
        methods: dict[str, Method],
        max_calls: int,
        age_s: float | None = None,
        grace_s: float | None = None,
    ) -> None:
        self.methods = methods
        self.max_calls = max_calls
        self.age_s = age_s
        self.grace_s = grace_s
        self.timers: dict[Http2Connection, asyncio.TimerHandle] = {}
        self.connections: set[Http2Connection] = set()
        self.calls: dict[tuple[Http2Connection, int], Call] = {}

    def protocol(self) -> Http2Connection:
        """A new connection, for `loop.create_server`."""
        return Http2Connection(self, max_body=MAX_MESSAGE + 5)

    def drain(self) -> None:
        """Take no new call; connections close as their last call is answered."""
        for connection in list(self.connections):
            connection.drain()

    # http2.Handler

    def opened(self, connection: Http2Connection) -> None:
        """A client has connected."""
        self.connections.add(connection)
        if self.age_s is not None:
            age_s = self.age_s * random.uniform(1 - AGE_JITTER, 1 + AGE_JITTER)
            self.timers[connection] = asyncio.get_running_loop().call_later(age_s, self._retire, connection)

    def _retire(self, connection: Http2Connection) -> None:
        connection.retire()
        if self.grace_s is not None:
            loop = asyncio.get_running_loop()
            self.timers[connection] = loop.call_later(self.grace_s, connection.transport.abort)

    def closed(self, connection: Http2Connection) -> None:
        """A client's connection is gone."""
        self.connections.discard(connection)
        if connection in self.timers:
            self.timers.pop(connection).cancel()

    def request(self, connection: Http2Connection, stream: Stream, body: bytes) -> None:
        """A complete call has arrived."""
        headers = stream.headers
        call = Call(self, connection, stream)
        if not headers.get("content-type", "").startswith("application/grpc"):
            connection.respond(stream, b"", b"", UNSUPPORTED_MEDIA_TYPE)
            return
        method = self.methods.get(headers.get(":path", ""))
        if method is None:
            call.fail(ServingError(Code.UNIMPLEMENTED, ""))
            return
        if len(self.calls) >= self.max_calls:
            call.fail(ServingError(Code.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted"))
            return
        self.calls[connection, stream.id] = call
        if "grpc-timeout" in headers:
            call.deadline = asyncio.get_running_loop().call_later(timeout_s(headers["grpc-timeout"]), call.expire)
        if body[:1] == b"\x01" and inflated_size(body[5:], MAX_MESSAGE) > INFLATED_AT_ONCE:
            reading = asyncio.get_running_loop().run_in_executor(None, _message, body, headers)
            reading.add_done_callback(lambda read: self._hand_over(method, call, read.result))
        else:
            self._hand_over(method, call, lambda: _message(body, headers))

    def _hand_over(self, method: Method, call: Call, read: Callable[[], bytes]) -> None:
        with answering(call):
            method(read(), call)

    def too_large(self, connection: Http2Connection, stream: Stream) -> None:
        """A message has outgrown `MAX_MESSAGE`."""
        message = f"Received message larger than max ({stream.size} vs. {MAX_MESSAGE})"
        Call(self, connection, stream).fail(ServingError(Code.RESOURCE_EXHAUSTED, message))

    def cancelled(self, connection: Http2Connection, stream: Stream) -> None:
        """The client no longer waits."""
        call = self.calls.pop((connection, stream.id), None)
        if call is not None:
            call.forget()


def timeout_s(text: str) -> float:
    """The seconds that a `grpc-timeout` header leaves; a malformed one leaves a day."""
    unit = TIMEOUT_UNITS.get(text[-1:])
    return int(text[:-1]) * unit if unit and text[:-1].isdecimal() and len(text) <= 9 else 86_400.0


def _message(body: bytes, headers: dict[str, str]) -> bytes:
    """The one message of a unary call; raises `ServingError`."""
    if len(body) < 5 or len(body) - 5 != int.from_bytes(body[1:5], "big"):
        raise ServingError(Code.INTERNAL, "a unary call carries exactly one whole message")
    if body[0] == 0:
        return body[5:]
    encoding = headers.get("grpc-encoding", "identity")
    if encoding not in ("gzip", "deflate"):
        raise ServingError(Code.UNIMPLEMENTED, f"grpc-encoding {encoding} is not supported")
    return inflate(body[5:], MAX_MESSAGE)
