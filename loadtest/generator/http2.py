"""Unary gRPC calls, and REST requests, over a few HTTP/2 connections, without a library between the schedule and the
socket.

As closed loops with 32 callers on one core, grpcio with gevent made 3,067 calls/s and these connections 36,641, 12
times as many, in the same run of `make bench-loadgen`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Sequence

import gevent

from loadtest.experiment import own_errors
from loadtest.generator.connection import NO_ANSWER, Connection, Places, cannot_open
from loadtest.generator.recording import Finish
from loadtest.generator.timer import clock
from loadtest.generator.tls_session import NewSession
from loadtest.generator.tunnels import Through
from models.problem import Problem
from serving.wire import http2_frames as h2

CONNECTIONS = 4
_MOST_CONNECTIONS = 64
_RECONNECT_S = 0.1
# Small enough that handling one piece delays no due request by more than a fraction of a millisecond.
_READ_SIZE = 16_384
_LARGEST_HEADERS = 65_536

# (request number, framed message, keep its answer)
_Call = tuple[int, bytes, bool]


class GrpcClient:
    """Calls one unary method over `CONNECTIONS` connections in turn, more where the name has more addresses; a lost one
    is replaced at the next call.

    `finish` learns how each call ended: None (gRPC status OK and a message), "grpc_UNAVAILABLE" and the like,
    "http_502" and the like (an answer without gRPC status), "no_answer" (OK without a message), "connection" (refused
    or lost), "bad_response" (not HTTP/2) or one of `own_errors.KINDS`; with a status that is an error comes what the
    server says of it. `between` is called after each piece of work. A call that a server refuses
    unread, by GOAWAY or REFUSED_STREAM, goes out once more, as in every gRPC client (gRFC A6, transparent retry).
    """

    api, refused = "gRPC API", "grpc_UNAVAILABLE"

    def __init__(
        self,
        address: str,
        method: str,
        finish: Finish,
        between: Callable[[], None],
        new_session: NewSession | None = None,
        headers: Sequence[tuple[str, str]] = (),
        through: Through | None = None,
    ) -> None:
        """`headers`: sent with every call, besides gRPC's own; `through`: a proxy, which connections go to instead."""
        self._address = address
        self.places = Places(through.proxy if through else address)
        self.new_session = new_session
        self.new_tunnel = through.tunnel if through else None
        self.headers = h2.request_headers(address, method, headers, encrypted=new_session is not None)
        self.good: Container[int] | None = None
        self.finish = finish
        self.between = between
        self._usable: list[_Http2Connection] = []
        self._all: set[_Http2Connection] = set()
        self._turn = 0
        self._retried: set[int] = set()
        self._tried = 0.0
        self._lost_kind = "connection"  # of requests that no connection can be had for
        self._most = CONNECTIONS

    def open(self, timeout_s: float = 5.0) -> None:
        """Connect and exchange settings before the clock starts. Raises `Problem` where that fails."""
        self.places.keep_reachable()
        self._most = max(CONNECTIONS, min(len(self.places), _MOST_CONNECTIONS))
        try:
            fresh = [self._connect() for _ in range(self._most - len(self._usable))]
        except OSError as error:
            self.close()
            raise cannot_open(self._address, error) from error
        deadline = clock() + timeout_s
        while not all(connection.settled for connection in fresh):
            if clock() > deadline or not all(connection.open for connection in fresh):
                greeted = any(connection.greeted for connection in fresh)
                what = "no HTTP/2 from" if greeted else "cannot connect to"
                why = next((one.failure for one in fresh if one.failure), NO_ANSWER[self.new_session is not None])
                self.close()
                raise Problem(f"{what} the {self.api} at {self._address}: {why}")
            gevent.sleep(0.001)

    def send(self, request: int, payload: bytes, keep: bool) -> None:
        """Call with a message framed by `http2_frames.grpc_message`; `keep`: hand its answer's message to `finish`."""
        usable = self._usable
        if len(usable) < self._most and clock() - self._tried > _RECONNECT_S:
            try:
                self._lost_kind = self._connect().lost_kind
            except OSError as error:
                self._lost_kind = own_errors.kind_of(error.errno)
        if usable:
            self._turn = (self._turn + 1) % len(usable)
            usable[self._turn].call((request, payload, keep))
        else:
            self.finish(request, self._lost_kind, clock(), None)

    def split(self, payload: bytes) -> tuple[bytes, bytes]:
        """(Block of headers, message) of a payload."""
        return self.headers, payload

    def abandon(self, requests: Container[int]) -> None:
        """Cancel these calls."""
        for connection in list(self._all):
            connection.cancel(requests)

    def close(self) -> None:
        """Close all connections; nothing more is reported."""
        for connection in list(self._all):
            connection.close()
        self._usable.clear()

    def retire(self, connection: _Http2Connection) -> None:
        """A connection takes no more calls (called by the connection)."""
        if connection in self._usable:
            self._usable.remove(connection)

    def gone(self, connection: _Http2Connection) -> None:
        """A connection is closed (called by the connection)."""
        self._all.discard(connection)

    def retry(self, call: _Call) -> None:
        """Send a call again that the server did not look at."""
        if call[0] in self._retried:
            self.finish(call[0], self.refused, clock(), None)
        else:
            self._retried.add(call[0])
            self._tried = 0.0
            self.send(*call)

    def _connect(self) -> _Http2Connection:
        self._tried = clock()
        connection = _Http2Connection(self)
        if connection.refused:
            connection.close()
        else:
            self._all.add(connection)
            self._usable.append(connection)
            connection.write(h2.client_preface())
        return connection


class RestClient(GrpcClient):
    """REST over HTTP/2, over the same few connections. Payloads are complete HTTP/1.1 requests; `finish` learns what
    `HttpClient` tells it."""

    api, refused = "REST API", "connection"

    def __init__(
        self,
        address: str,
        finish: Finish,
        between: Callable[[], None],
        new_session: NewSession | None = None,
        good: Container[int] = (200,),
        through: Through | None = None,
    ) -> None:
        super().__init__(address, "/", finish, between, new_session, through=through)
        self.good = good
        self._known: dict[bytes, tuple[bytes, bytes]] = {}

    def split(self, payload: bytes) -> tuple[bytes, bytes]:
        """Remembered: there are few payloads, and many requests. A bytes object hashes its content once."""
        known = self._known.get(payload)
        if known is None:
            known = self._known[payload] = h2.rest_request(payload, encrypted=self.new_session is not None)
        return known


class _Upload:
    """The rest of a message that flow control holds back."""

    def __init__(self, data: bytes, window: int) -> None:
        self.data = memoryview(data)
        self.window = window


class _Http2Connection(Connection):
    def __init__(self, client: GrpcClient) -> None:
        super().__init__(
            client.places.next(),
            _READ_SIZE,
            client.new_session() if client.new_session else None,
            client.new_tunnel() if client.new_tunnel else None,
        )
        self._client = client
        self._good = client.good  # None: gRPC
        self._decoder = h2.ResponseHeaders()
        self._partial = b""
        self._block: tuple[int, int, bytes] | None = None  # stream, flags and fragments of unfinished headers
        self._next_stream = 1
        self._calls: dict[int, _Call] = {}
        self._http_status: dict[int, int] = {}
        self._messages: dict[int, list[bytes]] = {}
        self._with_data: set[int] = set()
        self._uploads: dict[int, _Upload] = {}
        self._waiting: deque[_Call] = deque()
        self._most_streams = h2.LAST_STREAM
        self._stream_window = h2.DEFAULT_WINDOW
        self._window = h2.DEFAULT_WINDOW
        self._frame_size = h2.DEFAULT_FRAME_SIZE
        self._unacknowledged = 0
        self._usable = True
        self.settled = False
        self.greeted = False
        self._broken = False

    def call(self, call: _Call) -> None:
        """Start a call, or queue it where the server allows no more streams."""
        if len(self._calls) >= self._most_streams:
            self._waiting.append(call)
            return
        stream = self._next_stream
        self._next_stream += 2
        if self._next_stream > h2.LAST_STREAM:
            self._drain()
        self._calls[stream] = call
        _, payload, keep = call
        headers, message = self._client.split(payload)
        if keep:
            self._messages[stream] = []
        size = len(message)
        flags = h2.END_HEADERS if size else h2.END_HEADERS | h2.END_STREAM
        head = h2.FRAME.pack(0, len(headers), h2.HEADERS, flags, stream)
        if not size:  # a GET
            self.write(head + headers)
            return
        if size <= self._window and size <= self._stream_window and size <= self._frame_size and not self._uploads:
            self._window -= size
            data = h2.FRAME.pack(size >> 16, size & 0xFFFF, h2.DATA, h2.END_STREAM, stream)
            self.write(b"".join((head, headers, data, message)))
        else:
            self._uploads[stream] = _Upload(message, self._stream_window)
            self.write(head + headers)
            self._upload()

    def cancel(self, requests: Container[int]) -> None:
        """Reset these calls' streams, where they are this connection's."""
        for stream, call in list(self._calls.items()):
            if call[0] in requests:
                self._forget(stream)
                self.write(h2.frame(h2.RST_STREAM, 0, stream, h2.WORD.pack(h2.CANCEL)))
        self._waiting = deque(call for call in self._waiting if call[0] not in requests)
        self._start_waiting()

    def received(self, data: bytes) -> None:
        when = clock()
        self.greeted = True
        if self._partial:
            data = self._partial + data
        position, end = 0, len(data)
        try:
            while end - position >= 9:
                high, low, kind, flags, stream = h2.FRAME.unpack_from(data, position)
                size = high << 16 | low
                if size > h2.DEFAULT_FRAME_SIZE:
                    raise h2.ProtocolError("frame larger than allowed")
                stop = position + 9 + size
                if stop > end:
                    break
                self._frame(kind, flags, stream & h2.LAST_STREAM, data[position + 9 : stop], when)
                position = stop
        except h2.ProtocolError:
            self._broken = True
            self.lose()
            return
        self._partial = data[position:]
        self._client.between()

    def close(self) -> None:
        super().close()
        self._client.gone(self)

    def ended(self) -> None:
        kind = "bad_response" if self._broken else "connection"
        calls = list(self._calls.values())
        self._calls.clear()
        self._uploads.clear()
        self._drain()
        when = clock()
        for request, _, _ in calls:
            self._client.finish(request, kind, when, None)

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, when: float) -> None:
        if self._block is not None and (kind != h2.CONTINUATION or stream != self._block[0]):
            raise h2.ProtocolError("headers interrupted")
        if kind == h2.DATA:
            self._data(flags, stream, payload, when)
        elif kind == h2.HEADERS:
            block = h2.unpadded(flags, payload) if flags & (h2.PADDED | h2.PRIORITISED) else payload
            if flags & h2.END_HEADERS:
                self._response(stream, flags, block, when)
            else:
                self._block = stream, flags, block
        elif kind == h2.CONTINUATION:
            self._continuation(flags, payload, when)
        elif kind == h2.WINDOW_UPDATE:
            self._grant(stream, payload)
        else:
            self._control(kind, flags, stream, payload, when)

    def _control(self, kind: int, flags: int, stream: int, payload: bytes, when: float) -> None:
        if kind == h2.RST_STREAM:
            if len(payload) != 4:
                raise h2.ProtocolError("RST_STREAM")
            self._reset(stream, h2.WORD.unpack(payload)[0], when)
        elif kind == h2.SETTINGS:
            self._settings(flags, payload)
        elif kind == h2.PING:
            if not flags & h2.ACK:
                self.write(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.GOAWAY:
            self._go_away(payload)
        elif kind == h2.PUSH_PROMISE:
            raise h2.ProtocolError("PUSH_PROMISE")

    def _data(self, flags: int, stream: int, payload: bytes, when: float) -> None:
        self._unacknowledged += len(payload)
        if self._unacknowledged > h2.LARGEST_WINDOW // 2:
            self.write(h2.window_update(0, self._unacknowledged))
            self._unacknowledged = 0
        if stream not in self._calls:
            return
        if payload:
            self._with_data.add(stream)
        if stream in self._messages:
            self._messages[stream].append(h2.unpadded(flags & h2.PADDED, payload))
        if flags & h2.END_STREAM:
            if self._good is not None:
                self._finish(stream, self._kind_of(self._http_status.get(stream, 200)), when)
            else:  # no trailers, so no gRPC status
                self._finish(stream, h2.kind_of(self._http_status.get(stream, 0), -1), when)

    def _continuation(self, flags: int, payload: bytes, when: float) -> None:
        if self._block is None:
            raise h2.ProtocolError("CONTINUATION without headers")
        stream, first_flags, block = self._block
        block += payload
        if len(block) > _LARGEST_HEADERS:
            raise h2.ProtocolError("headers too large")
        self._block = stream, first_flags, block
        if flags & h2.END_HEADERS:
            self._block = None
            self._response(stream, first_flags, block, when)

    def _response(self, stream: int, flags: int, block: bytes, when: float) -> None:
        http_status, grpc_status = self._decoder.decode(block)
        if stream not in self._calls:
            return
        if not flags & h2.END_STREAM:
            if http_status != 200:
                self._http_status[stream] = http_status
                if self._kind_of(http_status):
                    self._messages.setdefault(stream, [])  # what it says of the error
            return
        if self._good is not None:
            self._finish(stream, self._kind_of(http_status or self._http_status.get(stream, 200)), when)
            return
        kind = h2.kind_of(http_status or self._http_status.get(stream, 0), grpc_status)
        if kind is None and stream not in self._with_data:
            kind = "no_answer"
        self._finish(stream, kind, when, self._decoder.message(block) if kind else b"")

    def _kind_of(self, status: int) -> str | None:
        """How a REST request ended that was answered with this status."""
        return None if self._good is not None and status in self._good else f"http_{status}"

    def _finish(self, stream: int, kind: str | None, when: float, said: bytes = b"") -> None:
        call = self._calls.get(stream)
        if call is None:
            return
        message = None
        if call[2] and kind is None:
            message = b"".join(self._messages[stream])
            message = message[5:] if self._good is None else message
        elif kind is not None:
            message = said or b"".join(self._messages.get(stream, ()))
        if stream in self._uploads:  # answered before the whole request was sent
            self.write(h2.frame(h2.RST_STREAM, 0, stream, h2.WORD.pack(h2.NO_ERROR)))
        self._forget(stream)
        self._client.finish(call[0], kind, when, message)
        self._start_waiting()

    def _reset(self, stream: int, code: int, when: float) -> None:
        if code == h2.REFUSED_STREAM and stream in self._calls:
            call = self._calls[stream]
            self._forget(stream)
            self._client.retry(call)
            self._start_waiting()
        else:
            self._finish(stream, h2.reset_kind(code) if self._good is None else "connection", when)

    def _forget(self, stream: int) -> None:
        del self._calls[stream]
        self._with_data.discard(stream)
        self._http_status.pop(stream, None)
        self._messages.pop(stream, None)
        self._uploads.pop(stream, None)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._calls) < self._most_streams:
            self.call(self._waiting.popleft())
        if not self._usable and not self._calls:
            self.close()

    def _drain(self) -> None:
        """Take no more calls; those that wait here go to the other connections."""
        self._usable = False
        self._client.retire(self)
        waiting, self._waiting = self._waiting, deque()
        for call in waiting:
            self._client.send(*call)

    def _settings(self, flags: int, payload: bytes) -> None:
        if flags & h2.ACK:
            return
        if len(payload) % 6:
            raise h2.ProtocolError("SETTINGS")
        for key, value in h2.SETTING.iter_unpack(payload):
            if key == h2.MAX_CONCURRENT_STREAMS:
                self._most_streams = value
            elif key == h2.MAX_FRAME_SIZE:
                self._frame_size = value
            elif key == h2.INITIAL_WINDOW_SIZE:
                for upload in self._uploads.values():
                    upload.window += value - self._stream_window
                self._stream_window = value
        self.write(h2.frame(h2.SETTINGS, h2.ACK, 0))
        self.settled = True
        self._upload()
        self._start_waiting()

    def _grant(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise h2.ProtocolError("WINDOW_UPDATE")
        increment = h2.WORD.unpack(payload)[0] & h2.LARGEST_WINDOW
        if stream == 0:
            self._window += increment
        elif stream in self._uploads:
            self._uploads[stream].window += increment
        if self._uploads:
            self._upload()

    def _upload(self) -> None:
        """Send what the peer's windows allow of the messages that wait, oldest first."""
        for stream, upload in list(self._uploads.items()):
            while stream in self._uploads:
                size = min(len(upload.data), self._window, upload.window, self._frame_size)
                if size <= 0:
                    break
                self._window -= size
                upload.window -= size
                last = size == len(upload.data)
                piece = bytes(upload.data[:size])
                upload.data = upload.data[size:]
                if last:
                    del self._uploads[stream]
                self.write(h2.frame(h2.DATA, h2.END_STREAM if last else 0, stream, piece))

    def _go_away(self, payload: bytes) -> None:
        if len(payload) < 8:
            raise h2.ProtocolError("GOAWAY")
        last_stream = h2.WORD.unpack_from(payload)[0] & h2.LAST_STREAM
        self._drain()
        refused = {stream: call for stream, call in self._calls.items() if stream > last_stream}
        for stream, call in refused.items():
            self._forget(stream)
            self._client.retry(call)
        if not self._calls:
            self.close()
