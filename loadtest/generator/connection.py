"""A non-blocking TCP connection in gevent's event loop, without a greenlet: bytes in by callback, bytes out at once, as
they are or through TLS."""

from __future__ import annotations

import contextlib
import errno
import socket as sockets
from collections.abc import Callable
from typing import Any

import gevent.socket
from gevent import get_hub, monkey

from loadtest.experiment import own_errors
from loadtest.generator.tls_session import BrokenSession, Session
from models.problem import Problem

READ, WRITE = 1, 2
_LONGEST_ANSWER = 65_536  # of a proxy, to the question for a tunnel
# The interpreter's own socket: gevent's would switch greenlets, which a loop callback must not.
_Socket: Any = monkey.get_original("socket", "socket")


CONNECT_S = 5.0
# Why a connection does not stand, where nothing says; by whether it was to be encrypted.
NO_ANSWER = ("is the server running?", "no TLS handshake: is the server running, and does it speak TLS?")


def cannot_open(address: str, error: OSError) -> Problem:
    """What to say where this machine lets no connection be opened before the clock."""
    return Problem(
        f"cannot open connections to {address}: {error.strerror}: this user may open too few files; raise the hard "
        "limit (ulimit -Hn)"
    )


class Places:
    """The addresses behind "host:port", which connections take in turn, resolved once, before the clock.

    Raises `Problem` where the name cannot be resolved.
    """

    def __init__(self, address: str) -> None:
        host, separator, port = address.rpartition(":")
        if not separator or not port.isdigit():
            raise Problem(f"target address {address!r}: use host:port")
        try:
            found = gevent.socket.getaddrinfo(host.strip("[]"), int(port), 0, sockets.SOCK_STREAM)
        except OSError as error:
            raise Problem(f"target address {address!r}: cannot resolve the host: {error}") from error
        self._known = list(dict.fromkeys((family, where) for family, _, _, _, where in found))
        self._turn = 0

    def __len__(self) -> int:
        return len(self._known)

    def next(self) -> tuple[int, Any]:
        """(Address family, socket address) whose turn it is."""
        self._turn = (self._turn + 1) % len(self._known)
        return self._known[self._turn - 1]

    def keep_reachable(self) -> None:
        """Leave out the addresses that nothing listens at, unless that is all of them: a name such as localhost may
        have one of IPv6 beside the one that the server uses."""
        if len(self._known) > 1:
            tried = [gevent.spawn(_reached, *place) for place in self._known]
            gevent.joinall(tried)
            kept = [place for place, one in zip(self._known, tried, strict=True) if one.value]
            self._known = kept or self._known


def _reached(family: int, where: Any) -> bool:
    with contextlib.closing(gevent.socket.socket(family, sockets.SOCK_STREAM)) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(where)
        except OSError:
            return False
        return True


class Tunnel:
    """What one connection says to a proxy, and hears from it, before it is one to the server. `refusal`: why it stays
    none; empty: nothing is wrong."""

    def __init__(self, request: bytes, named: str, refused: Callable[[bytes], str]) -> None:
        """`request`: asks for the tunnel; `named`: what names the proxy; `refused`: what an answer says against it."""
        self.request, self.named = request, named
        self.refusal = ""
        self._refused = refused
        self._answer = b""

    def answered(self, data: bytes) -> bytes | None:
        """What the server says already behind the proxy's whole answer; None: there is no tunnel, or not yet."""
        self._answer += data
        head, end, rest = self._answer.partition(b"\r\n\r\n")
        if not end:
            if len(self._answer) > _LONGEST_ANSWER:
                self.refusal = self._refused(b"")
            return None
        self.refusal = self._refused(head + end)
        return None if self.refusal else rest


NewTunnel = Callable[[], Tunnel]
"""Makes that of one connection more."""


class Connection:
    """One TCP connection. A subclass implements `received` and `ended`.

    `ended` is called exactly once: when the peer closes, the network fails, or the connect is refused. `failure` then
    says why, in a few words, where a proxy or TLS failed, and `lost_kind` which kind of error its requests then are.
    """

    def __init__(
        self, place: tuple[int, Any], read_size: int, session: Session | None = None, tunnel: Tunnel | None = None
    ) -> None:
        """`session`: of TLS, where the connection is to be encrypted; `tunnel`: through the proxy at `place`."""
        family, where = place
        self._loop = get_hub().loop
        self._read_size = read_size
        self._session = session
        self._tunnel = tunnel
        self._early = bytearray()  # what is to be sent once the tunnel stands
        self._out = bytearray()
        self.failure = ""
        self.open = True
        self._socket = _Socket(family, sockets.SOCK_STREAM)
        self._socket.setblocking(False)
        self._socket.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NODELAY, 1)
        self._reader = self._loop.io(self._socket.fileno(), READ)
        self._writer = self._loop.io(self._socket.fileno(), WRITE)
        number = self._socket.connect_ex(where)
        self.refused = number not in (0, errno.EINPROGRESS)
        self.lost_kind = own_errors.kind_of(number) if self.refused else "connection"
        self._reader.start(self._readable)
        if self.refused:
            return  # whoever made it looks
        if tunnel is not None:
            self.write(tunnel.request, as_is=True)
        elif session is not None:
            self.write(session.begin(), as_is=True)

    def received(self, data: bytes) -> None:
        """Bytes have come."""

    def ended(self) -> None:
        """The connection is gone."""

    def write(self, data: bytes, *, as_is: bool = False) -> None:
        """Hand bytes to the kernel, and keep for later what it does not take now. `as_is`: they are TLS' or a proxy's
        own."""
        if not self.open:
            return
        if self._tunnel is not None and not as_is:
            self._early += data
            return
        if self._session is not None and not as_is:
            try:
                data = self._session.encrypted(data)
            except BrokenSession as broken:
                self.failure = str(broken)
                self.lose()
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
        return self._tunnel is None and (self._session is None or self._session.established)

    def _readable(self) -> None:
        try:
            data = self._socket.recv(self._read_size)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            if self._tunnel is not None:
                self.failure = f"{self._tunnel.named}: the proxy closed the connection"
            elif self._session is not None and not self._session.established:
                self.failure = "it ended the connection in the TLS handshake"
            self.lose()
        elif self._tunnel is not None:
            self._open_tunnel(self._tunnel, data)
        elif self._session is None:
            self.received(data)
        else:
            self._decrypt(self._session, data)

    def _open_tunnel(self, tunnel: Tunnel, data: bytes) -> None:
        rest = tunnel.answered(data)
        if rest is None:
            if tunnel.refusal:
                self.failure = tunnel.refusal
                self.lose()
            return
        self._tunnel = None
        if self._session is not None:
            self.write(self._session.begin(), as_is=True)
        if self._early:
            early, self._early = bytes(self._early), bytearray()
            self.write(early)
        if rest and self.open:
            if self._session is None:
                self.received(rest)
            else:
                self._decrypt(self._session, rest)

    def _decrypt(self, session: Session, data: bytes) -> None:
        try:
            plain, answer = session.decrypted(data)
        except BrokenSession as broken:
            self.failure = str(broken)
            self.write(broken.alert, as_is=True)  # so that the peer's log can say why
            self.lose()
            return
        if answer:
            self.write(answer, as_is=True)
        if plain and self.open:
            self.received(plain)
        if session.closed:
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
