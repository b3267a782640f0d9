"""HTTP/2's frames (RFC 9113) and gRPC's mapping onto them, as the load generator and the embedded server write them.

Both sides share frames, settings and the framing of messages; a client's headers and what it makes of an answer's are
here too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple

from serving.wire.grpc_status import Code

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = ACK = 0x1
END_HEADERS, PADDED, PRIORITISED = 0x4, 0x8, 0x20
# Settings.
HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS = 0x1, 0x2, 0x3
INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x4, 0x5, 0x6
# Error codes of RST_STREAM and GOAWAY.
NO_ERROR, PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 0x0, 0x1, 0x3, 0x5, 0x6
REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY = 0x7, 0x8, 0x9, 0xB, 0xC

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW = 65_535
LARGEST_WINDOW = 2**31 - 1
DEFAULT_FRAME_SIZE = 16_384
LAST_STREAM = 2**31 - 1
FRAME = struct.Struct(">BHBBI")  # length (24 bits), type, flags, stream
SETTING = struct.Struct(">HI")
WORD = struct.Struct(">I")
_MOST_BLOCKS = 1024

_STATUS_NAMES = {int(code): code.name for code in Code}
# RST_STREAM error code -> gRPC status (grpc/doc/PROTOCOL-HTTP2.md, "Errors"); every other code is INTERNAL.
_RESET_STATUS = {
    REFUSED_STREAM: Code.UNAVAILABLE,
    CANCEL: Code.CANCELLED,
    ENHANCE_YOUR_CALM: Code.RESOURCE_EXHAUSTED,
    INADEQUATE_SECURITY: Code.PERMISSION_DENIED,
}


class ProtocolError(Exception):
    """The peer broke HTTP/2: the connection cannot go on. `code` is the error code to tell it."""

    def __init__(self, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(reason)
        self.code = code


def head(kind: int, flags: int, stream: int, length: int) -> bytes:
    """The nine bytes in front of a payload of that length."""
    return FRAME.pack(length >> 16, length & 0xFFFF, kind, flags, stream)


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return FRAME.pack(len(payload) >> 16, len(payload) & 0xFFFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame."""
    return frame(SETTINGS, 0, 0, b"".join(SETTING.pack(key, value) for key, value in values))


def window_update(stream: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, stream, WORD.pack(increment))


def client_preface() -> bytes:
    """What a client says first: no push, no dynamic header table, and windows that never stop an answer."""
    ours = settings([(ENABLE_PUSH, 0), (HEADER_TABLE_SIZE, 0), (INITIAL_WINDOW_SIZE, LARGEST_WINDOW)])
    return PREFACE + ours + window_update(0, LARGEST_WINDOW - DEFAULT_WINDOW)


def request_headers(
    authority: str, method: str, headers: Iterable[tuple[str, str]] = (), *, encrypted: bool = False
) -> bytes:
    """The HPACK block of a unary gRPC request, with ``headers`` besides its own. It uses no dynamic table, so the same
    bytes serve every request, and no proxy may keep a secret that is among them."""
    fields = {
        ":method": "POST",
        ":scheme": "https" if encrypted else "http",
        ":path": method,
        ":authority": authority,
        "content-type": "application/grpc",
        "te": "trailers",
        "user-agent": "tandem-loadtest",
    }
    given = {name.lower(): value for name, value in headers}
    if "host" in given:  # as HTTP/2 has it
        given[":authority"] = given.pop("host")
    every = [NeverIndexedHeaderTuple(name, value) for name, value in {**fields, **given}.items()]
    return bytes(Encoder().encode(every, huffman=False))


def rest_request(request: bytes, *, encrypted: bool = False) -> tuple[bytes, bytes]:
    """A complete HTTP/1.1 request as HTTP/2 carries it: (the HPACK block of its headers, its body). Like
    `request_headers` it uses no dynamic table."""
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.decode("latin-1").split("\r\n")
    method, path, _ = line.split(" ")
    given = dict(field.split(": ", 1) for field in fields)
    named = {name.lower(): value for name, value in given.items()}
    every = {
        ":method": method,
        ":scheme": "https" if encrypted else "http",
        ":path": path,
        ":authority": named.pop("host"),
        **{name: value for name, value in named.items() if name != "connection"},
        "user-agent": "tandem-loadtest",
    }
    return bytes(Encoder().encode([NeverIndexedHeaderTuple(*one) for one in every.items()], huffman=False)), body


def grpc_message(message: bytes) -> bytes:
    """A serialized message with gRPC's prefix: not compressed, length."""
    return b"\0" + WORD.pack(len(message)) + message


def reset_kind(code: int) -> str:
    """The kind of error that a RST_STREAM with this code is."""
    return f"grpc_{_RESET_STATUS.get(code, Code.INTERNAL).name}"


def unpadded(flags: int, payload: bytes) -> bytes:
    """A DATA or HEADERS payload without padding and priority. Raises `ProtocolError` where they do not fit."""
    start, stop = 0, len(payload)
    if flags & PADDED:
        if not payload or payload[0] >= len(payload):
            raise ProtocolError("padding longer than its frame")
        start, stop = 1, stop - payload[0]
    if flags & PRIORITISED:
        start += 5
        if start > stop:
            raise ProtocolError("HEADERS too short for its priority", FRAME_SIZE_ERROR)
    return payload[start:stop]


class ResponseHeaders:
    """Decodes header blocks to (HTTP status or 0, gRPC status or -1).

    A server that honours our empty dynamic table sends the same block for the same headers, so decoded blocks are
    remembered; decoding each anew (pure Python) would cost more than the rest of a response.
    """

    def __init__(self) -> None:
        self._decoder = Decoder()
        self._decoder.max_allowed_table_size = 0
        # Some servers never say that they shrink a table that they never use.
        self._decoder.header_table_size = 0
        self._seen: dict[bytes, tuple[int, int]] = {}

    def decode(self, block: bytes) -> tuple[int, int]:
        """Raises `ProtocolError` for a block that is not HPACK or refers to a table that we do not have."""
        known = self._seen.get(block)
        if known is not None:
            return known
        try:
            fields = dict(self._decoder.decode(block, raw=True))
            status = int(fields.get(b":status", 0)), int(fields.get(b"grpc-status", -1))
        except (HPACKError, ValueError) as error:
            raise ProtocolError(f"header block: {error}") from error
        if len(self._seen) < _MOST_BLOCKS:
            self._seen[block] = status
        return status

    def message(self, block: bytes) -> bytes:
        """What a block of trailers that `decode` has taken says of an error; empty where it says nothing."""
        said: bytes = dict(self._decoder.decode(block, raw=True)).get(b"grpc-message", b"")
        return unquote_to_bytes(said)  # as gRPC has it over HTTP/2


def kind_of(http_status: int, grpc_status: int) -> str | None:
    """The kind of error of a finished call, None for success, from its HTTP and gRPC status (0 and -1: not seen)."""
    if grpc_status == 0:
        return None
    if grpc_status in _STATUS_NAMES:
        return f"grpc_{_STATUS_NAMES[grpc_status]}"
    if http_status not in (0, 200):
        return f"http_{http_status}"
    return "grpc_UNKNOWN"
