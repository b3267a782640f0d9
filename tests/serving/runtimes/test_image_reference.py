from __future__ import annotations

import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from models.problem import Problem
from serving.runtimes.containers.image_reference import ImageReference

DIGEST = f"sha256:{'0a' * 32}"


@pytest.mark.parametrize(
    ("text", "registry", "repository", "tag", "digest"),
    [
        ("python:3.11", "docker.io", "library/python", "3.11", ""),
        ("tensorflow/serving:2.20.0", "docker.io", "tensorflow/serving", "2.20.0", ""),
        (f"prom/prometheus:v3@{DIGEST}", "docker.io", "prom/prometheus", "v3", DIGEST),
        ("docker.io/prom/prometheus:v3", "docker.io", "prom/prometheus", "v3", ""),
        ("docker.io/python", "docker.io", "library/python", "", ""),
        ("nvcr.io/nvidia/k8s/dcgm-exporter:4.5", "nvcr.io", "nvidia/k8s/dcgm-exporter", "4.5", ""),
        ("localhost/team/image:1", "localhost", "team/image", "1", ""),
        ("127.0.0.1:5000/image", "127.0.0.1:5000", "image", "", ""),
        (f"[::1]:5000/a/b@{DIGEST}", "[::1]:5000", "a/b", "", DIGEST),
    ],
)
def test_names_are_read_as_docker_reads_them(text, registry, repository, tag, digest):
    assert ImageReference.parse(text) == ImageReference(registry, repository, tag, digest)


@pytest.mark.parametrize("text", ["", ":1", "UPPER:1", "a:b:c", "a@sha256:12", "a//b", "../a:1", "a:-tag", "host.com/"])
def test_what_is_no_name_is_a_problem(text):
    with pytest.raises(Problem, match=r"use \[HOST/\]NAME:TAG"):
        ImageReference.parse(text)


@given(st.text(max_size=60))
@example("a/b:c@sha256:")
@example("a.b:80/c\n")
def test_any_text_is_a_name_or_a_problem(text):
    try:
        found = ImageReference.parse(text)
    except Problem:
        return
    allowed = string.ascii_letters + string.digits + "._-/:[]"
    assert set(found.api.removeprefix("https://").removeprefix("http://")) <= set(allowed)
    assert ".." not in found.repository


@pytest.mark.parametrize(
    ("text", "mirror", "api"),
    [
        ("tensorflow/serving:2", "", "https://registry-1.docker.io/v2/tensorflow/serving"),
        ("tensorflow/serving:2", "mirror.example.com", "https://mirror.example.com/v2/tensorflow/serving"),
        ("python:3", "https://mirror.example.com:5000/", "https://mirror.example.com:5000/v2/library/python"),
        ("a/b:1", "http://mirror.example.com/hub", "http://mirror.example.com/v2/hub/a/b"),
        ("a/b:1", "localhost:5000", "http://localhost:5000/v2/a/b"),
        ("a/b:1", "127.0.0.1:5000", "http://127.0.0.1:5000/v2/a/b"),
        ("nvcr.io/a/b:1", "mirror.example.com", "https://nvcr.io/v2/a/b"),
        ("[::1]:5000/a:1", "", "http://[::1]:5000/v2/a"),
    ],
)
def test_a_mirror_is_asked_in_docker_hub_s_place_alone(text, mirror, api, monkeypatch):
    monkeypatch.setenv("REGISTRY_MIRROR", mirror)
    assert ImageReference.parse(text).api == api


@pytest.mark.parametrize("mirror", ["ftp://a.b", "https://", "http://a b", "a.b/Upper", "https://user:secret@a.b"])
def test_a_mirror_that_is_none_is_a_problem(mirror, monkeypatch):
    monkeypatch.setenv("REGISTRY_MIRROR", mirror)
    with pytest.raises(Problem, match="REGISTRY_MIRROR="):
        assert ImageReference.parse("a/b:1").api
