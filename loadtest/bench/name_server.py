"""A headless Service on this machine: a list of addresses, and a DNS server that answers with it, whatever is asked."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Sequence
from types import TracebackType

from serving.ports import LOOPBACK

A_RECORD, INTERNET = 1, 1
ANSWER = 0x8580  # a response, with authority, recursion desired and available
HEADER = struct.Struct(">2sHHHHH")  # id, flags, questions, answers, authorities, additions
NAME_OF_THE_QUESTION = b"\xc0\x0c"


class Endpoints:
    """The IPv4 addresses that a Service has; clients see a change ``lag_s`` seconds later, as in a cluster."""

    def __init__(self, addresses: Sequence[str], lag_s: float) -> None:
        self.lag_s = lag_s
        self._history = [(-float("inf"), tuple(addresses))]

    def replace(self, addresses: Sequence[str]) -> None:
        """From now on it has these."""
        self._history.append((time.monotonic(), tuple(addresses)))

    def seen(self) -> tuple[str, ...]:
        """What a client finds that asks now."""
        then = time.monotonic() - self.lag_s
        return next(addresses for since, addresses in reversed(self._history) if since <= then)


class NameServer:
    """Answers each DNS query for an IPv4 address with what ``endpoints`` shows, until stopped. A context manager."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((LOOPBACK, 0))
        self._socket.settimeout(0.1)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="name server", daemon=True)

    @property
    def address(self) -> str:
        """Its own "host:port"."""
        host, port = self._socket.getsockname()
        return f"{host}:{port}"

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                query, client = self._socket.recvfrom(512)
                if len(query) > HEADER.size:
                    self._socket.sendto(answer(query, self._endpoints.seen()), client)


def answer(query: bytes, addresses: Sequence[str]) -> bytes:
    """The answer (RFC 1035, 4.1) to a query with one question: `addresses`, where it asks for IPv4; valid at once."""
    end = query.index(b"\0", HEADER.size) + 5
    (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
    found = addresses if kind == A_RECORD else ()
    records = b"".join(
        NAME_OF_THE_QUESTION + struct.pack(">HHIH", A_RECORD, INTERNET, 0, 4) + socket.inet_aton(one) for one in found
    )
    return HEADER.pack(query[:2], ANSWER, 1, len(found), 0, 0) + query[HEADER.size : end] + records
