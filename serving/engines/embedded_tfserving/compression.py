"""Compressed request bodies, the same for both front ends."""

from __future__ import annotations

import zlib

from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code

GZIP = b"\x1f\x8b"


def inflated_size(data: bytes, limit: int) -> int:
    """How many bytes data that `inflate` takes has when decompressed: what gzip says of itself (RFC 1952), or `limit`
    for zlib, which says nothing."""
    return int.from_bytes(data[-4:], "little") if data.startswith(GZIP) else limit


def inflate(data: bytes, limit: int) -> bytes:
    """Decompress gzip or zlib data, one whole stream and nothing behind it, of at most `limit` bytes when decompressed.

    Raises `ServingError`.
    """
    size = inflated_size(data, limit)
    if size > limit:
        raise ServingError(Code.RESOURCE_EXHAUSTED, f"Decompressed message larger than max ({size} vs. {limit})")
    decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    try:
        result = decompressor.decompress(data, size + 1)  # one byte more: only then is the end of the stream read
    except zlib.error as error:
        raise ServingError(Code.INTERNAL, f"decompression: {error}") from None
    if decompressor.unconsumed_tail and len(result) > limit:
        raise ServingError(Code.RESOURCE_EXHAUSTED, f"Decompressed message larger than max ({limit})")
    if not decompressor.eof or decompressor.unused_data:
        raise ServingError(Code.INTERNAL, "decompression: the data is cut off, or more follows it")
    return result


def rest_body(data: bytes, limit: int) -> bytes:
    """A REST request's body out of gzip; an empty one where it is none, as in the real server."""
    try:
        return inflate(data, limit) if data.startswith(GZIP) else b""
    except ServingError:
        return b""
