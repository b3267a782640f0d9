"""A non-blocking TCP connection in gevent's event loop, without a greenlet: bytes in by callback, bytes out at once."""

from __future__ import annotations

import errno
import socket as sockets
from typing import Any

import gevent.socket
from gevent import get_hub, monkey

from models.problem import Problem

READ, WRITE = 1, 2
# The interpreter's own socket: gevent's would switch greenlets, which a loop callback must not.
_Socket: Any = monkey.get_original("socket", "socket")


def resolve(address: str) -> tuple[int, Any]:
    """(address family, socket address) of "host:port". Raises `Problem` where it cannot be resolved."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isdigit():
        raise Problem(f"target address {address!r}: use host:port")
    try:
        family, _, _, _, where = gevent.socket.getaddrinfo(host.strip("[]"), int(port), 0, sockets.SOCK_STREAM)[0]
    except OSError as error:
        raise Problem(f"target address {address!r}: cannot resolve the host: {error}") from error
    return family, where


class Connection:
    """One TCP connection. A subclass implements `received` and `ended`.

    `ended` is called exactly once: when the peer closes, the network fails, or the connect is refused.
    """

    def __init__(self, family: int, where: Any, read_size: int) -> None:
        self._loop = get_hub().loop
        self._read_size = read_size
        self._out = bytearray()
        self.open = True
        self._socket = _Socket(family, sockets.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self._reader = self._loop.io(self._socket.fileno(), READ)
        self._writer = self._loop.io(self._socket.fileno(), WRITE)
        self.refused = self._socket.connect_ex(where) not in (0, errno.EINPROGRESS)
        self._reader.start(self._readable)

    def received(self, data: bytes) -> None:
        """Bytes have come."""

    def ended(self) -> None:
        """The connection is gone."""

    def write(self, data: bytes) -> None:
        """Hand bytes to the kernel, and keep for later what it does not take now."""
        if not self.open:
            return
        if self._out:
            self._out += data
            return
        try:
            taken = self._socket.send(data)
        except (BlockingIOError, InterruptedError):
            taken = 0
        except OSError:
            self.lose()
            return
        if taken < len(data):
            self._out += memoryview(data)[taken:]
            self._writer.start(self._writable)

    def close(self) -> None:
        """Close without telling the subclass."""
        if self.open:
            self.open = False
            self._reader.stop()
            self._reader.close()
            self._writer.stop()
            self._writer.close()
            self._socket.close()

    def lose(self) -> None:
        """Close and tell the subclass."""
        if self.open:
            self.close()
            self.ended()

    def connected(self) -> bool:
        """Whether the connection is established."""
        if not self.open:
            return False
        try:
            self._socket.getpeername()
        except OSError:
            return False
        return True

    def _readable(self) -> None:
        try:
            data = self._socket.recv(self._read_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self.received(data)
        else:
            self.lose()

    def _writable(self) -> None:
        try:
            taken = self._socket.send(self._out)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.lose()
            return
        del self._out[:taken]
        if not self._out:
            self._writer.stop()
