"""Stands in front of a real registry and lets happen what it does not do on demand: refusals, redirects, cut lines."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from serving import ports

TOKEN = "a-token-of-this-test"


@dataclass(frozen=True)
class Asked:
    """A request that came."""

    path: str
    headers: Mapping[str, str]


@dataclass
class Rule:
    """What happens to requests whose path matches; ``times``: to so many of them, then no more (None: to all).

    status    answered instead, with ``headers`` and ``body``
    cut       so many bytes of the true body are sent, then the line is cut
    pause_s   before each ``slice`` bytes of the true body
    ranges    whether the registry is told of a Range header
    other     the path that is asked of the registry in its place
    strangers of those without the token alone
    """

    path: str
    times: int | None = None
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    pause_s: float = 0.0
    slice: int = 65_536
    ranges: bool = True
    other: str = ""
    strangers: bool = False


class Front:
    """The proxy: ``rules`` are looked at in turn, and the first that matches counts. ``asked``: every request."""

    def __init__(self, registry: str) -> None:
        self.registry = registry
        self.rules: list[Rule] = []
        self.asked: list[Asked] = []
        self.host = ""
        self._lock = threading.Lock()

    def of(self, path: str) -> list[Asked]:
        """The requests whose path matches."""
        return [one for one in self.asked if re.search(path, one.path)]

    def require_token(self) -> Mapping[str, str]:
        """Let nobody in without the token that this front gives whoever asks for it; returns the challenge's header."""
        bearer = f'Bearer realm="http://{self.host}/token",service="tests",scope="repository:tensorflow/serving:pull"'
        challenge = {"WWW-Authenticate": bearer}
        given = Rule("^/token", status=200, body=json.dumps({"token": TOKEN}).encode())
        self.rules = [given, *self.rules, Rule("^/v2/", status=401, headers=challenge, strangers=True)]
        return challenge

    def rule_for(self, asked: Asked) -> Rule:
        """What happens to this request."""
        known = asked.headers.get("authorization") == f"Bearer {TOKEN}"
        with self._lock:
            self.asked.append(asked)
            for rule in self.rules:
                if not re.search(rule.path, asked.path) or rule.times == 0 or (rule.strangers and known):
                    continue
                if rule.times:
                    rule.times -= 1
                return rule
        return Rule("")


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Nothing: clients that give up, or are killed, are what these tests are about."""


@contextmanager
def front(registry: str) -> Iterator[Front]:
    """A front before the registry at "host:port", on a free loopback port, for the length of a ``with`` block."""
    found = Front(registry)
    server = _Server((ports.LOOPBACK, 0), _handler(found))
    found.host = f"{ports.LOOPBACK}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(found: Front) -> Callable[..., BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = Asked(self.path, {key.lower(): value for key, value in self.headers.items()})
            rule = found.rule_for(asked)
            if rule.status is not None:
                self._answer(rule.status, rule.headers, rule.body)
                return
            self._pass_on(rule)

        def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _pass_on(self, rule: Rule) -> None:
            upstream = http.client.HTTPConnection(found.registry, timeout=30)
            headers = {key: value for key, value in self.headers.items() if key.lower() in ("accept", "range")}
            if not rule.ranges:
                headers.pop("Range", None)
            upstream.request("GET", rule.other or self.path, headers=headers)
            answer = upstream.getresponse()
            promised = int(answer.headers.get("Content-Length") or 0)
            try:
                body = answer.read()
            except http.client.IncompleteRead as broken:
                body = broken.partial
            upstream.close()
            self.send_response(answer.status)
            for key in ("Content-Type", "Content-Range", "Docker-Content-Digest"):
                if value := answer.headers.get(key):
                    self.send_header(key, value)
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            end = len(body) if rule.cut is None else rule.cut
            try:
                for start in range(0, end, rule.slice):
                    time.sleep(rule.pause_s)
                    self.wfile.write(body[start : min(start + rule.slice, end)])
                    self.wfile.flush()
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True  # the client has gone away
            if end < promised:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing: the requests are kept."""

    return Handler
