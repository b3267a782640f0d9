"""HTTP/2 (RFC 9113) one exchange after the other over a blocking socket: for the few requests before any load, where a
server may speak nothing else. The load itself has connections of its own."""

from __future__ import annotations

import contextlib
import socket
from typing import NamedTuple

from serving.wire import http2_frames as h2

_LARGEST_FRAME = 16_384  # what a peer may send as long as we allow no more


class Answer(NamedTuple):
    """HTTP's status, gRPC's (-1: none), what the latter says of an error, and the body."""

    status: int
    grpc_status: int
    said: bytes
    body: bytes


class Http2Connection:
    """A client's side of a connection; frames and what stands behind an exchange are read as it waits for an answer."""

    def __init__(self, connected: socket.socket) -> None:
        """``connected``: to a server that speaks HTTP/2 at once, or has agreed to by ALPN. Raises OSError."""
        self._socket = connected
        self._stream = -1
        self._initial = self._window = h2.DEFAULT_WINDOW  # of a stream, and of the connection: bytes that may be sent
        self._frame_size = h2.DEFAULT_FRAME_SIZE
        self._headers = h2.ResponseHeaders()
        self._socket.sendall(h2.client_preface())

    def ask(self, head: bytes, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a request, as `http2_frames.rest_request` gives it.

        Raises OSError where the connection is lost, and `ProtocolError` where the server does not speak HTTP/2, or
        ends the exchange; after either the connection is of no use.
        """
        answer = self._exchange(head, body)
        return answer.status, answer.body

    def call(self, head: bytes, message: bytes) -> Answer:
        """The answer to a unary gRPC call, as `http2_frames.request_headers` gives its head; `body` is its message,
        empty where there is none. Raises like `ask`."""
        answer = self._exchange(head, h2.grpc_message(message))
        if answer.body[:1] not in (b"", b"\0"):
            raise h2.ProtocolError("the server answers with a compressed message")
        return answer._replace(body=answer.body[5:])

    def close(self) -> None:
        """Close the connection."""
        with contextlib.suppress(OSError):
            self._socket.close()

    def _exchange(self, head: bytes, body: bytes) -> Answer:
        self._stream += 2
        self._send_head(head, last=not body)
        window, rest = self._initial, memoryview(body)
        status, block, answer = 0, b"", bytearray()
        grpc_status, said = -1, b""
        ended = whole = False
        while not (ended and whole):
            while rest and min(window, self._window) > 0:
                size = min(len(rest), window, self._window, self._frame_size)
                piece, rest = bytes(rest[:size]), rest[size:]
                self._socket.sendall(h2.frame(h2.DATA, 0 if rest else h2.END_STREAM, self._stream, piece))
                window, self._window = window - size, self._window - size
            kind, flags, stream, payload = self._receive()
            if stream == 0:
                window += self._of_connection(kind, flags, payload)
            elif stream != self._stream:
                continue  # of an exchange that has been answered
            elif kind == h2.WINDOW_UPDATE:
                window += _word(payload)
            elif kind == h2.RST_STREAM:
                raise h2.ProtocolError(f"the server reset the stream (error code {_word(payload)})")
            elif kind == h2.DATA:
                answer += h2.unpadded(flags, payload)
                ended, whole = bool(flags & h2.END_STREAM), True
            elif kind in (h2.HEADERS, h2.CONTINUATION):
                block += h2.unpadded(flags, payload) if kind == h2.HEADERS else payload
                ended = ended or (kind == h2.HEADERS and bool(flags & h2.END_STREAM))
                whole = bool(flags & h2.END_HEADERS)
                if whole:
                    found, of_grpc = self._headers.decode(block)
                    if of_grpc >= 0:
                        grpc_status, said = of_grpc, self._headers.message(block)
                    status, block = found if found >= 200 else status, b""  # not of 1xx, nor of trailers
        return Answer(status, grpc_status, said, bytes(answer))

    def _send_head(self, head: bytes, *, last: bool) -> None:
        first, *more = (head[at : at + self._frame_size] for at in range(0, len(head), self._frame_size))
        flags = (h2.END_STREAM if last else 0) | (0 if more else h2.END_HEADERS)
        frames = [h2.frame(h2.HEADERS, flags, self._stream, first)]
        for number, piece in enumerate(more, 1):
            end = h2.END_HEADERS if number == len(more) else 0
            frames.append(h2.frame(h2.CONTINUATION, end, self._stream, piece))
        self._socket.sendall(b"".join(frames))

    def _of_connection(self, kind: int, flags: int, payload: bytes) -> int:
        """What is said of the whole connection; returns by how much a stream's window grows."""
        grown = 0
        if kind == h2.WINDOW_UPDATE:
            self._window += _word(payload)
        elif kind == h2.PING and not flags & h2.ACK:
            self._socket.sendall(h2.frame(h2.PING, h2.ACK, 0, payload))
        elif kind == h2.GOAWAY:
            if len(payload) < 8 or _word(payload) < self._stream:
                raise h2.ProtocolError("the server went away")
        elif kind == h2.SETTINGS and not flags & h2.ACK:
            if len(payload) % h2.SETTING.size:
                raise h2.ProtocolError("SETTINGS of a wrong length", h2.FRAME_SIZE_ERROR)
            for key, value in h2.SETTING.iter_unpack(payload):
                if key == h2.INITIAL_WINDOW_SIZE and value <= h2.LARGEST_WINDOW:
                    grown, self._initial = grown + value - self._initial, value
                elif key == h2.MAX_FRAME_SIZE and value >= h2.DEFAULT_FRAME_SIZE:
                    self._frame_size = value
                elif key in (h2.INITIAL_WINDOW_SIZE, h2.MAX_FRAME_SIZE):
                    raise h2.ProtocolError(f"SETTINGS with {value} for {key}")
            self._socket.sendall(h2.frame(h2.SETTINGS, h2.ACK, 0))
        return grown

    def _receive(self) -> tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, payload."""
        high, low, kind, flags, stream = h2.FRAME.unpack(self._exactly(h2.FRAME.size))
        length = high << 16 | low
        if length > _LARGEST_FRAME:  # text, perhaps: a server of HTTP/1.1 answers in its own way
            raise h2.ProtocolError("it does not answer in HTTP/2", h2.FRAME_SIZE_ERROR)
        return kind, flags, stream & h2.LAST_STREAM, self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        found = bytearray()
        while len(found) < size:
            piece = self._socket.recv(size - len(found))
            if not piece:
                raise ConnectionResetError("the server closed the connection")
            found += piece
        return bytes(found)


def _word(payload: bytes) -> int:
    if len(payload) < 4:
        raise h2.ProtocolError("a frame that is too short", h2.FRAME_SIZE_ERROR)
    number: int = h2.WORD.unpack(payload[:4])[0]
    return number & h2.LAST_STREAM
