"""A run in the cluster: real servers, the real generator and a real Prometheus, reached as in a cluster."""

from __future__ import annotations

import json
import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.experiment import compare
from loadtest.generator import agent as agents
from loadtest.report import rebuild
from models.problem import Problem
from serving import ports
from serving.runtimes.containers import program_line
from serving.runtimes.kubernetes import endpoints
from serving.runtimes.kubernetes.servers import deployment_of
from serving.runtimes.process.prometheus import Prometheus
from tests.components import require

pytestmark = pytest.mark.slow

FAST = {
    "runtime": "kubernetes",
    "protocols": ["grpc"],
    "ladder.rates": {"grpc": [40.0]},
    "ladder.repetitions": 1,
    "ladder.duration_s": 1.5,
    "warm_up.min_s": 0.5,
    "warm_up.max_s": 1.0,
}


@pytest.fixture
def cluster(api, deployed, running, tmp_path, monkeypatch):
    """The deployed cluster, with an agent as its load generator and a Prometheus that watches both servers."""
    require("prometheus")
    found, _ = deployed
    api.objects.pop(("deployments", "tandem", "locust-worker"))  # the generator is one process, in the agent's pod
    inside = endpoints.inside

    def reachable(cluster, settings, name, engine):
        """Names of the cluster mean nothing here."""
        target = inside(cluster, settings, name, engine)
        real = running[deployment_of(engine).name]
        return replace(target, grpc=real.grpc, rest=real.rest)

    monkeypatch.setattr(endpoints, "inside", reachable)
    agent = agents.Agent(tmp_path / "there", master_port=ports.free(1)[0], exporter_port=ports.free(1)[0])
    service = agents.server(agent, ports.LOOPBACK, 0)
    thread = threading.Thread(target=service.serve_forever, daemon=True)
    thread.start()
    prometheus = Prometheus(tmp_path / "prometheus", shutil.which("prometheus") or "")
    prometheus.watch_servers([(target, None) for target in running.values()])
    mapping = json.loads((tmp_path / "forward.json").read_text())
    mapping["deployment/locust-master"] = {"9647": f"{ports.LOOPBACK}:{service.server_address[1]}"}
    mapping["service/prometheus"] = {"9090": prometheus.url.removeprefix("http://")}
    (tmp_path / "forward.json").write_text(json.dumps(mapping))
    yield found
    prometheus.stop()
    service.shutdown()
    service.server_close()
    agent.close()
    thread.join()


def cut_after_the_first_trial(folder: Path) -> threading.Thread:
    """Take the port-forward to the load generator away once the first trial is home."""

    def wait() -> None:
        deadline = time.monotonic() + 120
        while not list(folder.glob("results/*/trials/*/trial.json")) and time.monotonic() < deadline:
            time.sleep(0.05)
        (folder / "deployment-locust-master.cut").touch()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def test_compare_in_the_cluster(cluster, api, bundle, tmp_path):
    said = program_line.line("2.20.0 (tensorflow 2.20.0)")
    api.logs["tensorflow-serving"] = f"{said}\nembedded-tfserving: oneDNN custom operations are off\n"
    api.logs["torchserve"] = 'MODEL_LOG - tandem switches {"oneDNN": true}\n'
    thread = cut_after_the_first_trial(tmp_path)
    run = compare.compare("smoke", FAST, artifacts=bundle.folder.parents[1], results=tmp_path / "results")
    thread.join()
    rebuild.rebuild(run)
    summary = json.loads((run / "summary.json").read_text())
    assert {target["runtime"] for target in summary["targets"]} == {"kubernetes"}
    assert {(one["target"], one["protocol"]) for one in summary["measurements"]} == {
        ("pytorch", "grpc"),
        ("tensorflow", "grpc"),
    }
    assert all(one["requests"] for one in summary["measurements"])
    switches = {
        target["name"]: {one["name"]: one["value"] for one in target["switches"]} for target in summary["targets"]
    }
    strict = {"NVIDIA_TF32_OVERRIDE": "0"}
    assert switches["pytorch"] == {"oneDNN": True, "OMP_NUM_THREADS": "1", **strict}
    assert switches["tensorflow"] == {"oneDNN": False, "OMP_NUM_THREADS": "1", **strict}
    versions = {target["name"]: target["engine_version"] for target in summary["targets"]}
    assert versions["pytorch"] == "image tandem/torchserve:1"
    assert versions["tensorflow"] == "2.20.0 (tensorflow 2.20.0)"
    assert summary["environment"]["cluster"] == "test"
    assert summary["environment"]["nodes"]["pytorch"]["node"] == "node-1"
    assert not (tmp_path / "deployment-locust-master.cut").exists()  # the connection was lost, and came back
    server = json.loads(next(run.glob("trials/tensorflow-*/server.json")).read_text())
    assert server["source"].startswith("prometheus 2")
    # One at a time while measuring, and both again afterwards.
    replicas = {
        name: api.find("deployments", name)["spec"]["replicas"] for name in ("torchserve", "tensorflow-serving")
    }
    assert replicas == {"torchserve": 1, "tensorflow-serving": 1}
    scaled = [write for write in api.writes if write.startswith("deployments/t")]
    assert len(scaled) >= 6
    assert list((tmp_path / "there" / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"model": "vgg"}, "convnet is deployed, the experiment is of vgg"),
        ({"profile.device": "gpu"}, "profile.device = 'gpu', and overlay local is deployed"),
    ],
)
def test_an_experiment_that_does_not_fit_what_is_deployed(deployed, bundle, tmp_path, overrides, message):
    with pytest.raises(Problem, match=message):
        compare.compare("smoke", {**FAST, **overrides}, artifacts=bundle.folder.parents[1], results=tmp_path / "r")


def test_nothing_is_deployed(api, bundle, tmp_path):
    with pytest.raises(Problem, match="nothing is deployed on test: make deploy COMPONENTS=loadtest first"):
        compare.compare("smoke", FAST, artifacts=bundle.folder.parents[1], results=tmp_path / "r")
