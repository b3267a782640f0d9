"""Secrets are read where they are used, and their trouble is one line that never repeats them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from models.problem import Problem
from serving import requests
from serving.credentials import headers_of, variables_of
from serving.target import SecretHeader
from tests.serving.targets import target

TOKEN = SecretHeader("Authorization", env="TANDEM_TEST_TOKEN", prefix="Bearer ")


def test_from_the_environment_and_from_a_file(monkeypatch, tmp_path):
    monkeypatch.setenv("TANDEM_TEST_TOKEN", "abc.def\n")
    (tmp_path / "key").write_text("k-1\n")
    found = replace(target("pytorch"), secret_headers=(TOKEN, SecretHeader("X-Key", file=str(tmp_path / "key"))))
    assert headers_of(found) == [("Authorization", "Bearer abc.def"), ("X-Key", "k-1")]
    request = requests.encode_body(found, "rest", b"{}")
    assert b"Authorization: Bearer abc.def\r\n" in request
    assert b"X-Key: k-1\r\n" in request
    assert "abc.def" not in str(found.to_dict())
    assert variables_of(found) == {"TANDEM_TEST_TOKEN": "abc.def\n"}  # what the generator is given of the environment


def test_what_is_missing_or_cannot_be_a_header_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("TANDEM_TEST_TOKEN", raising=False)
    with pytest.raises(Problem, match=r"target.pytorch: .* environment variable TANDEM_TEST_TOKEN, which is not set"):
        headers_of(replace(target("pytorch"), secret_headers=(TOKEN,)))
    monkeypatch.setenv("TANDEM_TEST_TOKEN", "s3cret\r\nEvil: 1")
    with pytest.raises(Problem, match="one line of ASCII") as caught:
        headers_of(replace(target("pytorch"), secret_headers=(TOKEN,)))
    assert "s3cret" not in str(caught.value)
    missing = SecretHeader("X-Key", file=str(tmp_path / "none"))
    with pytest.raises(Problem, match=r"X-Key is to be in the file .*none: No such file"):
        headers_of(replace(target("pytorch"), secret_headers=(missing,)))
    (tmp_path / "none").write_text(" \n")
    with pytest.raises(Problem, match="which is empty"):
        headers_of(replace(target("pytorch"), secret_headers=(missing,)))
