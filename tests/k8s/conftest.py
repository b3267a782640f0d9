from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models.bundle import Bundle
from serving.kubernetes import __main__ as command_line
from serving.kubernetes import rollout
from tests.k8s.api_server import ApiServer, serving

Verb = Callable[..., int]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A stand-in of a cluster, which kubectl finds by KUBECONFIG."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl's cache of what a server can do
    monkeypatch.setattr(rollout, "POLL_S", 0.05)
    server = ApiServer()
    with serving(server, tmp_path / "kubeconfig"):
        yield server


@pytest.fixture
def run(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verb:
    """Runs a verb of the command line in a folder of its own; returns the exit status."""
    artifacts = tmp_path / "artifacts"
    shutil.copytree(bundle.folder.parent, artifacts / bundle.model)
    monkeypatch.setattr(command_line, "RENDERED", tmp_path / "rendered")
    # Nothing forwards ports to a stand-in; tests/k8s/test_prove.py does that with real servers.
    monkeypatch.setattr(command_line.deploy, "prove", lambda *_: None)

    def verb(*arguments: str) -> int:
        options = {"deploy": ["--no-images"], "rollout": ["--no-images"], "plan": []}.get(arguments[0])
        extra = [] if options is None else ["--artifacts", str(artifacts), *options]
        return command_line.main([*arguments, *extra])

    return verb
