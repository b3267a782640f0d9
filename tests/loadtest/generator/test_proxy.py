"""Load and questions through a real proxy, tinyproxy: tunnels, whole URLs, passwords, and what is said of trouble."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from loadtest.generator.http1 import HttpClient
from loadtest.generator.http2 import GrpcClient
from loadtest.generator.tls_session import sessions
from loadtest.generator.tunnels import through
from models.problem import Problem
from serving import description, requests
from serving.client import Client
from serving.ports import free
from serving.requests import grpc_method
from serving.target import Proxy, SecretHeader, Target, Tls
from tests import proxy
from tests.loadtest.generator.small_servers import Load, small_server
from tests.nginx import authority, forwarding, front
from tests.proxy import LOGIN, tinyproxy

pytestmark = pytest.mark.alone  # as every load, it measures time

VARIABLE = "TANDEM_TEST_LOGIN"
IMAGES = np.zeros((1, 32, 32, 3), np.uint8)
# What connections are: over plain HTTP/1.1, plain gRPC, and the two over TLS.
PROXIES = {"open": "", "closed": LOGIN}
WAYS = ("rest", "grpc", "https", "grpcs", "h2")


@dataclass(frozen=True)
class Site:
    """Small servers, plain and behind TLS for localhost; an open proxy, and one that wants `LOGIN`."""

    targets: dict[str, Target]
    open: proxy.Proxy
    closed: proxy.Proxy
    keeping: str  # nginx, which forwards plain HTTP, and keeps connections as tinyproxy does not

    def through(self, way: str, url: str, login: bool = False) -> tuple[Target, str]:
        """The target of one of `WAYS` behind the proxy at `url`, and its protocol."""
        shown = SecretHeader("Proxy-Authorization", env=VARIABLE) if login else None
        return replace(self.targets[way], proxy=Proxy(url, shown)), "grpc" if way.startswith("grpc") else "rest"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("proxies")
    own = authority(folder / "authority")
    with ExitStack() as stack:
        rest, grpc = (stack.enter_context(small_server(protocol, "ok"))[0] for protocol in ("rest", "grpc"))
        certificate = own.certificate("localhost", "localhost")
        nginx = stack.enter_context(front(folder / "nginx", certificate, rest=rest.rest, grpc=grpc.grpc))
        asked = Tls(ca=str(own.file))
        https = replace(rest, rest=f"localhost:{nginx.rest}", rest_tls=asked)
        grpcs = replace(grpc, grpc=f"localhost:{nginx.grpc}", grpc_tls=asked)
        targets = {"rest": rest, "grpc": grpc, "https": https, "grpcs": grpcs, "h2": replace(https, http2=True)}
        opened, closed = (stack.enter_context(tinyproxy(folder / kind, login=one)) for kind, one in PROXIES.items())
        (port,) = free(1)
        stack.enter_context(front(folder / "forward", certificate, above=forwarding(port)))
        yield Site(targets, opened, closed, f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("way", WAYS)
def test_every_request_and_every_question_goes_through(site, way, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")  # which is about the environment's own proxies
    where, protocol = site.through(way, site.open.url)
    before = len(site.open.asked())
    description.reach(where, protocol)
    with Client(where, timeout_s=10) as client:
        for _ in range(2):
            np.testing.assert_allclose(client.predict(protocol, IMAGES), np.full((1, 10), 0.1), rtol=1e-5)
        body = requests.encode_body(where, protocol, b"x" * 300_000)
        assert client.send(protocol, body)
    if way == "rest":
        where = replace(where, proxy=Proxy(site.keeping))
    load = Load(where, protocol, np.arange(60) / 200.0, keep=True)
    assert load.kinds() == {"ok": 60}
    np.testing.assert_allclose(requests.decode(where, protocol, load.recording.bodies[7]), np.full((1, 10), 0.1))
    said = site.open.asked()[before:]
    place = where.address(protocol)
    assert (f"CONNECT {place} HTTP/1.1" in said) == (way != "rest")
    assert (f"POST http://{place}{requests.rest_path(where)}" in said) == (way == "rest")


@pytest.mark.parametrize("way", ["rest", "grpc", "https"])
def test_a_password_is_shown_to_the_proxy_and_to_nobody_else(site, way, monkeypatch):
    monkeypatch.setenv(VARIABLE, LOGIN)
    where, protocol = site.through(way, site.closed.url, login=True)
    assert LOGIN not in str(where.to_dict())
    if way != "rest":
        assert Load(where, protocol, np.arange(20) / 200.0).kinds() == {"ok": 20}
    with Client(where, timeout_s=10) as client:
        client.predict(protocol, IMAGES)
    if way == "https":
        assert b"Proxy-Authorization" not in requests.encode(where, "rest", IMAGES)


def says(where: Target, protocol: str) -> set[str]:
    """What is said before a run, and by the generator, of a way that is none."""
    with pytest.raises(Problem) as before:
        description.reach(where, protocol)
    found = {str(before.value)}
    made, through_proxy = sessions(where, protocol), through(where, protocol)
    if protocol == "grpc" or where.rest_tls:
        if protocol == "grpc":
            connect = GrpcClient(
                *(where.grpc, grpc_method(where), lambda *_: None, lambda: None, made), through=through_proxy
            ).open
        else:
            of_rest = HttpClient(where.rest, lambda *_: None, lambda: None, made, through=through_proxy)
            connect = partial(of_rest.open, 2)
        with pytest.raises(Problem) as later:
            connect()
        found.add(str(later.value))
    assert all("\n" not in text for text in found)
    return found


@pytest.mark.parametrize("way", WAYS)
def test_a_proxy_that_wants_a_password_and_one_that_knows_another(site, way, monkeypatch):
    where, protocol = site.through(way, site.closed.url)
    for text in says(where, protocol):
        assert f"target.pytorch.proxy = '{site.closed.url}': HTTP 407" in text
        assert 'proxy_login = {env = "NAME"}, which holds user:password' in text
    if way == "rest":  # tinyproxy answers 401, as a server might
        return
    monkeypatch.setenv(VARIABLE, "someone:wr0ng")
    where, protocol = site.through(way, site.closed.url, login=True)
    for text in says(where, protocol):
        assert f"'{site.closed.url}': HTTP 401 Unauthorized: it knows no such user and password" in text
        assert "wr0ng" not in text


@pytest.mark.parametrize("way", ["grpc", "https"])
def test_a_server_that_the_proxy_does_not_connect_to(site, way, tmp_path):
    with tinyproxy(tmp_path, tunnels_to=443) as strict:
        where, protocol = site.through(way, strict.url)
        for text in says(where, protocol):
            assert f"'{strict.url}': it does not connect to {where.address(protocol)} (HTTP 403" in text
            assert "allow it there, or leave proxy out" in text
    nobody, protocol = site.through(way, site.open.url)
    nobody = replace(nobody, rest="nobody.invalid:443", grpc="nobody.invalid:443")
    for text in says(nobody, protocol):
        assert "it does not connect to nobody.invalid:443 (HTTP 5" in text


def test_a_proxy_that_is_not_there_and_one_that_is_none(site):
    (port,) = free(1)
    where, protocol = site.through("https", f"http://127.0.0.1:{port}")
    with pytest.raises(Problem, match=r"the proxy cannot be connected to \(Connection refused\); is it up\?"):
        description.reach(where, protocol)
    where, protocol = site.through("https", "http://nobody.invalid:3128")
    with pytest.raises(Problem, match=r"\.proxy = 'http://nobody.invalid:3128': the proxy's name cannot be resolved"):
        description.reach(where, protocol)
    # A server of HTTP/2 is no proxy.
    where, protocol = site.through("https", f"http://{site.targets['grpc'].grpc}")
    with pytest.raises(Problem, match=r"the proxy does not answer CONNECT|no HTTP proxy answers there"):
        description.reach(where, protocol, timeout_s=2.0)


def test_a_certificate_of_another_name_is_no_proxy_s_fault(site):
    where, protocol = site.through("https", site.open.url)
    where = replace(where, rest_tls=replace(where.rest_tls, server_name="other.example.org"))
    for text in says(where, protocol):
        assert "its certificate is not trusted: Hostname mismatch" in text
