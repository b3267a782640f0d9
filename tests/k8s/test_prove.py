"""The proof after a deployment, and the port-forward that it goes through, with real servers behind."""

from __future__ import annotations

import time

import numpy as np
import pytest

from models.problem import Problem
from serving.client import Client, RequestFailed
from serving.runtimes.kubernetes import deploy, endpoints
from serving.runtimes.kubernetes.kubectl import Cluster
from serving.runtimes.kubernetes.port_forward import PortForward

pytestmark = [pytest.mark.slow, pytest.mark.beside]


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
    target = endpoints.inside(cluster, settings, "tensorflow", settings.servers["tensorflow"])
    assert target.grpc == "tensorflow-serving.tandem.svc:8500"
    with endpoints.forwarded(cluster, target) as (local, forward), Client(local, timeout_s=5) as client:
        assert client.predict("grpc", image).shape == (1, bundle.classes)
        before = local.grpc
        (tmp_path / "deployment-tensorflow-serving.cut").touch()
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
