"""A simple synchronous client of a target, for readiness and wire parity: it sends what `requests.encode` makes."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl

import grpc
import numpy as np

from serving import proxies, requests, tls
from serving.credentials import headers_of
from serving.target import Target
from serving.wire.http2_exchange import Http2Connection
from serving.wire.http2_frames import ProtocolError, kind_of, request_headers, rest_request

GRPC_OPTIONS = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Otherwise a new channel inherits the reconnection pause of an older one to the same address.
    ("grpc.use_local_subchannel_pool", 1),
    # Where the name has several addresses (a headless Service), calls go to all of them in turn.
    ("grpc.lb_policy_name", "round_robin"),
    # Not through the proxy that http_proxy may name, not even to this machine.
    ("grpc.enable_http_proxy", 0),
]


class RequestFailed(Exception):
    """The server refused, or did not answer, or its answer is no prediction."""


class Client:
    """Keeps one connection a protocol. A context manager; not for several threads at once. Its calls raise `Problem`,
    too, where the target is reached through a proxy that cannot be used."""

    def __init__(self, target: Target, timeout_s: float = 30.0) -> None:
        self.target, self.timeout_s = target, timeout_s
        self._channel: grpc.Channel | None = None
        self._metadata: list[tuple[str, str]] = []
        self._socket: socket.socket | None = None
        self._http2: Http2Connection | None = None
        self._tunnel: Http2Connection | None = None  # gRPC's, where it goes through a proxy
        self._good = target.request.good if target.request else (200,)

    def predict(self, protocol: str, images: np.ndarray) -> np.ndarray:
        """Class probabilities, float32 [N, classes], of uint8 images [N, H, W, C]. Raises `RequestFailed`."""
        body = self.send(protocol, requests.encode(self.target, protocol, images))
        try:
            return requests.decode(self.target, protocol, body)
        except ValueError as error:
            raise RequestFailed(str(error)) from None

    def send(self, protocol: str, encoded: bytes) -> bytes:
        """Send an encoded request and return the answer's message or body. Raises `RequestFailed`."""
        return self.call(requests.grpc_method(self.target), encoded) if protocol == "grpc" else self._rest(encoded)

    def call(self, method: str, message: bytes) -> bytes:
        """The answer's message of a unary gRPC method (its full name). Raises `RequestFailed`."""
        if proxies.way(self.target, "grpc"):
            return self._through_proxy(method, message)
        if self._channel is None:
            self._channel = _channel(self.target)
            given = (*self.target.headers, *headers_of(self.target))
            self._metadata = [(name.lower(), value) for name, value in given if name.lower() != "host"]
        call = self._channel.unary_unary(method)
        try:
            answer: bytes = call(message, timeout=self.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise RequestFailed(f"{error.code().name}: {error.details()}") from None
        return answer

    def _through_proxy(self, method: str, message: bytes) -> bytes:
        """The same over a tunnel, as the load has it: gRPC's own library takes a proxy from the environment alone."""
        target = self.target
        given = (*target.headers, *headers_of(target))
        head = request_headers(target.grpc, method, given, encrypted=target.grpc_tls is not None)
        try:
            if self._tunnel is None:
                self._tunnel = Http2Connection(connect(target, "grpc", self.timeout_s))
            answer = self._tunnel.call(head, message)
        except ssl.SSLError as error:
            self._close_tunnel()
            raise RequestFailed(tls.reason(error)) from None
        except (OSError, ProtocolError) as error:
            self._close_tunnel()
            raise RequestFailed(f"{type(error).__name__}: {error}") from None
        if kind := kind_of(answer.status, answer.grpc_status):
            raise RequestFailed(f"{kind.removeprefix('grpc_')}: {answer.said.decode('utf-8', 'replace')}")
        return answer.body

    def get(self, path: str) -> bytes:
        """The body of a page of the HTTP API, below the target's `base_path`. Raises `RequestFailed`."""
        fields = {"Host": self.target.rest, **dict(self.target.headers), **dict(headers_of(self.target))}
        place, own = requests.addressed(self.target, f"{self.target.base_path}{path}")
        head = "".join(f"{name}: {value}\r\n" for name, value in {**fields, **dict(own)}.items())
        return self._rest(f"GET {place} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))

    def _rest(self, encoded: bytes) -> bytes:
        kept = self._socket is not None and self._http2 is None
        try:
            try:
                status, body = self._exchange(encoded)
            except (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError):
                if not kept:
                    raise
                # A kept connection may have been closed meanwhile; tinyproxy does so after each answer, unsaid.
                self._close_socket()
                status, body = self._exchange(encoded)
        except ssl.SSLError as error:
            self._close_socket()
            raise RequestFailed(tls.reason(error)) from None
        except (OSError, http.client.HTTPException, ProtocolError) as error:
            self._close_socket()
            way = proxies.way(self.target, "rest")
            raise RequestFailed(
                f"{type(error).__name__}: {error}{f' (asked through {way.named})' if way else ''}"
            ) from None
        way = proxies.way(self.target, "rest")
        if way and status == 407:
            raise RequestFailed(f"{way.named}: HTTP 407: {proxies.wants_login(self.target)}")
        if status not in self._good:
            raise RequestFailed(f"HTTP {status}: {body[:500].decode('utf-8', 'replace').strip()}")
        return body

    def _exchange(self, encoded: bytes) -> tuple[int, bytes]:
        if self._socket is None:
            self._socket = connect(self.target, "rest", self.timeout_s)
            self._http2 = Http2Connection(self._socket) if self.target.http2 else None
        if self._http2:
            return self._http2.ask(*rest_request(encoded, encrypted=self.target.rest_tls is not None))
        return self._over_http1(self._socket, encoded)

    def _over_http1(self, connected: socket.socket, encoded: bytes) -> tuple[int, bytes]:
        connected.sendall(encoded)
        answer = http.client.HTTPResponse(connected, method="POST")
        answer.begin()
        body = answer.read()
        if answer.will_close:
            self._close_socket()
        return answer.status, body

    def _close_socket(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.close()
            self._socket = self._http2 = None

    def _close_tunnel(self) -> None:
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None

    def close(self) -> None:
        """Close the connections."""
        self._close_socket()
        self._close_tunnel()
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(target: Target, protocol: str, timeout_s: float) -> socket.socket:
    """A connection to ``target`` for ``protocol``, encrypted where its API is. Raises OSError, of which ssl.SSLError is
    one, and `Problem` for files of TLS and for a proxy that cannot be used."""
    host, _, port = target.address(protocol).rpartition(":")
    context = tls.context(target, protocol, http2=target.http2)
    if way := proxies.way(target, protocol):
        plain = proxies.connection(target, protocol, way, timeout_s)
    else:
        plain = socket.create_connection((host.strip("[]"), int(port)), timeout_s)
    if context is None:
        return plain
    try:
        return context.wrap_socket(plain, server_hostname=tls.server_name(target, protocol))
    except BaseException:
        plain.close()
        raise


def _channel(target: Target) -> grpc.Channel:
    asked = target.grpc_tls
    host = [("grpc.default_authority", value) for name, value in target.headers if name.lower() == "host"]
    options = [*GRPC_OPTIONS, *host]
    if asked is None:
        return grpc.insecure_channel(target.grpc, options)
    if asked.server_name:
        options.append(("grpc.ssl_target_name_override", asked.server_name))
    certificate, key = tls.shown(asked) or (None, None)
    credentials = grpc.ssl_channel_credentials(tls.trusted(asked), key, certificate)
    return grpc.secure_channel(target.grpc, credentials, options)
