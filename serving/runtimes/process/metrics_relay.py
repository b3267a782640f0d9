"""Prometheus pages of endpoints that want to be shown something, for a Prometheus beside: they are fetched as the load
goes there, with the target's token, headers, certificates and proxy. So no secret is in Prometheus' files, and headers
go with it that its scrape configuration has no key for before 2.55."""

from __future__ import annotations

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import urlsplit

from models.problem import Problem
from serving import ports
from serving.client import Client, RequestFailed
from serving.target import Target

TIMEOUT_S = 5.0


def page(target: Target) -> Target:
    """The target whose `rest` is its Prometheus page's, asked as the page is to be asked: with the target's headers and
    secrets where the page is on the host of its APIs, and no less encrypted than they are."""
    url = urlsplit(target.metrics or "")
    same = url.hostname in [one.rpartition(":")[0].strip("[]") for one in (target.rest, target.grpc) if one]
    shown = same and (url.scheme == "https" or not (target.rest_tls or target.grpc_tls))
    return replace(
        target,
        rest=url.netloc,
        rest_tls=target.metrics_tls,
        base_path="",
        http2=False,
        request=None,
        headers=tuple(one for one in target.headers if one[0].lower() != "host") if shown else (),
        secret_headers=target.secret_headers if shown else (),
    )


def is_needed(target: Target) -> bool:
    """Whether the target's page has to be fetched by its clients' means."""
    asked = page(target)
    return bool(asked.rest_tls or asked.headers or asked.secret_headers or asked.proxy)


def fetch(target: Target, timeout_s: float = TIMEOUT_S) -> bytes:
    """The page, once. Raises `Problem` where it cannot be had."""
    asked = page(target)
    try:
        with Client(asked, timeout_s) as client:
            return client.get(urlsplit(target.metrics or "").path)
    except RequestFailed as error:
        why = " ".join(str(error).split())[:300]
        withheld = target.secret_headers and not asked.secret_headers
        note = "; it is not shown the target's secrets: it is on another host than url and grpc, or not encrypted"
        raise Problem(f"target.{target.name}.metrics = {target.metrics!r}: {why}{note if withheld else ''}") from None


class MetricsRelay:
    """Serves the pages on loopback, at `port`, each at its target's name; a thread of this process."""

    def __init__(self) -> None:
        self._pages: dict[str, tuple[Client, str]] = {}
        self._server = HTTPServer((ports.LOOPBACK, 0), type("Handler", (_Handler,), {"relay": self}))
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def add(self, target: Target) -> str:
        """Have the target's page from now on; returns its path here."""
        path = f"/{target.name}"
        if path not in self._pages:
            self._pages[path] = Client(page(target), TIMEOUT_S), urlsplit(target.metrics or "").path
        return path

    def text(self, path: str) -> bytes | None:
        """The page at this path, as it is now; None where there is none. Raises `RequestFailed` and `Problem`."""
        if path not in self._pages:
            return None
        client, place = self._pages[path]
        return client.get(place)

    def stop(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for client, _ in self._pages.values():
            client.close()


class _Handler(BaseHTTPRequestHandler):
    relay: MetricsRelay

    def log_message(self, *_: object) -> None:
        """Two questions a second: no line for each."""

    def do_GET(self) -> None:
        """The target's page, or 502 and why not."""
        try:
            text = self.relay.text(self.path)
            status, body = (404, b"") if text is None else (200, text)
        except (RequestFailed, Problem) as error:
            status, body = 502, str(error).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
