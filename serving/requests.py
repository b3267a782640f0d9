"""Requests encoded as bytes before the clock starts, and answers decoded, for whichever engine serves the target.

Imports neither torch nor tensorflow, so that the load generator may use it.
"""

from __future__ import annotations

import numpy as np

from serving import proxies
from serving.credentials import headers_of
from serving.engines import interface, registry
from serving.engines.engine import Body, Call
from serving.target import Target


def call(target: Target, protocol: str) -> Call:
    """How ``target`` is called over ``protocol``. Raises ValueError for a protocol that its engine does not speak, and
    `Problem` for an engine that is not known."""
    engine = registry.engine(target.engine)
    if protocol not in engine.protocols:
        raise ValueError(f"protocol {protocol!r}: use one of {', '.join(engine.protocols)}")
    return engine.call(target, protocol)


def encode(target: Target, protocol: str, samples: np.ndarray) -> bytes:
    """Encode ``samples`` [N, …] of the type and shape that the target's model takes (images: uint8 [N, H, W, C]) as one
    request.

    gRPC: the serialized request message, without gRPC's 5-byte prefix. REST: a complete HTTP/1.1 request with
    keep-alive. Raises ValueError for an unknown protocol or samples that the model does not take.
    """
    how = call(target, protocol)
    return _request(target, protocol, how, how.encode(interface.of_input(target, samples)))


def encode_body(target: Target, protocol: str, body: bytes) -> bytes:
    """``body`` (gRPC: a serialized message) as it is, as one request; else like `encode`."""
    how = call(target, protocol)
    return _request(target, protocol, how, how.given(body))


def _request(target: Target, protocol: str, how: Call, body: bytes | Body) -> bytes:
    content = body.content if isinstance(body, Body) else body
    if protocol == "grpc":
        return content
    place, to_proxy = addressed(target, f"{target.base_path}{how.path}")
    own = {"Host": target.rest, **({"Content-Type": how.content_type} if how.content_type else {})}
    given = (*target.headers, *headers_of(target))
    theirs = {name.lower() for name, _ in given}
    fields = [
        *((name, value) for name, value in own.items() if name.lower() not in theirs),
        *given,
        *to_proxy,
        *(body.headers.items() if isinstance(body, Body) else ()),
        *([("Content-Length", str(len(content)))] if content or how.method != "GET" else []),
        ("Connection", "keep-alive"),
    ]
    head = f"{how.method} {place} HTTP/1.1\r\n" + "".join(f"{n}: {v}\r\n" for n, v in fields)
    return head.encode("latin-1") + b"\r\n" + content


def addressed(target: Target, path: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    """What the first line of an HTTP/1.1 request names, and the headers for a proxy that reads it: the path alone, or
    the whole URL where requests go through a proxy without a tunnel. Raises `Problem`."""
    way = proxies.way(target, "rest")
    if way is None or way.connect:
        return path, ()
    return f"http://{target.rest}{path}", way.fields


def grpc_method(target: Target) -> str:
    """The full name of the target's unary prediction call."""
    return call(target, "grpc").path


def rest_path(target: Target) -> str:
    """The path of the target's prediction URL."""
    return target.base_path + call(target, "rest").path


def decode(target: Target, protocol: str, body: bytes) -> np.ndarray:
    """Decode an answer (gRPC: the serialized message; REST: the body) to [N, values], float32 where they are numbers
    (probabilities: [N, classes]).

    Raises ValueError when the body is not an answer, for example an error message.
    """
    return call(target, protocol).decode(body)
