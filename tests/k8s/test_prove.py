"""The proof after a deployment, and the port-forward that it goes through, with real servers behind."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from models.problem import Problem
from serving import launch
from serving.client import Client, RequestFailed
from serving.kubernetes import deploy, endpoints, plan
from serving.kubernetes.kubectl import Cluster
from serving.kubernetes.port_forward import PortForward
from serving.kubernetes.settings import Settings
from serving.profile import ServingProfile

KUBECTL = Path(__file__).parent / "kubectl_with_port_forward.py"


@pytest.fixture(scope="module")
def running(bundle, tmp_path_factory):
    """Both servers, as they would run in the cluster."""
    folder = tmp_path_factory.mktemp("servers")
    with (
        launch.start("pytorch", bundle, ServingProfile(), folder / "pytorch") as pytorch,
        launch.start("tensorflow", bundle, ServingProfile(), folder / "tensorflow") as tensorflow,
    ):
        yield {"torchserve": pytorch.target, "tensorflow-serving": tensorflow.target}


@pytest.fixture
def deployed(api, bundle, running, tmp_path, monkeypatch):
    """A cluster with both Deployments, whose port-forwards lead to the real servers."""
    settings = Settings(
        overlay="local",
        components=(),
        registry="",
        model=bundle.model,
        version=bundle.version,
        input_shape=bundle.input_shape,
        classes=bundle.classes,
        profile=ServingProfile().to_dict(),
        embedded=True,
    )
    mapping = {
        "deployment/torchserve": {"7070": running["torchserve"].grpc, "8080": running["torchserve"].rest},
        "deployment/tensorflow-serving": {
            "8500": running["tensorflow-serving"].grpc,
            "8501": running["tensorflow-serving"].rest,
        },
    }
    (tmp_path / "forward.json").write_text(json.dumps(mapping))
    monkeypatch.setenv("TANDEM_TEST_FORWARD", str(tmp_path / "forward.json"))
    monkeypatch.setenv("KUBECTL", str(KUBECTL))
    cluster = Cluster()
    cluster.apply(plan.render(settings, tmp_path / "rendered"))
    return cluster, settings


def test_predictions_on_both_protocols_and_wire_parity(deployed, bundle):
    cluster, settings = deployed
    said: list[str] = []
    deploy.prove(cluster, settings, bundle, said.append)
    assert [line.split(":")[0] for line in said] == ["pytorch"] * 3 + ["tensorflow"] * 3
    assert {"grpc", "rest"} <= {line.split()[1] for line in said}
    assert "wire parity over 256 test images, largest difference" in said[2]


def test_another_model_than_the_bundles_is_noticed(deployed, bundle, tmp_path, monkeypatch):
    cluster, settings = deployed
    with np.load(bundle.reference) as saved:
        wrong = {**saved, "probabilities": np.roll(saved["probabilities"], 1, axis=1)}
    np.savez(tmp_path / "reference.npz", **wrong)
    monkeypatch.setattr(type(bundle), "reference", property(lambda _: tmp_path / "reference.npz"))
    with pytest.raises(Problem, match="does not serve this bundle's model"):
        deploy.prove(cluster, settings, bundle, lambda _: None)


def test_the_port_forward_comes_back_on_the_same_port(deployed, bundle, tmp_path):
    cluster, settings = deployed
    image = np.zeros((1, *bundle.input_shape), np.uint8)
    target = endpoints.inside(cluster, settings, "tensorflow")
    assert target.grpc == "tensorflow-serving.tandem.svc:8500"
    with endpoints.forwarded(cluster, target) as (local, forward), Client(local, timeout_s=5) as client:
        assert client.predict("grpc", image).shape == (1, bundle.classes)
        before = local.grpc
        (tmp_path / "forward.cut").touch()
        deadline = time.monotonic() + 60
        while forward.reconnections == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        while time.monotonic() < deadline:
            try:
                assert client.predict("grpc", image).shape == (1, bundle.classes)
                break
            except RequestFailed:
                time.sleep(0.1)
        assert client.predict("rest", image).shape == (1, bundle.classes)
        assert local.grpc == before
        assert forward.reconnections == 1


def test_a_port_forward_that_cannot_start(api):
    with pytest.raises(Problem, match="the port-forward to deployment/gone"):
        with PortForward(Cluster(), "deployment/gone", (80,)):
            pass
