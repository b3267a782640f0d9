"""HTTP/1.1 for the REST API: one asyncio protocol a connection, parsed by llhttp (httptools)."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from email.utils import formatdate

import httptools

from serving.engines.embedded_tfserving.identity import NAME
from serving.engines.embedded_tfserving.json_document import NOT_UTF8
from serving.engines.embedded_tfserving.status import HTTP_STATUS, ServingError

log = logging.getLogger(NAME)

MAX_BODY = 2**29
MAX_HEADERS = 2**20
MAX_PIPELINED = 64
LINGER_S = 1.0  # what a refused client still sends is read for so long: a reset could take the answer from it
METHODS = ("GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH")  # libevent knows more and takes no other
METHOD = re.compile(rb"[A-Za-z]+ ")
VERSIONS = ("1.0", "1.1")

REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Request Entity Too Large",
    499: "Client Closed Request",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
TIMED_OUT = b'{\n    "error": "Timed out waiting for notification"\n}'


@dataclass
class Request:
    """One request. `headers` have lower-case names."""

    method: str = ""
    path: str = ""
    version: str = "1.1"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    keep_alive: bool = True
    started: float = 0.0


@dataclass
class Response:
    """One answer. `content_type` empty: no such header."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    close: bool = False


def error_page(status: int) -> Response:
    """libevent's own answer, which ends the connection."""
    reason = REASONS[status]
    page = f"<HTML><HEAD>\n<TITLE>{status} {reason}</TITLE>\n</HEAD><BODY>\n<H1>{reason}</H1>\n</BODY></HTML>\n"
    return Response(status, page.encode(), "text/html", close=True)


def refusal(error: ServingError) -> Response:
    """An error as the REST API answers it."""
    text = json.dumps(error.message, ensure_ascii=False)
    body = f'{{\n    "error": {text}\n}}'.encode("utf-8", NOT_UTF8)
    return Response(HTTP_STATUS[error.code], body)


Answer = Callable[[Response], None]
Handle = Callable[[Request, Answer], None]


class RestFrontEnd:
    """Hands each request to `handle`, which answers by calling what it is given, at once or later."""

    def __init__(self, handle: Handle, timeout_ms: int) -> None:
        self.handle = handle
        self.timeout_s = timeout_ms / 1000
        self.connections: set[RestConnection] = set()
        self.draining = False
        self._date = (0, "")

    def protocol(self) -> RestConnection:
        """A new connection, for `loop.create_server`."""
        return RestConnection(self)

    def drain(self) -> None:
        """Close idle connections; the others close after their answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.close_when_idle()

    async def watch(self) -> None:
        """Answer requests that take longer than the time-out; runs for ever."""
        while True:
            await asyncio.sleep(min(0.05, self.timeout_s / 4))
            latest_start = time.perf_counter() - self.timeout_s
            for connection in list(self.connections):
                connection.time_out(latest_start)

    def date(self) -> str:
        """The Date header's value."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]


class RestConnection(asyncio.Protocol):
    """One client's connection; requests are answered in order, one at a time."""

    def __init__(self, front_end: RestFrontEnd) -> None:
        self.front_end = front_end
        self.transport: asyncio.Transport = None  # type: ignore[assignment] # set by connection_made
        self.parser = httptools.HttpRequestParser(self)
        self.request = Request()
        self.header_bytes = 0
        self.parts: list[bytes] = []
        self.body_size = 0
        self.waiting: deque[Request] = deque()
        self.current: Request | None = None  # the request being answered
        self.starting = False  # `_next` is at work further up the stack
        self.refusal = 0  # the status for bytes that make no sense, due after the answers to what came before them
        self.begun = self.completed = 0  # requests

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.front_end.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 - as the protocol has it
        """The client is gone: what is under way has nobody to go to."""
        self.front_end.connections.discard(self)
        self.current = None
        self.waiting.clear()

    def eof_received(self) -> bool:
        """The client sends nothing more: it still gets the answers that are due."""
        last = self.waiting[-1] if self.waiting else self.current
        if last is not None:
            last.keep_alive = False
        return last is not None

    def pause_writing(self) -> None:
        """The client does not read its answers: read nothing more from it."""
        self.transport.pause_reading()

    def resume_writing(self) -> None:
        """The client reads again."""
        self._read_on()

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived."""
        if self.refusal:
            return
        rest = memoryview(data)
        fresh = self.completed if self.begun == self.completed else -1
        try:
            while rest:
                try:
                    self.parser.feed_data(rest)
                    break
                except httptools.HttpParserUpgrade as upgrade:
                    rest = rest[upgrade.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)
                    if self.request.method != "CONNECT":  # which has been refused
                        self.parser.feed_data(_head_without_upgrade(self.request))
        except httptools.HttpParserInvalidMethodError:
            self._refuse(501 if fresh == self.completed and METHOD.match(data) else 400)
        except httptools.HttpParserError as error:
            log.debug("HTTP connection ended: %s", error)
            self._refuse(413 if self.body_size > MAX_BODY else 400)

    # httptools callbacks

    def on_message_begin(self) -> None:
        """A request begins."""
        self.begun += 1
        self.request = Request()
        self.parts.clear()
        self.header_bytes = self.body_size = 0

    def on_url(self, url: bytes) -> None:
        """The request's target, perhaps in parts."""
        self.request.path += url.decode("latin-1")
        self._count_headers(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self.request.headers[name.decode("latin-1").lower()] = value.decode("latin-1")
        self._count_headers(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """All headers are there."""
        if self.request.headers.get("expect", "").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """A part of the body."""
        self.body_size += len(body)
        if self.body_size > MAX_BODY:
            raise ValueError("body too large")
        self.parts.append(body)

    def on_message_complete(self) -> None:
        """The request is whole."""
        self.completed += 1
        request = self.request
        request.method = self.parser.get_method().decode("latin-1")
        request.version = self.parser.get_http_version()
        if request.method != "CONNECT" and self.parser.should_upgrade():
            return  # `data_received` has it parsed once more, with its body
        request.keep_alive = self.parser.should_keep_alive()
        request.body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts.clear()
        self.waiting.append(request)
        if len(self.waiting) > MAX_PIPELINED:
            self.transport.pause_reading()
        self._next()

    # Answering

    def _next(self) -> None:
        """Start the next request if none is being answered; then, or for want of one, refuse what made no sense."""
        if self.starting:  # an answer at once comes back here: many of them must not nest
            return
        self.starting = True
        while self.waiting and self.current is None:
            self._start(self.waiting.popleft())
        self.starting = False
        if self.refusal and self.current is None:
            self._send_last(error_page(self.refusal))

    def _start(self, request: Request) -> None:
        self.current = request
        request.started = time.perf_counter()
        self._read_on()
        if self.front_end.draining:
            request.keep_alive = False

        def answer(response: Response) -> None:
            if self.current is request:
                self._send(request, response)
                self._next()

        try:
            if request.version not in VERSIONS:
                request.version = "1.1"
                answer(error_page(400))
            elif request.method not in METHODS:
                answer(error_page(501))
            else:
                self.front_end.handle(request, answer)
        except Exception:  # a fault of ours must not take the connection down
            log.exception("a request failed")
            answer(Response(500))

    def _send_last(self, response: Response) -> None:
        """Answer what made no sense; nothing more is taken."""
        if not self.transport.is_closing():
            self.transport.write(self._head(Request(keep_alive=False), response) + response.body)
            self.transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_S, self.transport.close)

    def _send(self, request: Request, response: Response) -> None:
        self.current = None
        if not self.transport.is_closing():
            head = self._head(request, response)
            self.transport.write(head if request.method == "HEAD" else head + response.body)
            if response.close or not request.keep_alive:
                self.transport.close()

    def _head(self, request: Request, response: Response) -> bytes:
        """The answer's first lines, in the request's version of HTTP."""
        lines = [f"HTTP/{request.version} {response.status} {REASONS.get(response.status, 'Unknown')}"]
        if response.content_type:
            lines.append(f"Content-Type: {response.content_type}")
        lines += [f"{name}: {value}" for name, value in response.headers]
        lines.append(f"Date: {self.front_end.date()}")
        if request.method != "HEAD":
            lines.append(f"Content-Length: {len(response.body)}")
        if response.close or not request.keep_alive:
            lines.append("Connection: close")
        elif request.version == "1.0":
            lines.append("Connection: keep-alive")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _refuse(self, status: int) -> None:
        """The byte stream makes no sense any more; what came before it is still answered."""
        self.refusal = status
        self._next()

    def _count_headers(self, size: int) -> None:
        self.header_bytes += size
        if self.header_bytes > MAX_HEADERS:
            raise ValueError("headers too large")

    def _read_on(self) -> None:
        if len(self.waiting) <= MAX_PIPELINED and not self.transport.is_closing():
            self.transport.resume_reading()

    def time_out(self, latest_start: float) -> None:
        """Answer 504 if the current request began before `latest_start`; its real answer is dropped."""
        request = self.current
        if request is not None and request.started < latest_start:
            self._send(request, Response(504, TIMED_OUT))
            self._next()

    def close_when_idle(self) -> None:
        """Close now, or after the answers that are due."""
        if self.current is None and not self.waiting:
            self.transport.close()
        elif self.current is not None:
            self.current.keep_alive = bool(self.waiting) and self.current.keep_alive


def _head_without_upgrade(request: Request) -> bytes:
    """The head of a request whose client would rather speak another protocol, which we do not: without saying so."""
    lines = [f"{name}: {value}" for name, value in request.headers.items() if name != "upgrade"]
    return "\r\n".join([f"{request.method} {request.path} HTTP/{request.version}", *lines, "", ""]).encode("latin-1")
