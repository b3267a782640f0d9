"""REST requests over HTTP/1.1: complete requests in, statuses out, one request at a time on a kept-alive connection."""

from __future__ import annotations

from collections.abc import Callable, Container

import gevent
import httptools

from loadtest.experiment import own_errors
from loadtest.generator.connection import NO_ANSWER, Connection, Places, cannot_open
from loadtest.generator.recording import Finish
from loadtest.generator.timer import clock
from loadtest.generator.tls_session import NewSession
from loadtest.generator.tunnels import Through
from models.problem import Problem


class HttpClient:
    """A pool of connections to one server, as many as there are requests in flight.

    `finish` learns how each request ended: None (a `good` status), "http_503" and the like, "connection" (refused,
    reset or closed before a whole answer), "bad_response" (not HTTP) or one of `own_errors.KINDS`; with the answer of a
    request that failed by its status comes its body. `between` is called after each piece of work, so that the owner
    can send what has become due meanwhile.
    """

    def __init__(
        self,
        address: str,
        finish: Finish,
        between: Callable[[], None],
        new_session: NewSession | None = None,
        good: Container[int] = (200,),
        through: Through | None = None,
    ) -> None:
        """`through`: a proxy, which connections go to instead."""
        self.places = Places(through.proxy if through else address)
        self.new_session = new_session
        self.new_tunnel = through.tunnel if through else None
        self.good = good
        self._address = address
        self._finish = finish
        self.between = between
        self._idle: list[_HttpConnection] = []
        self._all: set[_HttpConnection] = set()

    def open(self, connections: int, timeout_s: float = 5.0) -> None:
        """Connect before the clock starts. Raises `Problem` where the server cannot be reached."""
        self.places.keep_reachable()
        fresh: list[_HttpConnection] = []
        for _ in range(connections - len(self._all)):
            try:
                fresh.append(_HttpConnection(self))
            except OSError as error:
                self.close()
                raise cannot_open(self._address, error) from error
            self._all.add(fresh[-1])
        deadline = clock() + timeout_s
        while not all(connection.connected() for connection in fresh):
            if clock() > deadline or not all(connection.open for connection in fresh):
                why = next((one.failure for one in fresh if one.failure), NO_ANSWER[self.new_session is not None])
                self.close()
                raise Problem(f"cannot connect to the REST API at {self._address}: {why}")
            gevent.sleep(0.001)
        self._idle.extend(fresh)

    def send(self, request: int, payload: bytes, keep: bool) -> None:
        """Send a complete HTTP request; `keep`: hand its answer's body to `finish`."""
        if self._idle:
            connection = self._idle.pop()
        else:
            try:
                connection = _HttpConnection(self)
            except OSError as error:
                self._finish(request, own_errors.kind_of(error.errno), clock(), None)
                return
            self._all.add(connection)
        connection.start(request, payload, keep)

    def abandon(self, requests: Container[int]) -> None:
        """Forget these requests: HTTP/1.1 can only do it by closing their connections."""
        for connection in [connection for connection in self._all if connection.request in requests]:
            connection.close()
            self._all.discard(connection)

    def close(self) -> None:
        """Close all connections; nothing more is reported."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()

    def answered(self, connection: _HttpConnection, kind: str | None, when: float, reuse: bool) -> None:
        """A connection's request has ended (called by the connection)."""
        request, connection.request = connection.request, -1
        if reuse:
            self._idle.append(connection)
        else:
            connection.close()
            self._gone(connection)
        if request >= 0:
            self._finish(request, kind, when, b"".join(connection.body) if connection.keep or kind else None)

    def _gone(self, connection: _HttpConnection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


class _HttpConnection(Connection):
    def __init__(self, client: HttpClient) -> None:
        super().__init__(
            client.places.next(),
            65536,
            client.new_session() if client.new_session else None,
            client.new_tunnel() if client.new_tunnel else None,
        )
        self._client = client
        self._parser = httptools.HttpResponseParser(self)
        self._status = 0
        self._reusable = False
        self.request = -1
        self.keep = False
        self.body: list[bytes] = []

    def start(self, request: int, payload: bytes, keep: bool) -> None:
        self.request = request
        self.keep = keep
        if self.body:
            self.body = []
        if self.refused:
            self.lose()
        else:
            self.write(payload)

    def received(self, data: bytes) -> None:
        when = clock()
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._client.answered(self, "bad_response", when, reuse=False)
            return
        status = self._status
        if status >= 200:
            self._status = 0
            reuse = self._reusable and self.request >= 0
            kind = None if status in self._client.good else f"http_{status}"
            self._client.answered(self, kind, when, reuse)
        self._client.between()

    def ended(self) -> None:
        self._client.answered(self, self.lost_kind, clock(), reuse=False)

    # httptools calls these while it parses.
    def on_body(self, data: bytes) -> None:
        if self.keep or self._parser.get_status_code() not in self._client.good:
            self.body.append(data)

    def on_message_complete(self) -> None:
        # The parser forgets both once it has left this callback.
        self._status = self._parser.get_status_code()
        self._reusable = self._parser.should_keep_alive()
