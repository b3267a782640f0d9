from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from models import bundle as bundles
from models.bundle import Bundle
from serving.profile import ServingProfile
from serving.runtimes.kubernetes import __main__ as command_line
from serving.runtimes.kubernetes import deploy, load_generator, plan, rollout
from serving.runtimes.kubernetes.kubectl import Cluster, program
from serving.runtimes.kubernetes.servers import by_target, deployment_of
from serving.runtimes.kubernetes.settings import Record, Settings, identity
from serving.runtimes.process import launch
from tests.k8s.api_server import ApiServer, serving

KUBECTL = Path(__file__).parent / "kubectl_with_port_forward.py"
Verb = Callable[..., int]


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """A stand-in of a cluster, which kubectl finds by KUBECONFIG."""
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))  # kubectl's cache of what a server can do
    monkeypatch.setattr(rollout, "POLL_S", 0.05)
    monkeypatch.setattr(rollout, "PULL_S", 0.3)
    server = ApiServer()
    with serving(server, tmp_path / "kubeconfig"):
        yield server


@pytest.fixture
def run(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Verb:
    """Runs a verb of the command line in a folder of its own; returns the exit status."""
    artifacts = tmp_path / "artifacts"
    shutil.copytree(bundle.folder.parent, artifacts / bundle.model)
    monkeypatch.setattr(command_line, "RENDERED", tmp_path / "rendered")
    # Nothing forwards ports to a stand-in; test_prove.py and test_rollout_refused.py do that with real servers.
    monkeypatch.setattr(deploy, "prove", lambda *_: None)
    monkeypatch.setattr(load_generator, "jobs", lambda _: {})

    def verb(*arguments: str) -> int:
        options = {"deploy": ["--no-images"], "rollout": ["--no-images"], "plan": []}.get(arguments[0])
        extra = [] if options is None else ["--artifacts", str(artifacts), *options]
        return command_line.main([*arguments, *extra])

    return verb


@pytest.fixture(scope="package")
def running(bundle, tmp_path_factory):
    """Both servers, as they would run in the cluster."""
    folder = tmp_path_factory.mktemp("servers")
    with contextlib.ExitStack() as up:
        yield {
            deployment_of(engine).name: up.enter_context(
                launch.start(name, bundle, ServingProfile(), folder / name, engine=engine)
            ).target
            for name, engine in by_target(embedded=False).items()
        }


@pytest.fixture
def forwarding(running, tmp_path, monkeypatch):
    """kubectl's port-forwards lead to the real servers."""
    mapping = {
        "deployment/torchserve": {"7070": running["torchserve"].grpc, "8080": running["torchserve"].rest},
        "deployment/tensorflow-serving": {
            "8500": running["tensorflow-serving"].grpc,
            "8501": running["tensorflow-serving"].rest,
        },
    }
    (tmp_path / "forward.json").write_text(json.dumps(mapping))
    monkeypatch.setenv("TANDEM_TEST_FORWARD", str(tmp_path / "forward.json"))
    monkeypatch.setenv("TANDEM_TEST_KUBECTL", program())
    monkeypatch.setenv("KUBECTL", str(KUBECTL))


@pytest.fixture
def settings(bundle) -> Settings:
    """A deployment of the bundle, with the embedded server."""
    return Settings(
        overlay="local",
        components=(),
        registry="",
        model=bundle.model,
        version=bundle.version,
        input_shape=bundle.input_shape,
        classes=bundle.classes,
        profile=ServingProfile(),
        embedded=True,
    )


@pytest.fixture
def deployed(api, settings, forwarding, tmp_path):
    """A cluster with both Deployments."""
    cluster = Cluster()
    objects = plan.render(settings, tmp_path / "rendered")
    record = Record(settings, None, tuple(map(identity, objects)))
    cluster.apply([one for one in objects if one["kind"] == "Namespace"])
    cluster.apply([*objects, record.to_object()])
    return cluster, settings


@pytest.fixture
def next_version(bundle, tmp_path, monkeypatch):
    """A second version of the bundle; only its number, and what is given, differs, so its hashes are not looked at."""

    def make(**values: str) -> None:
        folder = tmp_path / "artifacts" / bundle.model
        shutil.copytree(folder / "1", folder / "2")
        manifest = json.loads((folder / "2" / "manifest.json").read_text())
        (folder / "2" / "manifest.json").write_text(json.dumps({**manifest, "version": 2, **values}))
        monkeypatch.setattr(bundles, "load", bundles._read)

    return make
