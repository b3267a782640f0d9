"""The server's side of HTTP/2 (RFC 9113) over cleartext with prior knowledge, as gRPC clients speak it.

Why not grpcio: on one core an empty unary call costs its Python server about 500 µs, and this one about 60 µs, which
would otherwise be the largest part of a prediction. Only what gRPC needs is here: no push, no priorities, no trailers
from the client. A request is handed over whole; answers are written as one block of frames.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Protocol

import hpack

from serving.engines.embedded_tfserving.identity import NAME

log = logging.getLogger(NAME)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0, 1, 2, 3, 5, 6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 7, 8, 9, 11
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_STREAMS, INITIAL_WINDOW, MAX_FRAME, MAX_HEADER_LIST = range(1, 7)

DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1
OUR_MAX_FRAME = 2**20
OUR_MAX_HEADERS = 64 * 1024
# The connection's window bounds what one client may have under way; it is opened again as bytes arrive.
OUR_CONNECTION_WINDOW = 2**24
MAX_CONCURRENT_STREAMS = 10_000
MAX_CACHED_HEADER_BLOCKS = 256
# So much unread answer in the socket's buffer means a client that does not read: stop reading from it.
MAX_UNSENT = 2**24
# The PING that follows a connection's first GOAWAY: its answer says that the client has read that.
RETIRING = b"retiring"


class ConnectionFault(Exception):
    """The peer broke the protocol; the connection ends with this error code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The nine bytes in front of a frame's payload."""
    return b"%b%c%c%b" % (length.to_bytes(3, "big"), kind, flags, stream.to_bytes(4, "big"))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One HTTP/2 frame."""
    return head(kind, flags, stream, len(payload)) + payload


def setting(key: int, value: int) -> bytes:
    """One entry of a SETTINGS frame."""
    return key.to_bytes(2, "big") + value.to_bytes(4, "big")


class Stream:
    """One request: its headers, and its body while it arrives."""

    __slots__ = ("body", "half_closed", "headers", "id", "size", "unsent", "window")

    def __init__(self, number: int, headers: dict[str, str], window: int) -> None:
        self.id = number
        self.headers = headers
        self.body: list[bytes] = []
        self.size = 0
        self.half_closed = False  # the request is complete
        self.window = window  # bytes that the client still takes on this stream
        self.unsent: deque[tuple[bytes, bool]] = deque()  # (DATA payload, or a ready HEADERS frame; is it DATA?)


class Handler(Protocol):
    """What answers the requests; it may answer at any later time with `Http2Connection.respond`."""

    def opened(self, connection: Http2Connection) -> None:
        """A client has connected."""

    def closed(self, connection: Http2Connection) -> None:
        """A client's connection is gone."""

    def request(self, connection: Http2Connection, stream: Stream, body: bytes) -> None:
        """A complete request has arrived."""

    def too_large(self, connection: Http2Connection, stream: Stream) -> None:
        """A request's body has outgrown the limit; the rest of it is dropped."""

    def cancelled(self, connection: Http2Connection, stream: Stream) -> None:
        """The client gave the stream up, or the connection was lost, before it was answered."""


class Http2Connection(asyncio.Protocol):
    """One client's connection; bodies may have `max_body` bytes."""

    def __init__(self, handler: Handler, max_body: int = LARGEST_WINDOW) -> None:
        self.handler = handler
        self.max_body = max_body
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set by connection_made
        self.rest = b""
        self.preface_seen = False
        self.streams: dict[int, Stream] = {}
        self.last_stream = 0
        self.decoder = hpack.Decoder(OUR_MAX_HEADERS)
        self.header_blocks: dict[bytes, dict[str, str]] = {}
        self.open_headers: tuple[int, int, bytearray] | None = None  # stream, flags, block so far
        self.window = DEFAULT_WINDOW  # bytes that the client still takes on the connection
        self.stream_window = DEFAULT_WINDOW  # of a new stream
        self.peer_max_frame = 16_384
        self.received = 0  # body bytes since the last WINDOW_UPDATE
        self.blocked: dict[int, Stream] = {}  # streams whose answers wait for a window
        self.out: list[bytes] = []
        self.flush_due = False
        self.retiring = False
        self.draining = False

    def respond(self, stream: Stream, headers: bytes, body: bytes, trailers: bytes) -> None:
        """Answer: two encoded header blocks around a body. `headers` empty: trailers only."""
        if self.streams.get(stream.id) is not stream:
            return
        number = stream.id
        size = len(body)
        if headers and size <= self.window and size <= stream.window and size <= self.peer_max_frame:
            self.window -= size
            self.out += (
                head(HEADERS, END_HEADERS, number, len(headers)),
                headers,
                head(DATA, 0, number, size),
                body,
                head(HEADERS, END_HEADERS | END_STREAM, number, len(trailers)),
                trailers,
            )
            self._close(stream)
        else:
            if headers:
                self.out.append(frame(HEADERS, END_HEADERS, number, headers))
            for start in range(0, size, self.peer_max_frame):
                stream.unsent.append((body[start : start + self.peer_max_frame], True))
            stream.unsent.append((frame(HEADERS, END_HEADERS | END_STREAM, number, trailers), False))
            self._send(stream)
        if not self.flush_due:
            # At the end of this turn of the event loop: several answers then share one system call.
            self.flush_due = True
            asyncio.get_running_loop().call_soon(self.flush)

    def retire(self) -> None:
        """Have the client connect anew and lose nothing (RFC 9113, 6.8): tell it that the connection will end, take
        what it sends until it has read that, then `drain`."""
        if not self.retiring and not self.draining:
            self.retiring = True
            self.out.append(frame(GOAWAY, 0, 0, LARGEST_WINDOW.to_bytes(4, "big") + bytes(4) + b"max_age"))
            self.out.append(frame(PING, 0, 0, RETIRING))
            self.flush()

    def drain(self) -> None:
        """Take no new request (GOAWAY); close when the last one is answered."""
        if not self.draining:
            self.draining = True
            self.out.append(frame(GOAWAY, 0, 0, self.last_stream.to_bytes(4, "big") + bytes(4) + NAME.encode()))
            self.flush()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        ours = (
            setting(MAX_STREAMS, MAX_CONCURRENT_STREAMS)
            + setting(INITIAL_WINDOW, LARGEST_WINDOW)
            + setting(MAX_FRAME, OUR_MAX_FRAME)
            + setting(MAX_HEADER_LIST, OUR_MAX_HEADERS)
        )
        opened = (OUR_CONNECTION_WINDOW - DEFAULT_WINDOW).to_bytes(4, "big")
        transport.write(frame(SETTINGS, 0, 0, ours) + frame(WINDOW_UPDATE, 0, 0, opened))
        self.handler.opened(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Give up every request that is not answered."""
        streams, self.streams = self.streams, {}
        self.handler.closed(self)
        for stream in streams.values():
            self.handler.cancelled(self, stream)

    def pause_writing(self) -> None:
        """The client does not read its answers: read nothing more from it."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Take the frames that are complete."""
        try:
            self.rest = self._frames(self.rest + data if self.rest else data)
        except ConnectionFault as fault:
            log.debug("HTTP/2 connection ended: %s", fault)
            details = self.last_stream.to_bytes(4, "big") + fault.code.to_bytes(4, "big") + str(fault).encode()
            self.out.append(frame(GOAWAY, 0, 0, details))
            self.flush()
            self.transport.close()
        else:
            if self.received > OUR_CONNECTION_WINDOW // 4:
                self.out.append(frame(WINDOW_UPDATE, 0, 0, self.received.to_bytes(4, "big")))
                self.received = 0
            self.flush()

    def flush(self) -> None:
        """Write what has been collected."""
        self.flush_due = False
        if self.out:
            block = b"".join(self.out)
            self.out.clear()
            if not self.transport.is_closing():
                self.transport.write(block)
        if self.draining and not self.streams:
            self.transport.close()

    # Frames

    def _frames(self, data: bytes) -> bytes:
        """Handle the complete frames in `data` and return what remains."""
        at = 0
        if not self.preface_seen:
            if not PREFACE.startswith(data[: len(PREFACE)]):
                raise ConnectionFault(PROTOCOL_ERROR, "not HTTP/2 with prior knowledge")
            if len(data) < len(PREFACE):
                return data
            self.preface_seen = True
            at = len(PREFACE)
        end = len(data)
        while end - at >= 9:
            length = int.from_bytes(data[at : at + 3], "big")
            if length > OUR_MAX_FRAME:
                raise ConnectionFault(FRAME_SIZE_ERROR, f"a frame of {length} bytes")
            if end - at - 9 < length:
                break
            kind, flags = data[at + 3], data[at + 4]
            number = int.from_bytes(data[at + 5 : at + 9], "big") & LARGEST_WINDOW
            payload = data[at + 9 : at + 9 + length]
            at += 9 + length
            if self.open_headers and kind != CONTINUATION:
                raise ConnectionFault(PROTOCOL_ERROR, "a header block was interrupted")
            if kind == DATA:
                self._data(flags, number, payload)
            elif kind == HEADERS:
                self._headers(flags, number, payload)
            else:
                self._control(kind, flags, number, payload)
        return data[at:]

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        self.received += len(payload)
        stream = self.streams.get(number)
        if stream is None or stream.half_closed:
            if number > self.last_stream or number % 2 == 0:
                raise ConnectionFault(PROTOCOL_ERROR, "DATA on a stream that was never opened")
            return  # answered or reset already
        if flags & PADDED:
            payload = _unpad(payload)
        stream.size += len(payload)
        if stream.size > self.max_body:
            stream.half_closed = True
            stream.body.clear()
            self.handler.too_large(self, stream)
            return
        stream.body.append(payload)
        if flags & END_STREAM:
            self._complete(stream)

    def _complete(self, stream: Stream) -> None:
        stream.half_closed = True
        body = stream.body[0] if len(stream.body) == 1 else b"".join(stream.body)
        stream.body.clear()
        self.handler.request(self, stream, body)

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & PADDED:
            payload = _unpad(payload)
        if flags & WITH_PRIORITY:
            if len(payload) < 5:
                raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            payload = payload[5:]
        if flags & END_HEADERS:
            self._open(flags, number, payload)
        else:
            self.open_headers = (number, flags, bytearray(payload))

    def _open(self, flags: int, number: int, block: bytes) -> None:
        """A header block is complete: it opens a stream, or (trailers) ends one."""
        headers = self._decode(block)
        stream = self.streams.get(number)
        if stream is not None:
            if flags & END_STREAM and not stream.half_closed:
                self._complete(stream)
            return
        if number % 2 == 0 or number <= self.last_stream:
            raise ConnectionFault(STREAM_CLOSED, f"stream {number} cannot be opened")
        self.last_stream = number
        if self.draining or len(self.streams) >= MAX_CONCURRENT_STREAMS:
            # By RFC 9113, 8.7, the client may safely send a refused request again, elsewhere.
            self.out.append(frame(RST_STREAM, 0, number, REFUSED_STREAM.to_bytes(4, "big")))
            return
        stream = self.streams[number] = Stream(number, headers, self.stream_window)
        if flags & END_STREAM:
            self._complete(stream)

    def _decode(self, block: bytes) -> dict[str, str]:
        """Decode a header block. A client repeats most blocks byte for byte, and a block that leaves the dynamic
        table as it was means the same as long as that table stays so: those are remembered."""
        known = self.header_blocks.get(block)
        if known is not None:
            return known
        entries = self.decoder.header_table.dynamic_entries
        before = (len(entries), entries[0] if entries else None, self.decoder.header_table_size)
        try:
            headers = {str(name): str(value) for name, value in self.decoder.decode(block)}
        except (hpack.HPACKError, UnicodeDecodeError, IndexError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, f"header block: {error}") from None
        after = (len(entries), entries[0] if entries else None, self.decoder.header_table_size)
        if after[0] != before[0] or after[1] is not before[1] or after[2] != before[2]:
            self.header_blocks.clear()
        elif len(self.header_blocks) < MAX_CACHED_HEADER_BLOCKS:
            self.header_blocks[block] = headers
        return headers

    def _control(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE:
            self._window_update(number, payload)
        elif kind == RST_STREAM:
            self._reset(number, payload)
        elif kind == SETTINGS:
            if not flags & ACK:
                self._settings(payload)
                self.out.append(frame(SETTINGS, ACK, 0))
        elif kind == PING:
            if len(payload) != 8:
                raise ConnectionFault(FRAME_SIZE_ERROR, "PING")
            if not flags & ACK:
                self.out.append(frame(PING, ACK, 0, payload))
            elif self.retiring and payload == RETIRING:
                self.drain()
        elif kind == CONTINUATION:
            self._continue(flags, number, payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(PROTOCOL_ERROR, "a client cannot push")
        # GOAWAY, PRIORITY and frames of unknown types change nothing here.

    def _continue(self, flags: int, number: int, payload: bytes) -> None:
        if not self.open_headers or self.open_headers[0] != number:
            raise ConnectionFault(PROTOCOL_ERROR, "CONTINUATION without a header block")
        _, first_flags, block = self.open_headers
        block += payload
        if len(block) > OUR_MAX_HEADERS:
            raise ConnectionFault(ENHANCE_YOUR_CALM, "header block too large")
        if flags & END_HEADERS:
            self.open_headers = None
            self._open(first_flags, number, bytes(block))

    def _reset(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "RST_STREAM")
        stream = self.streams.pop(number, None)
        self.blocked.pop(number, None)
        if stream is not None:
            self.handler.cancelled(self, stream)

    def _settings(self, payload: bytes) -> None:
        if len(payload) % 6:
            raise ConnectionFault(FRAME_SIZE_ERROR, "SETTINGS")
        for at in range(0, len(payload), 6):
            key = int.from_bytes(payload[at : at + 2], "big")
            value = int.from_bytes(payload[at + 2 : at + 6], "big")
            if key == INITIAL_WINDOW:
                if value > LARGEST_WINDOW:
                    raise ConnectionFault(FLOW_CONTROL_ERROR, "SETTINGS_INITIAL_WINDOW_SIZE")
                for stream in self.streams.values():
                    stream.window += value - self.stream_window
                self.stream_window = value
                self._unblock()
            elif key == MAX_FRAME:
                if not 16_384 <= value < 2**24:
                    raise ConnectionFault(PROTOCOL_ERROR, "SETTINGS_MAX_FRAME_SIZE")
                self.peer_max_frame = min(value, OUR_MAX_FRAME)

    # Flow control of the answers

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ConnectionFault(FRAME_SIZE_ERROR, "WINDOW_UPDATE")
        amount = int.from_bytes(payload, "big") & LARGEST_WINDOW
        if number == 0:
            self.window += amount
            if amount == 0 or self.window > LARGEST_WINDOW:
                raise ConnectionFault(FLOW_CONTROL_ERROR, "connection window")
        elif number in self.streams:
            self.streams[number].window += amount
        self._unblock()

    def _unblock(self) -> None:
        for stream in list(self.blocked.values()):
            self._send(stream)

    def _send(self, stream: Stream) -> None:
        """Write as much of a stream's answer as the windows allow."""
        unsent = stream.unsent
        while unsent:
            payload, is_data = unsent[0]
            if not is_data:
                self.out.append(payload)
                unsent.popleft()
                continue
            room = min(self.window, stream.window)
            if room <= 0:
                self.blocked[stream.id] = stream
                return
            part = payload[:room]
            self.out.append(frame(DATA, 0, stream.id, part))
            self.window -= len(part)
            stream.window -= len(part)
            if len(part) < len(payload):
                unsent[0] = (payload[room:], True)
            else:
                unsent.popleft()
        self.blocked.pop(stream.id, None)
        self._close(stream)

    def _close(self, stream: Stream) -> None:
        self.streams.pop(stream.id, None)
        if not stream.half_closed:
            self.out.append(frame(RST_STREAM, 0, stream.id, NO_ERROR.to_bytes(4, "big")))


def _unpad(payload: bytes) -> bytes:
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(PROTOCOL_ERROR, "padding longer than its frame")
    return payload[1 : len(payload) - payload[0]]
