"""Compressed request bodies, the same for both front ends."""

from __future__ import annotations

import zlib

from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code


def inflate(data: bytes, limit: int) -> bytes:
    """Decompress gzip or zlib data of at most `limit` bytes when decompressed; raises `ServingError`."""
    try:
        decompressor = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        result = decompressor.decompress(data, limit)
    except zlib.error as error:
        raise ServingError(Code.INTERNAL, f"decompression: {error}") from None
    if decompressor.unconsumed_tail:
        raise ServingError(Code.RESOURCE_EXHAUSTED, f"Decompressed message larger than max ({limit})")
    return result
