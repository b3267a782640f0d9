"""What pods find at /config, and the probes that use it, against real servers."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from serving import ports
from serving.client import Client
from serving.engines.torchserve import rendering
from serving.profile import ServingProfile
from serving.runtimes.containers import base_images
from serving.runtimes.kubernetes import operator_rules, optional_engines, pinned_images, server_config
from serving.runtimes.kubernetes.servers import by_target, deployment_of, optional
from serving.runtimes.process import launch
from serving.runtimes.process.server_process import ServerProcess
from tests.components import require, require_program
from tests.k8s.rendered import K8S, ROOT, Combination, everything, pod_specs, the, with_triton

pytestmark = pytest.mark.slow

SERVERS = {**by_target(embedded=False), **{one.default_target: one for one in optional()}}
DEFAULT = ServingProfile()
BASE_IMAGES = ROOT / "docker" / "base-images.env"
CPU = Combination("cpu", ())
PROBE = K8S / "base" / "probe.sh"


def write(folder: Path, profile: ServingProfile = DEFAULT, **changes) -> None:
    arguments = {"model": "convnet", "version": 1, "input_shape": (32, 32, 3), "classes": 10, "cores": 4}
    server_config.write(SERVERS.values(), profile, folder, **{**arguments, **changes})


def render(**changes) -> dict[str, dict[str, str]]:
    """Each server's files, by name."""
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), **changes)
        return {
            folder.name: {path.name: path.read_bytes().decode() for path in folder.iterdir()}
            for folder in Path(name).iterdir()
        }


@pytest.mark.parametrize("part", [server_config, operator_rules, optional_engines, pinned_images])
def test_what_is_checked_in_is_what_is_rendered(part):
    for path, content in part.checked_in().items():
        assert path.read_bytes() == content, "run make manifests"


def test_kustomize_is_given_every_file_of_its_folders():
    """Kustomize knows no wildcards: a file that its list forgets would be missing in the cluster."""
    for folder, pattern in (
        ("k8s/base/torchserve", "config/*"),
        ("k8s/base/tensorflow-serving", "config/*"),
        ("k8s/base/triton", "config/*"),
        ("monitoring/grafana", "dashboards/*.json"),
        ("monitoring/prometheus", "rules/*.yaml"),
    ):
        listed = (ROOT / folder / "kustomization.yaml").read_text()
        for path in (ROOT / folder).glob(pattern):
            assert path.relative_to(ROOT / folder).as_posix() in listed


def test_servers_listen_where_services_lead_and_management_stays_inside():
    properties = render()["torchserve"]["config.properties"].splitlines()
    assert "inference_address=http://0.0.0.0:8080" in properties
    assert "grpc_inference_port=7070" in properties
    assert "management_address=http://127.0.0.1:8081" in properties
    assert "--rest_api_port=8501" in render()["tensorflow-serving"]["flags.txt"].splitlines()
    flags = render()["triton"]["flags.txt"].splitlines()
    assert {"--http-address=0.0.0.0", "--http-port=8000", "--grpc-port=8001", "--metrics-port=8002"} <= set(flags)


def test_all_servers_close_connections_after_the_same_time():
    files = render()
    assert "grpc_inference_max_connection_age_ms=20000" in files["torchserve"]["config.properties"]
    assert "--grpc_channel_arguments=grpc.max_connection_age_ms=20000" in files["tensorflow-serving"]["flags.txt"]
    assert "--grpc-max-connection-age=20000" in files["triton"]["flags.txt"].splitlines()


def test_the_probes_request_is_a_whole_http_request_of_one_image():
    for files in render(version=7, input_shape=(2, 3, 1)).values():
        head, body = files["predict.http"].split("\r\n\r\n")
        assert int(head.rpartition(" ")[2]) == len(body)
        image = [[[0], [0], [0]], [[0], [0], [0]]]
        tensor = {"name": "images", "shape": [1, 2, 3, 1], "datatype": "UINT8", "data": [image]}
        assert json.loads(body) in ({"instances": [image]}, {"inputs": [tensor]})
        assert "/7" in head.splitlines()[0]


def probe(folder: Path, port: int, word: str) -> subprocess.CompletedProcess[str]:
    variables = {
        **os.environ,
        "PORT": str(port),
        "PREDICT": str(folder / "predict.http"),
        "HEALTH": str(folder / "health.http"),
    }
    return subprocess.run(
        ["bash", str(PROBE), word], env=variables, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("target", "engine"),
    [
        pytest.param(name, one, id=name, marks=[pytest.mark.exhaustive] if one in optional() else [])
        for name, one in SERVERS.items()
    ],
)
def test_ready_means_that_this_version_answers(target, engine, bundle, tmp_path):
    if engine in optional():
        require_program(engine)
    name = deployment_of(engine).name
    for version in (bundle.version, bundle.version + 1):
        write(tmp_path / str(version), version=version, input_shape=bundle.input_shape)
    with launch.start(target, bundle, ServingProfile(), tmp_path / "server", engine=engine) as running:
        port = int(running.target.rest.rpartition(":")[2])
        for word in ("startup", "ready"):
            done = probe(tmp_path / str(bundle.version) / name, port, word)
            assert done.returncode == 0, done.stdout + done.stderr
        other = probe(tmp_path / str(bundle.version + 1) / name, port, "ready")
        assert other.returncode == 1
        assert "404" in other.stdout
    gone = probe(tmp_path / str(bundle.version) / name, port, "ready")
    assert gone.returncode == 1
    assert "answered with nothing" in gone.stdout


def test_a_grpc_client_is_asked_to_connect_anew_and_loses_nothing(bundle, tmp_path, monkeypatch):
    """The real TorchServe: what lets clients leave a pod before it stops, and find a new one."""
    render = rendering.render
    monkeypatch.setattr(
        rendering, "render", lambda profile, models, site: render(profile, models, replace(site, connection_age_s=0.5))
    )
    image = np.zeros((1, *bundle.input_shape), np.uint8)
    with launch.start("pytorch", bundle, ServingProfile(), tmp_path / "server") as running:
        port = int(running.target.grpc.rpartition(":")[2])
        connections: set[int] = set()
        with Client(running.target, timeout_s=10) as client:
            deadline = time.monotonic() + 30
            while len(connections) < 4 and time.monotonic() < deadline:
                assert client.predict("grpc", image).shape == (1, bundle.classes)
                known = psutil.Process().net_connections("tcp")
                connections |= {one.laddr.port for one in known if one.raddr and one.raddr.port == port}
    assert len(connections) >= 4


@contextmanager
def answering(predict: int, health: int) -> Iterator[int]:
    """A server that answers POST and GET with these statuses."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(predict)

        def do_GET(self) -> None:
            self.send_response(health)
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("word", "predict", "health", "expected"),
    [
        ("ready", 503, 200, 0),  # its queue is full: taking it away would only overload the others
        ("startup", 503, 200, 1),  # it has never answered yet
        ("ready", 503, 500, 1),  # its workers are dead
        ("ready", 500, 200, 1),
        ("ready", 404, 200, 1),
    ],
)
def test_an_overloaded_server_stays_ready_and_a_broken_one_does_not(word, predict, health, expected, tmp_path):
    write(tmp_path)
    with answering(predict, health) as port:
        assert probe(tmp_path / "torchserve", port, word).returncode == expected


def test_a_gpu_profile_uses_the_gpu(tmp_path):
    gpu = replace(ServingProfile(), device="gpu")
    write(tmp_path, profile=gpu)
    assert "number_of_gpu=0" not in (tmp_path / "torchserve" / "config.properties").read_text()
    assert "number_of_gpu=0" in render()["torchserve"]["config.properties"]
    assert "kind: KIND_GPU" in (tmp_path / "triton" / "convnet.pbtxt").read_text()
    assert "kind: KIND_CPU" in render()["triton"]["convnet.pbtxt"]


def mounted(name: str, folder: Path, combination: Combination = CPU) -> list[str]:
    """Write what a monitoring pod finds in its ConfigMap into ``folder``; returns its arguments, for that folder."""
    objects = everything()[combination]
    spec = pod_specs(objects)[name]
    source = next(volume["configMap"] for volume in spec["volumes"] if volume["name"] == "config")
    data = the(objects, "ConfigMap", source["name"])["data"]
    for item in source.get("items", [{"key": key, "path": key} for key in data]):
        path = folder / item["path"]
        path.parent.mkdir(exist_ok=True)
        path.write_text(data[item["key"]])
    arguments = " ".join(spec["containers"][0]["args"])
    return arguments.replace(f"/etc/{name}/", f"{folder}/").replace(f"=/{name}", f"={folder}/data").split()


@pytest.mark.parametrize("combination", [CPU, with_triton("cpu")], ids=str)
def test_promtool_accepts_what_is_mounted(tmp_path, combination):
    require("promtool")
    mounted("prometheus", tmp_path, combination)
    jobs = {one["job_name"]: one for one in yaml.safe_load((tmp_path / "prometheus.yml").read_text())["scrape_configs"]}
    there = {deployment_of(one).name for one in SERVERS.values()} & set(pod_specs(everything()[combination]))
    assert {*there, "loadtest", "dcgm-exporter"} == set(jobs)
    if "triton" in there:
        assert jobs["triton"]["dns_sd_configs"][0]["names"] == ["triton"]
        assert jobs["triton"]["dns_sd_configs"][0]["port"] == 8002
    done = subprocess.run(
        ["promtool", "check", "config", "prometheus.yml"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") >= 3


@pytest.mark.parametrize(
    ("name", "program"), [("prometheus", "prometheus"), ("alertmanager", "prometheus-alertmanager")]
)
def test_the_real_program_starts_as_the_pod_starts_it(name, program, tmp_path):
    require(name)
    (port,) = ports.free(1)
    command = [program, *mounted(name, tmp_path), f"--web.listen-address=127.0.0.1:{port}"]
    process = ServerProcess(name, command, tmp_path / "log.txt")

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        process.wait_until(ready, timeout_s=60)
    finally:
        process.stop()


def test_images_of_others_can_be_pinned_as_compose_pins_them():
    known = base_images.variables()
    pinned = {
        image.rpartition(":")[0]: known[key.replace("_IMAGE", "_DIGEST")]
        for key, image in known.items()
        if key.endswith("_IMAGE")
    }
    used = {
        container["image"].removeprefix("docker.io/")
        for spec in pod_specs(everything()[Combination("gpu", ("pinned-images",))]).values()
        for container in spec["containers"]
        if not container["image"].startswith("tandem/")
    }
    assert len(used) == 4
    for image in used:
        name, at, digest = image.partition("@")
        assert pinned[name.partition(":")[0]] == at + digest != ""


def test_images_of_others_are_those_that_compose_runs():
    lines = [line for line in BASE_IMAGES.read_text().splitlines() if "_IMAGE=" in line and not line.startswith("#")]
    pinned = {line.split("_IMAGE=")[1] for line in lines}
    used = {
        container["image"].removeprefix("docker.io/")
        for spec in pod_specs(everything()[Combination("gpu", ())]).values()
        for container in spec["containers"]
        if not container["image"].startswith("tandem/")
    }
    assert used <= pinned
    assert len(used) == 4
