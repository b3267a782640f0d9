"""Requests encoded as bytes before the clock starts, and answers decoded, for whichever engine serves the target.

Imports neither torch nor tensorflow, so that the load generator may use it.
"""

from __future__ import annotations

import numpy as np

from serving.engines import registry
from serving.engines.engine import Call
from serving.target import Target


def call(target: Target, protocol: str) -> Call:
    """How ``target`` is called over ``protocol``. Raises ValueError for a protocol that its engine does not speak, and
    `Problem` for an engine that is not known."""
    engine = registry.engine(target.engine)
    if protocol not in engine.protocols:
        raise ValueError(f"protocol {protocol!r}: use one of {', '.join(engine.protocols)}")
    return engine.call(target, protocol)


def encode(target: Target, protocol: str, images: np.ndarray) -> bytes:
    """Encode uint8 ``images`` [N, H, W, C] as one request.

    gRPC: the serialized request message, without gRPC's 5-byte prefix. REST: a complete HTTP/1.1 request with
    keep-alive. Raises ValueError for an unknown protocol or images that the target does not take.
    """
    how = call(target, protocol)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != target.input_shape or not len(images):
        raise ValueError(
            f"images are {images.dtype} {images.shape}; {target.model} takes uint8 (N, {target.input_shape})"
        )
    body = how.encode(images)
    if protocol == "grpc":
        return body
    head = (
        f"POST {how.path} HTTP/1.1\r\n"
        f"Host: {target.rest}\r\n"
        f"Content-Type: {how.content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: keep-alive\r\n\r\n"
    )
    return head.encode("ascii") + body


def grpc_method(target: Target) -> str:
    """The full name of the target's unary prediction call."""
    return call(target, "grpc").path


def rest_path(target: Target) -> str:
    """The path of the target's prediction URL."""
    return call(target, "rest").path


def decode(target: Target, protocol: str, body: bytes) -> np.ndarray:
    """Decode an answer (gRPC: the serialized message; REST: the body) to float32 probabilities [N, classes].

    Raises ValueError when the body is not an answer, for example an error message.
    """
    return call(target, protocol).decode(body)
