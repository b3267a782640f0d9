"""Prometheus pages behind TLS, tokens, certificates and proxies: fetched as the load goes, and shown no secret that is
not for them."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry, Counter, start_http_server

from models.problem import Problem
from serving import ports
from serving.runtimes.process import metrics_relay
from serving.runtimes.process.metrics_relay import MetricsRelay
from serving.target import Proxy, SecretHeader, Target, Tls
from tests.nginx import TOKEN, authority, front
from tests.proxy import tinyproxy
from tests.serving.targets import target

BEARER = SecretHeader("Authorization", env="TANDEM_TEST_TOKEN", prefix="Bearer ")


@pytest.fixture(autouse=True)
def _token(monkeypatch) -> None:
    monkeypatch.setenv("TANDEM_TEST_TOKEN", TOKEN)


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """ "host:port" of a page of one counter."""
    registry = CollectorRegistry()
    Counter("answered", "For the test", registry=registry).inc(7)
    (port,) = ports.free(1)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    yield f"127.0.0.1:{port}"
    server.shutdown()
    thread.join()


def serving(metrics: str, **changes: object) -> Target:
    found = replace(
        target("pytorch"), rest="models:443", grpc="other:9443", headers=(("X-Team", "vision"), ("Host", "h"))
    )
    found = replace(found, secret_headers=(BEARER,), metrics=metrics, metrics_tls=Tls() if "https" in metrics else None)
    return replace(found, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("metrics", "changes", "shown"),
    [
        ("https://models:8443/metrics", {"rest_tls": Tls()}, True),
        ("https://other:1/metrics", {"rest_tls": Tls()}, True),
        ("http://models:8082/metrics", {}, True),
        ("http://models:8082/metrics", {"rest_tls": Tls()}, False),
        ("http://models:8082/metrics", {"grpc_tls": Tls()}, False),
        ("https://elsewhere:8443/metrics", {"rest_tls": Tls()}, False),
    ],
)
def test_secrets_go_to_the_same_host_and_in_no_plainer_form(metrics, changes, shown):
    asked = metrics_relay.page(serving(metrics, **changes))
    assert asked.secret_headers == ((BEARER,) if shown else ())
    assert asked.headers == ((("X-Team", "vision"),) if shown else ())
    assert (asked.rest_tls is not None) == metrics.startswith("https")


def test_a_page_that_wants_nothing_is_prometheus_own_to_fetch():
    plain = serving("http://models:8082/metrics", headers=(), secret_headers=())
    assert not metrics_relay.is_needed(plain)
    assert metrics_relay.is_needed(serving("http://models:8082/metrics"))
    assert metrics_relay.is_needed(replace(plain, proxy=Proxy("http://proxy:3128")))


def test_behind_nginx_with_a_token_a_certificate_and_a_proxy(page, tmp_path):
    own = authority(tmp_path / "authority")
    certificate = own.certificate("localhost", "localhost")
    mine = Tls(ca=str(own.file), certificate=str(own.certificate("me", "me@example.org")))
    with (
        front(tmp_path / "nginx", certificate, rest=page, token=TOKEN, clients=own.file) as nginx,
        tinyproxy(tmp_path / "proxy") as proxy,
        relaying() as relay,
    ):
        where = serving(f"https://localhost:{nginx.rest}/metrics", rest="localhost:1", metrics_tls=mine)
        for asked in (where, replace(where, name="proxied", proxy=Proxy(proxy.url))):
            metrics_relay.fetch(asked)
            url = f"http://127.0.0.1:{relay.port}{relay.add(asked)}"
            for _ in range(2):
                with urllib.request.urlopen(url, timeout=5) as answer:
                    assert b"answered_total 7.0" in answer.read()
                    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert f"CONNECT localhost:{nginx.rest}" in proxy.asked()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{relay.port}/nobody", timeout=5)
        lost = replace(where, name="lost", metrics_tls=Tls(ca=str(own.file)))
        with pytest.raises(urllib.error.HTTPError, match="502"):
            urllib.request.urlopen(f"http://127.0.0.1:{relay.port}{relay.add(lost)}", timeout=5)
        with pytest.raises(Problem, match=r"target.pytorch.metrics = 'https://localhost:\d+/metrics': HTTP 400"):
            metrics_relay.fetch(replace(where, metrics_tls=Tls(ca=str(own.file))))
        with pytest.raises(Problem, match=r"HTTP 401: .*; it is not shown the target's secrets: it is on another host"):
            metrics_relay.fetch(replace(where, rest="elsewhere:1"))


@contextmanager
def relaying() -> Iterator[MetricsRelay]:
    relay = MetricsRelay()
    try:
        yield relay
    finally:
        relay.stop()
