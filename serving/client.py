"""A simple synchronous client of a target, for readiness and wire parity: it sends what `requests.encode` makes."""

from __future__ import annotations

import contextlib
import http.client
import socket

import grpc
import numpy as np

from serving import requests
from serving.target import Target

GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Otherwise a new channel inherits the reconnection pause of an older one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    # Where the name has several addresses (a headless Service), calls go to all of them in turn.
    ("grpc.lb_policy_name", "round_robin"),
]


class RequestFailed(Exception):
    """The server refused, or did not answer, or its answer is no prediction."""


class Client:
    """Keeps one connection a protocol. A context manager; not for several threads at once."""

    def __init__(self, target: Target, timeout_s: float = 30.0) -> None:
        self.target, self.timeout_s = target, timeout_s
        self._channel: grpc.Channel | None = None
        self._socket: socket.socket | None = None

    def predict(self, protocol: str, images: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 [N, classes], of uint8 images [N, H, W, C]. Raises `RequestFailed`."""
        body = self.send(protocol, requests.encode(self.target, protocol, images))
        try:
            return requests.decode(self.target, protocol, body)
        except ValueError as error:
            raise RequestFailed(str(error)) from None

    def send(self, protocol: str, encoded: bytes) -> bytes:
        """Send an encoded request and return the answer's message or body. Raises `RequestFailed`."""
        return self._grpc(encoded) if protocol == "grpc" else self._rest(encoded)

    def _grpc(self, encoded: bytes) -> bytes:
        if self._channel is None:
            self._channel = grpc.insecure_channel(self.target.grpc, GRPC_OPTIONS)
        call = self._channel.unary_unary(requests.grpc_method(self.target))
        try:
            answer: bytes = call(encoded, timeout=self.timeout_s)
        except grpc.RpcError as error:
            raise RequestFailed(f"{error.code().name}: {error.details()}") from None
        return answer

    def _rest(self, encoded: bytes) -> bytes:
        try:
            if self._socket is None:
                host, port = self.target.rest.rsplit(":", 1)
                self._socket = socket.create_connection((host, int(port)), self.timeout_s)
            self._socket.sendall(encoded)
            answer = http.client.HTTPResponse(self._socket, method="POST")
            answer.begin()
            body = answer.read()
            if answer.will_close:
                self._close_socket()
        except (OSError, http.client.HTTPException) as error:
            self._close_socket()
            raise RequestFailed(f"{type(error).__name__}: {error}") from None
        if answer.status != 200:
            raise RequestFailed(f"HTTP {answer.status}: {body[:500].decode('utf-8', 'replace').strip()}")
        return body

    def _close_socket(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Close the connections."""
        self._close_socket()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
