"""TLS between the generator's own bytes and the socket's, in memory: nothing in it waits."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from serving import tls
from serving.target import Target

NewSession = Callable[[], "Session"]
"""Makes the session of one connection more."""


def sessions(target: Target, protocol: str) -> NewSession | None:
    """For connections to ``target`` over ``protocol``; None: they are not encrypted. Raises `Problem`."""
    context = tls.context(target, protocol, http2=target.http2)
    if context is None:
        return None
    name, asked = tls.server_name(target, protocol), "h2" if protocol == "grpc" or target.http2 else ""
    return lambda: Session(context, name, asked)


class BrokenSession(Exception):
    """TLS failed, for a reason in a few words; `alert`: bytes for the peer that tell it so."""

    def __init__(self, reason: str, alert: bytes = b"") -> None:
        super().__init__(reason)
        self.alert = alert


class Session:
    """One connection's TLS. `established`: the handshake is over; `closed`: the peer says that nothing more comes."""

    def __init__(self, context: ssl.SSLContext, server_name: str, protocol: str = "") -> None:
        """`protocol`: the ALPN name that the peer must choose; empty: any."""
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_hostname=server_name)
        self._protocol = protocol
        self._early = bytearray()  # what was to be sent before the handshake's end
        self.established = self.closed = False

    def begin(self) -> bytes:
        """The first bytes to send."""
        self._shake_hands()
        return self._out.read()

    def encrypted(self, data: bytes) -> bytes:
        """The bytes to send for these; none before the handshake's end, which sends them. Raises `BrokenSession`."""
        if not self.established:
            self._early += data
            return b""
        try:
            self._tls.write(data)
        except ssl.SSLError as error:
            raise BrokenSession(tls.reason(error)) from None
        return self._out.read()

    def decrypted(self, data: bytes) -> tuple[bytes, bytes]:
        """(What the peer said, bytes to send at once) after these have come. Raises `BrokenSession`."""
        self._in.write(data)
        try:
            if not self.established:
                self._shake_hands()
                if not self.established:
                    return b"", self._out.read()
            return self._read(), self._out.read()
        except (ssl.SSLError, ValueError) as error:
            raise BrokenSession(tls.reason(error), self._out.read()) from None

    def _read(self) -> bytes:
        pieces = []
        try:
            while piece := self._tls.read(65_536):
                pieces.append(piece)
            self.closed = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.closed = True
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            return
        chosen = self._tls.selected_alpn_protocol()
        if self._protocol and chosen != self._protocol:
            raise BrokenSession(f"the server does not speak {self._protocol} over TLS (it chose {chosen or 'nothing'})")
        self.established = True
        if self._early:
            self._tls.write(self._early)
            self._early.clear()
