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
from serving.wire.http2_frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    DEFAULT_FRAME_SIZE,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    LARGEST_WINDOW,
    LAST_STREAM,
    MAX_CONCURRENT_STREAMS,
    MAX_FRAME_SIZE,
    MAX_HEADER_LIST_SIZE,
    NO_ERROR,
    PADDED,
    PING,
    PREFACE,
    PRIORITISED,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTING,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    WORD,
    ProtocolError,
    frame,
    head,
    settings,
    unpadded,
    window_update,
)

log = logging.getLogger(NAME)

OUR_MAX_FRAME = 2**20
OUR_MAX_HEADERS = 64 * 1024
# The connection's window bounds what one client may have under way; it is opened again as bytes arrive.
OUR_CONNECTION_WINDOW = 2**24
OUR_MAX_STREAMS = 10_000
MAX_CACHED_HEADER_BLOCKS = 256
# So much unread answer in the socket's buffer means a client that does not read: stop reading from it.
MAX_UNSENT = 2**24
# The PING that follows a connection's first GOAWAY: its answer says that the client has read that.
RETIRING = b"retiring"


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
        self.peer_max_frame = DEFAULT_FRAME_SIZE
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
            self.out.append(frame(GOAWAY, 0, 0, WORD.pack(LAST_STREAM) + bytes(4) + b"max_age"))
            self.out.append(frame(PING, 0, 0, RETIRING))
            self.flush()

    def drain(self) -> None:
        """Take no new request (GOAWAY); close when the last one is answered."""
        if not self.draining:
            self.draining = True
            self.out.append(frame(GOAWAY, 0, 0, WORD.pack(self.last_stream) + bytes(4) + NAME.encode()))
            self.flush()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send our settings."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(high=MAX_UNSENT)
        ours = [
            (MAX_CONCURRENT_STREAMS, OUR_MAX_STREAMS),
            (INITIAL_WINDOW_SIZE, LARGEST_WINDOW),
            (MAX_FRAME_SIZE, OUR_MAX_FRAME),
            (MAX_HEADER_LIST_SIZE, OUR_MAX_HEADERS),
        ]
        transport.write(settings(ours) + window_update(0, OUR_CONNECTION_WINDOW - DEFAULT_WINDOW))
        self.handler.opened(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - as the protocol has it
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
        except ProtocolError as fault:
            log.debug("HTTP/2 connection ended: %s", fault)
            details = WORD.pack(self.last_stream) + WORD.pack(fault.code) + str(fault).encode()
            self.out.append(frame(GOAWAY, 0, 0, details))
            self.flush()
            self.transport.close()
        else:
            if self.received > OUR_CONNECTION_WINDOW // 4:
                self.out.append(window_update(0, self.received))
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
                raise ProtocolError("not HTTP/2 with prior knowledge")
            if len(data) < len(PREFACE):
                return data
            self.preface_seen = True
            at = len(PREFACE)
        end = len(data)
        while end - at >= 9:
            high, low, kind, flags, number = FRAME.unpack_from(data, at)
            length = high << 16 | low
            if length > OUR_MAX_FRAME:
                raise ProtocolError(f"a frame of {length} bytes", FRAME_SIZE_ERROR)
            if end - at - 9 < length:
                break
            payload = data[at + 9 : at + 9 + length]
            at += 9 + length
            if self.open_headers and kind != CONTINUATION:
                raise ProtocolError("a header block was interrupted")
            if kind == DATA:
                self._data(flags, number & LAST_STREAM, payload)
            elif kind == HEADERS:
                self._headers(flags, number & LAST_STREAM, payload)
            else:
                self._control(kind, flags, number & LAST_STREAM, payload)
        return data[at:]

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        self.received += len(payload)
        stream = self.streams.get(number)
        if stream is None or stream.half_closed:
            if number > self.last_stream or number % 2 == 0:
                raise ProtocolError("DATA on a stream that was never opened")
            return  # answered or reset already
        if flags & PADDED:
            payload = unpadded(PADDED, payload)
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
        if flags & (PADDED | PRIORITISED):
            payload = unpadded(flags, payload)
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
            raise ProtocolError(f"stream {number} cannot be opened", STREAM_CLOSED)
        self.last_stream = number
        if self.draining or len(self.streams) >= OUR_MAX_STREAMS:
            # By RFC 9113, 8.7, the client may safely send a refused request again, elsewhere.
            self.out.append(frame(RST_STREAM, 0, number, WORD.pack(REFUSED_STREAM)))
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
            raise ProtocolError(f"header block: {error}", COMPRESSION_ERROR) from None
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
                raise ProtocolError("PING", FRAME_SIZE_ERROR)
            if not flags & ACK:
                self.out.append(frame(PING, ACK, 0, payload))
            elif self.retiring and payload == RETIRING:
                self.drain()
        elif kind == CONTINUATION:
            self._continue(flags, number, payload)
        elif kind == PUSH_PROMISE:
            raise ProtocolError("a client cannot push")
        # GOAWAY, PRIORITY and frames of unknown types change nothing here.

    def _continue(self, flags: int, number: int, payload: bytes) -> None:
        if not self.open_headers or self.open_headers[0] != number:
            raise ProtocolError("CONTINUATION without a header block")
        _, first_flags, block = self.open_headers
        block += payload
        if len(block) > OUR_MAX_HEADERS:
            raise ProtocolError("header block too large", ENHANCE_YOUR_CALM)
        if flags & END_HEADERS:
            self.open_headers = None
            self._open(first_flags, number, bytes(block))

    def _reset(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError("RST_STREAM", FRAME_SIZE_ERROR)
        stream = self.streams.pop(number, None)
        self.blocked.pop(number, None)
        if stream is not None:
            self.handler.cancelled(self, stream)

    def _settings(self, payload: bytes) -> None:
        if len(payload) % 6:
            raise ProtocolError("SETTINGS", FRAME_SIZE_ERROR)
        for key, value in SETTING.iter_unpack(payload):
            if key == INITIAL_WINDOW_SIZE:
                if value > LARGEST_WINDOW:
                    raise ProtocolError("SETTINGS_INITIAL_WINDOW_SIZE", FLOW_CONTROL_ERROR)
                for stream in self.streams.values():
                    stream.window += value - self.stream_window
                self.stream_window = value
                self._unblock()
            elif key == MAX_FRAME_SIZE:
                if not DEFAULT_FRAME_SIZE <= value < 2**24:
                    raise ProtocolError("SETTINGS_MAX_FRAME_SIZE")
                self.peer_max_frame = min(value, OUR_MAX_FRAME)

    # Flow control of the answers

    def _window_update(self, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError("WINDOW_UPDATE", FRAME_SIZE_ERROR)
        amount = WORD.unpack(payload)[0] & LARGEST_WINDOW
        if number == 0:
            self.window += amount
            if amount == 0 or self.window > LARGEST_WINDOW:
                raise ProtocolError("connection window", FLOW_CONTROL_ERROR)
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
            self.out.append(frame(RST_STREAM, 0, stream.id, WORD.pack(NO_ERROR)))
