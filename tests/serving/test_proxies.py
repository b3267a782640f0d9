"""A proxy that the environment names: passed by, and said where a server is not reached without it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.problem import Problem
from serving import description, ports, proxies
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
    with pytest.raises(Problem, match=r"is the server up\?; http_proxy names a proxy, which Tandem does not use"):
        description.reach(elsewhere, "rest")
    with pytest.raises(Problem, match=r"is the server up\?$"):
        description.reach(here, "rest")
