"""A proxy that the environment names: passed by, and said where a server is not reached without it."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.problem import Problem
from serving import description, ports, proxies, requests
from serving.target import Proxy, SecretHeader, Tls
from tests.serving.targets import target

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("variables", "host", "encrypted", "expected"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, "models.example.com", True, "HTTPS_PROXY"),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "models.example.com", False, ""),
        ({"http_proxy": "http://proxy:3128"}, "10.0.0.7", False, "http_proxy"),
        ({"ALL_PROXY": "socks5://proxy:1080"}, "models.example.com", True, "ALL_PROXY"),
        ({"https_proxy": "http://proxy:3128", "no_proxy": ".example.com"}, "models.example.com", True, ""),
        (
            {"https_proxy": "http://proxy:3128", "NO_PROXY": "other.example.com"},
            "models.example.com",
            True,
            "https_proxy",
        ),
        ({"http_proxy": "http://proxy:3128"}, "127.0.0.1", False, ""),
        ({"http_proxy": "http://proxy:3128"}, "localhost", False, ""),
        ({"http_proxy": "http://proxy:3128"}, "::1", False, ""),
        ({}, "models.example.com", True, ""),
    ],
)
def test_the_variable_that_other_programs_would_heed(variables, host, encrypted, expected, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxies.variable(host, encrypted=encrypted) == expected


def test_a_server_that_is_not_reached_without_a_proxy(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    (port,) = ports.free(1)
    here, elsewhere = (replace(target("pytorch"), rest=f"{host}:{port}") for host in ("127.0.0.1", "0.0.0.0"))
    with pytest.raises(
        Problem, match=r"is the server up\?; http_proxy names a proxy, which is not used: .*proxy = 'environment'"
    ):
        description.reach(elsewhere, "rest")
    with pytest.raises(Problem, match=r"is the server up\?$"):
        description.reach(here, "rest")


FAR = replace(
    target("pytorch"), rest="models.example.com:443", grpc="10.0.0.7:8001", rest_tls=Tls(), proxy=Proxy("environment")
)


@pytest.mark.parametrize(
    ("variables", "protocol", "expected"),
    [
        ({"HTTPS_PROXY": "http://proxy:3128"}, "rest", ("proxy:3128", "")),
        ({"HTTPS_PROXY": "proxy:3128"}, "rest", ("proxy:3128", "")),
        ({"https_proxy": "http://me:p%40ss@[::1]:3128/"}, "rest", ("[::1]:3128", "Basic bWU6cEBzcw==")),
        ({"http_proxy": "http://proxy:3128"}, "grpc", ("proxy:3128", "")),
        ({"http_proxy": "http://proxy:3128"}, "rest", None),
        ({"https_proxy": "http://proxy:3128", "no_proxy": ".example.com"}, "rest", None),
        ({}, "grpc", None),
    ],
)
def test_the_environment_s_proxy_is_used_where_a_target_says_so(variables, protocol, expected, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = proxies.way(FAR, protocol)
    assert (found and (found.proxy, dict(found.fields).get("Proxy-Authorization", ""))) == expected
    if found:
        place = FAR.address(protocol).encode()
        assert found.connect.startswith(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n" % (place, place))
        assert found.connect.endswith(b"\r\n\r\n")
    assert proxies.variables_for(FAR) == variables  # what the generator is given of the environment
    assert proxies.variables_for(replace(FAR, proxy=None)) == {}


@pytest.mark.parametrize("value", ["socks5://me:s3cret@proxy:1080", "https://me:s3cret@proxy:3128", "http://[::1"])
def test_an_environment_s_proxy_that_cannot_be_used_is_named_without_its_password(value, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", value)
    with pytest.raises(
        Problem, match=r"target.pytorch.proxy = 'environment': ALL_PROXY names a proxy that is not used: "
    ):
        proxies.way(FAR, "rest")
    with pytest.raises(Problem) as caught:
        proxies.way(FAR, "rest")
    assert "s3cret" not in str(caught.value)


def test_which_requests_name_the_whole_url(monkeypatch, tmp_path):
    (tmp_path / "login").write_text("me:pass\n")
    login = SecretHeader("Proxy-Authorization", file=str(tmp_path / "login"))
    plain = replace(target("pytorch"), proxy=Proxy("http://proxy:3128", login), base_path="/base")
    assert requests.encode_body(plain, "rest", b"{}").startswith(
        b"POST http://127.0.0.1:2/base/predictions/convnet HTTP/1.1\r\nHost: 127.0.0.1:2\r\n"
    )
    assert b"\r\nProxy-Authorization: Basic bWU6cGFzcw==\r\n" in requests.encode_body(plain, "rest", b"{}")
    for tunnelled in (
        replace(plain, rest_tls=Tls()),
        replace(plain, http2=True),
        replace(plain, headers=(("Host", "inner"),)),
    ):
        request = requests.encode_body(tunnelled, "rest", b"{}")
        assert request.startswith(b"POST /base/predictions/convnet HTTP/1.1\r\n")
        assert b"Proxy-Authorization" not in request
    (tmp_path / "login").write_text("just-a-word")
    with pytest.raises(Problem, match=r"target.pytorch.proxy_login: what it names has to hold user:password"):
        proxies.way(plain, "rest")


@given(
    answer=st.one_of(st.binary(max_size=80), st.binary(max_size=40).map(lambda rest: b"HTTP/1.1 " + rest + b"\r\n\r\n"))
)
def test_whatever_a_proxy_answers_is_a_tunnel_or_one_line(answer):
    found = proxies.Way("p:1", "target.a.proxy", (), b"CONNECT")
    said = proxies.refusal(FAR, "rest", found, answer)
    assert "\n" not in said
    assert "\r" not in said
    assert bool(said) == (re.match(rb"HTTP/1\.\d 2\d\d[ \r\n]", answer) is None) or not said.startswith("HTTP")
