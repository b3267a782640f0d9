"""Load over TLS through a real nginx: both protocols, tokens, client certificates, and what is said of trouble."""

from __future__ import annotations

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hpack import Decoder

from loadtest.generator.connection import Places
from loadtest.generator.http1 import HttpClient
from loadtest.generator.http2 import GrpcClient
from loadtest.generator.loader import Loader
from loadtest.generator.tls_session import BrokenSession, Session, sessions
from models.problem import Problem
from serving import description, requests, tls
from serving.client import Client, RequestFailed
from serving.ports import free
from serving.requests import grpc_method
from serving.target import SecretHeader, Target, Tls
from serving.wire.http2_frames import rest_request
from tests.loadtest.generator.small_servers import Load, small_server, target
from tests.nginx import TOKEN, Authority, authority, front

pytestmark = pytest.mark.alone

VARIABLE = "TANDEM_TEST_TOKEN"
BEARER = SecretHeader("Authorization", env=VARIABLE, prefix="Bearer ")


@dataclass(frozen=True)
class Servers:
    """Small servers behind nginx. `plain`: without TLS, by protocol."""

    encrypted: Target
    plain: dict[str, Target]
    own: Authority
    log: Path


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[Servers]:
    """Behind TLS for localhost and a token, with answers of the right kind."""
    folder = tmp_path_factory.mktemp("nginx")
    own = authority(folder / "authority")
    with ExitStack() as stack:
        rest, grpc = (stack.enter_context(small_server(protocol, "ok"))[0] for protocol in ("rest", "grpc"))
        where = stack.enter_context(
            front(folder, own.certificate("localhost", "localhost"), rest=rest.rest, grpc=grpc.grpc, token=TOKEN)
        )
        asked = Tls(ca=str(own.file))
        encrypted = replace(
            target("x:1"),
            rest=f"localhost:{where.rest}",
            grpc=f"localhost:{where.grpc}",
            rest_tls=asked,
            grpc_tls=asked,
            secret_headers=(BEARER,),
        )
        yield Servers(encrypted, {"rest": rest, "grpc": grpc}, own, where.log)


@pytest.fixture(autouse=True)
def _token(monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, TOKEN)


def constant(count: int, rate: float) -> np.ndarray:
    return np.arange(count) / rate


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_every_request_is_answered_over_tls_with_a_token(servers, protocol):
    load = Load(servers.encrypted, protocol, constant(200, 400.0), keep=True)
    assert load.kinds() == {"ok": 200}
    assert all(load.recording.bodies.values())


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_answers_and_requests_larger_than_a_record_come_whole(servers, protocol):
    """TLS cuts what it carries into pieces of 16 KB, and sockets take less at once than that."""
    body = b"x" * 3_000_000
    if protocol == "grpc":
        from serving.wire.http2_frames import grpc_message

        payload = grpc_message(body)
    else:
        head = f"POST / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
        payload = head.encode() + body
    load = Load(servers.encrypted, protocol, constant(5, 50.0), payload=payload)
    assert load.kinds() == {"ok": 5}


def test_rest_goes_over_http2_where_that_is_asked_for(servers, monkeypatch):
    where = replace(servers.encrypted, http2=True)
    load = Load(where, "rest", constant(200, 400.0), keep=True)
    assert load.kinds() == {"ok": 200}
    np.testing.assert_allclose(requests.decode(where, "rest", load.recording.bodies[7]), np.full((1, 10), 0.1))
    body = b"x" * 3_000_000
    head = f"POST / HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}\r\n\r\n"
    assert Load(where, "rest", constant(5, 50.0), payload=head.encode() + body).kinds() == {"ok": 5}
    monkeypatch.setenv(VARIABLE, "another")
    assert Load(where, "rest", constant(5, 100.0)).kinds() == {"http_401": 5}


def test_a_request_of_http1_is_the_same_over_http2():
    request = requests.encode_body(replace(target("h:1"), headers=(("X-Team", "vision"),)), "rest", b'{"a": 1}')
    block, body = rest_request(request, encrypted=True)
    fields: dict[Any, Any] = dict(Decoder().decode(block))
    assert body == b'{"a": 1}'
    assert (fields[":method"], fields[":path"]) == ("POST", "/predictions/digits")
    assert (fields[":scheme"], fields[":authority"], fields["x-team"]) == ("https", "h:1", "vision")
    assert (fields["content-length"], fields["content-type"]) == ("8", "application/json")
    assert not {"host", "connection"} & set(fields)


def test_questions_go_over_http2_where_the_load_does(servers, tmp_path):
    """To nginx over TLS, and to one without that speaks nothing else; also bodies beyond every window."""
    (port,) = free(1)
    inside = servers.plain["rest"]
    alone = f"server {{ listen 127.0.0.1:{port} http2; location / {{ proxy_pass http://{inside.rest}; }} }}"
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with front(tmp_path / "nginx", servers.own.certificate("h2", "localhost"), above=alone):
        only = replace(inside, rest=f"127.0.0.1:{port}", http2=True)
        for where in (replace(servers.encrypted, http2=True), only):
            description.reach(where, "rest")
            with Client(where, timeout_s=10) as client:
                for _ in range(3):
                    np.testing.assert_allclose(client.predict("rest", images), np.full((1, 10), 0.1), rtol=1e-5)
                body = requests.encode_body(where, "rest", b"x" * 3_000_000)
                assert client.send("rest", body)
        with Client(replace(only, http2=False), timeout_s=10) as client, pytest.raises(RequestFailed):
            client.predict("rest", images)
    with Client(replace(inside, http2=True), timeout_s=10) as client, pytest.raises(RequestFailed):
        client.predict("rest", images)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_the_synchronous_client_and_the_first_connection(servers, protocol):
    description.reach(servers.encrypted, protocol)
    images = np.zeros((1, 32, 32, 3), np.uint8)
    with Client(servers.encrypted) as client:
        np.testing.assert_allclose(client.predict(protocol, images), np.full((1, 10), 0.1), rtol=1e-5)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_another_token_is_401(servers, protocol, monkeypatch):
    monkeypatch.setenv(VARIABLE, "another")
    load = Load(servers.encrypted, protocol, constant(5, 100.0))
    assert set(load.kinds()) <= {"http_401", "grpc_UNAUTHENTICATED"}
    with Client(servers.encrypted) as client, pytest.raises(RequestFailed, match=r"401|UNAUTHENTICATED"):
        client.predict(protocol, np.zeros((1, 32, 32, 3), np.uint8))


def test_the_token_is_in_no_log(servers):
    assert TOKEN not in servers.log.read_text()


def test_a_variable_that_is_not_set_stops_the_generator_before_it_connects(servers, monkeypatch):
    monkeypatch.delenv(VARIABLE)
    loader = Loader([], 1, lambda protocol, what: lambda piece: None)
    loader = replace(loader, mix=[type("Stream", (), {"target": servers.encrypted})()])
    with pytest.raises(Problem, match=f"environment variable {VARIABLE}, which is not set"):
        with loader._client("grpc", lambda *_: None, lambda: None, 1):
            pass


def client_of(where: Target, protocol: str) -> HttpClient | GrpcClient:
    made = sessions(where, protocol)
    if protocol == "grpc":
        return GrpcClient(where.grpc, grpc_method(where), lambda *_: None, lambda: None, made)
    return HttpClient(where.rest, lambda *_: None, lambda: None, made)


def says(where: Target, protocol: str, timeout_s: float = 10.0) -> tuple[str, str]:
    """What is said of a connection that fails: before a run, and by the generator."""
    with pytest.raises(Problem) as before:
        description.reach(where, protocol, timeout_s)
    client = client_of(where, protocol)
    with pytest.raises(Problem) as later:
        client.open(timeout_s) if isinstance(client, GrpcClient) else client.open(2, timeout_s)
    assert "\n" not in f"{before.value}{later.value}"
    return str(before.value), str(later.value)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
class TestNotTrusted:
    def test_another_authority(self, servers, protocol, tmp_path):
        other = Tls(ca=str(authority(tmp_path).file))
        for text in says(replace(servers.encrypted, rest_tls=other, grpc_tls=other), protocol):
            assert "its certificate is not trusted: " in text
            assert "self-signed certificate in certificate chain" in text or "unable to get local issuer" in text

    def test_the_system_s_authorities(self, servers, protocol):
        for text in says(replace(servers.encrypted, rest_tls=Tls(), grpc_tls=Tls()), protocol):
            assert "its certificate is not trusted: " in text

    def test_another_host_s_name(self, servers, protocol):
        asked = replace(servers.encrypted.rest_tls, server_name="models.example.org")
        for text in says(replace(servers.encrypted, rest_tls=asked, grpc_tls=asked), protocol):
            assert "its certificate is not trusted: Hostname mismatch" in text

    def test_expired(self, servers, protocol, tmp_path):
        certificate = servers.own.certificate("expired", "localhost", expired=True)
        with front(tmp_path, certificate) as where:
            old = replace(servers.encrypted, rest=f"localhost:{where.rest}", grpc=f"localhost:{where.grpc}")
            for text in says(old, protocol):
                assert "its certificate is not trusted: certificate has expired" in text

    def test_no_tls_there(self, servers, protocol):
        plain = servers.plain[protocol]
        asked = servers.encrypted.rest_tls
        # A server of HTTP/1.1 without TLS waits for more of what it takes for a request.
        for text in says(replace(plain, rest_tls=asked, grpc_tls=asked), protocol, timeout_s=1.0):
            assert re.search("wrong version number|record layer|EOF|[Tt]imed out|TLS handshake", text)


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_client_certificates(servers, protocol, tmp_path):
    with front(
        tmp_path,
        servers.own.certificate("localhost", "localhost"),
        rest=servers.plain["rest"].rest,
        grpc=servers.plain["grpc"].grpc,
        clients=servers.own.file,
    ) as where:
        nobody = replace(servers.encrypted, rest=f"localhost:{where.rest}", grpc=f"localhost:{where.grpc}")
        mine = replace(servers.encrypted.rest_tls, certificate=str(servers.own.certificate("me", "me@example.org")))
        known = replace(nobody, rest_tls=mine, grpc_tls=mine)
        assert Load(known, protocol, constant(20, 200.0)).kinds() == {"ok": 20}
        with Client(known) as client:
            client.predict(protocol, np.zeros((1, 32, 32, 3), np.uint8))
        assert "ok" not in Load(nobody, protocol, constant(5, 100.0)).kinds()


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (Tls(ca="none.pem"), "target.pytorch.tls.ca = 'none.pem': No such file"),
        (Tls(ca="empty.pem"), "target.pytorch.tls.ca = 'empty.pem': no certificates in PEM form"),
        (Tls(certificate="none.pem"), "target.pytorch.tls.certificate = 'none.pem': No such file"),
        (
            Tls(certificate="empty.pem"),
            "target.pytorch.tls.certificate = 'empty.pem': no certificate and key of its own",
        ),
    ],
)
def test_files_that_cannot_be_used_are_named(asked, text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty.pem").write_text("nothing")
    with pytest.raises(Problem) as caught:
        tls.context(replace(target("localhost:1"), rest_tls=asked), "rest")
    assert text in str(caught.value)


def test_grpc_needs_http2_over_tls(servers, tmp_path):
    """A server that knows HTTP/1.1 alone, as its ALPN says."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(servers.own.certificate("localhost", "localhost"))
    context.set_alpn_protocols(["http/1.1"])
    with tls_server(context) as port:
        where = replace(servers.encrypted, grpc=f"localhost:{port}")
        before, later = says(where, "grpc")
        assert "speaks no HTTP/2 over TLS" in before or "no application protocol" in before.lower()
        assert "h2" in later or "no application protocol" in later.lower()
    with tls_server(context) as port:
        rest = replace(servers.encrypted, rest=f"localhost:{port}", http2=True)
        with pytest.raises(Problem, match=r"(?i)which http2 = true asks for|no application protocol"):
            description.reach(rest, "rest")


@contextmanager
def tls_server(context: ssl.SSLContext) -> Iterator[int]:
    """Shakes hands and says no more."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(context.wrap_socket(listening.accept()[0], server_side=True))
                except ssl.SSLError:
                    continue
                except OSError:
                    return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in kept:
            one.close()


def test_a_session_buffers_what_comes_before_the_handshake_and_names_what_is_no_tls(servers):
    context = tls.context(servers.encrypted, "rest")
    assert context
    session = Session(context, "localhost")
    assert session.begin().startswith(b"\x16\x03")
    assert session.encrypted(b"early") == b""
    with pytest.raises(BrokenSession, match=r"wrong version number|packet length"):
        session.decrypted(b"HTTP/1.1 400 Bad Request\r\n\r\n")


class TestPlaces:
    def test_addresses_are_taken_in_turn_each_once(self, monkeypatch):
        import gevent.socket

        def answers(host: str, port: int, *_: object) -> list[tuple[object, ...]]:
            found: list[tuple[object, ...]] = [
                (socket.AF_INET, kind, 6, "", (address, port)) for kind in (1, 1) for address in ("a", "b", "c")
            ]
            assert host == "models"
            return found

        monkeypatch.setattr(gevent.socket, "getaddrinfo", answers)
        places = Places("models:80")
        assert len(places) == 3
        assert [places.next()[1][0] for _ in range(5)] == ["a", "b", "c", "a", "b"]

    def test_addresses_where_nothing_listens_are_left_out_before_the_clock(self, servers, monkeypatch):
        import gevent.socket

        port = int(servers.plain["rest"].rest.rpartition(":")[2])

        def answers(*_: object) -> list[tuple[object, ...]]:
            places = [("::1", port, 0, 0), ("127.0.0.1", port)]
            return [(socket.AF_INET6 if len(one) > 2 else socket.AF_INET, 1, 6, "", one) for one in places]

        monkeypatch.setattr(gevent.socket, "getaddrinfo", answers)
        load = Load(servers.plain["rest"], "rest", constant(50, 200.0))
        assert load.kinds() == {"ok": 50}

    def test_a_name_that_is_nobody_s(self):
        with pytest.raises(Problem, match="cannot resolve the host"):
            Places("nobody.invalid:80")
