"""Proxies of the environment lead to the internet, not to servers of our own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from loadtest.experiment.runtimes.agent_client import AgentClient
from monitoring.prometheus_api import PrometheusApi
from serving.client import Client
from serving.engines.torchserve import server as torchserve
from serving.runtimes.kubernetes.cluster_prometheus import ClusterPrometheus
from tests.loadtest.generator.small_servers import request, small_server

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def proxied(monkeypatch) -> None:
    """As behind a company's proxy, which knows nothing of this machine; tests' own exception is left out."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, NOWHERE)
        monkeypatch.setenv(name.upper(), NOWHERE)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def pages(body: bytes) -> Iterator[str]:
    """A server that answers every GET with ``body``; its host:port."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_prometheus_here_and_behind_a_port_forward_is_asked_directly():
    with pages(b'{"data": {"version": "3.5.0", "result": []}}') as where:
        assert PrometheusApi(f"http://{where}").ready()
        assert ClusterPrometheus(f"http://{where}").version == "3.5.0"


def test_torchserve_s_management_and_the_cluster_s_generator_are_asked_directly(tmp_path):
    with pages(b'[{"workers": [{"status": "READY"}]}]') as where:
        assert torchserve._ready(f"http://{where}/models/convnet")
    with pages(b'{"run.a": "ended"}') as where:
        assert AgentClient(where, Path("run"), patience_s=0).jobs() == {"run.a": "ended"}


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_predictions_are_asked_for_directly(protocol):
    with small_server(protocol, "ok") as (target, _), Client(target, timeout_s=10) as client:
        assert client.send(protocol, request(target, protocol))
