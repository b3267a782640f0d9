"""The real TorchServe: right answers, errors of its own for bad requests, metrics, a closed door, a sure end."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

from models.problem import Problem
from serving import wire_parity
from serving.client import Client, RequestFailed
from serving.engines.engine import TRANSPORT, Ports, Transport
from serving.profile import ServingProfile
from serving.runtimes.process import launch
from serving.target import Target

pytestmark = pytest.mark.slow

PROFILE = ServingProfile(max_batch_size=32, batch_timeout_ms=50)


@pytest.fixture(scope="module")
def reference(bundle) -> tuple[np.ndarray, np.ndarray]:
    with np.load(bundle.reference) as saved:
        return saved["images"], saved["probabilities"]


@pytest.fixture(scope="module")
def running(bundle, tmp_path_factory):
    with launch.start("pytorch", bundle, PROFILE, tmp_path_factory.mktemp("torchserve")) as running:
        yield running


def metrics(target: Target) -> dict[str, float]:
    """Sample name with labels -> value."""
    assert target.metrics is not None
    with urllib.request.urlopen(target.metrics, timeout=10) as page:
        lines = page.read().decode().splitlines()
    return {key: float(value) for key, value in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}


def total(target: Target, name: str, *labels: str) -> float:
    found = [value for key, value in metrics(target).items() if re.match(rf"{name}\b", key)]
    assert found, name
    return sum(found)


def post(target: Target, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(target.rest, timeout=20)
    try:
        connection.request("POST", path, body, {"Content-Type": content_type})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def await_true(condition, timeout_s=20):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def group_of(pid: int) -> list[int]:
    """Living processes of the server's group."""
    alive = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                alive.append(process.pid)
        except ProcessLookupError:
            continue
    return alive


def test_wire_parity_on_every_protocol(running, bundle):
    figures = wire_parity.check(running.target, bundle.reference)
    assert set(figures) == {"grpc", "rest", "rest-binary"}
    for one in figures.values():
        assert one.max_abs_diff <= 1e-4
        assert one.top1_agreement == 1.0
    running.check()


def test_what_runs_is_said(running, bundle):
    target = running.target
    assert (target.engine, target.runtime, target.model) == ("torchserve", "process", bundle.model)
    assert target.engine_version.startswith("0.12.0 (torch ")
    assert {knob.name: (knob.native_key, knob.value) for knob in target.knobs}["max_batch_size"] == ("batchSize", 32)
    in_force = {one.name: one.value for one in target.switches}
    assert in_force[TRANSPORT] == Transport.UNIX_SOCKET
    assert (in_force["oneDNN"], in_force["OMP_NUM_THREADS"]) == (True, "1")
    assert in_force["quantized engine"] in ("x86", "fbgemm", "onednn", "qnnpack")
    folder = running.process.log.parent
    assert Target.load(folder / "target.json") == target
    assert {"config.properties", "metrics.yaml", "log4j2.xml", "server.log"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("body", "content_type", "says"),
    [
        (b"x" * 100, "application/octet-stream", "100 bytes are no uint8 images"),
        (b"{", "application/json", "bad JSON"),
        (b'{"instances": [[1, 2]]}', "application/json", "bad JSON"),
        (b"", "application/octet-stream", "no"),
    ],
)
def test_a_bad_body_is_a_400_that_says_why(running, body, content_type, says):
    status, answer = post(running.target, "/predictions/convnet", body, content_type)
    assert status == 400
    assert says in json.loads(answer)["message"]


def test_a_bad_grpc_request_is_no_prediction(running):
    from serving.wire.protobuf import torchserve_pb2

    bad = torchserve_pb2.PredictionsRequest(model_name="convnet", input={"data": b"x" * 100}).SerializeToString()
    with Client(running.target) as client:
        body = client.send("grpc", bad)
        assert json.loads(torchserve_pb2.PredictionResponse.FromString(body).prediction)["code"] == 400
        unknown = torchserve_pb2.PredictionsRequest(model_name="nobody", input={"data": b"x"}).SerializeToString()
        with pytest.raises(RequestFailed, match="Model not found: nobody"):
            client.send("grpc", unknown)


def test_bad_requests_do_not_hurt_their_batch_mates(running, reference):
    images, expected = reference
    batches = total(running.target, "tandem_batch_images_count")

    together = threading.Barrier(8)

    def send(index: int) -> tuple[int, bytes]:
        together.wait(timeout=20)
        body = images[index].tobytes() if index % 4 else b"bad"
        return post(running.target, "/predictions/convnet", body, "application/octet-stream")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(8)))
    for index, (status, body) in enumerate(answers):
        if index % 4:
            assert status == 200
            np.testing.assert_allclose(np.frombuffer(body, "<f4"), expected[index], atol=1e-4)
        else:
            assert status == 400
    # They did share batches: 6 good requests, fewer batches.
    await_true(lambda: total(running.target, "tandem_batch_images_count") > batches)
    assert total(running.target, "tandem_batch_images_count") - batches < 6


def test_metrics_page_has_our_histograms_and_queue_times_for_both_protocols(running, reference):
    images, _ = reference
    target = running.target

    def read() -> dict[str, float]:
        names = ("tandem_batch_images_sum", "tandem_handler_seconds_count", "QueueTime_count")
        return {name: total(target, name) for name in names}

    time.sleep(0.5)  # what earlier tests sent is flushed every 0.25 s
    before = read()
    with Client(target) as client:
        for protocol in ("grpc", "rest", "rest-binary"):
            client.predict(protocol, images[:5])
    await_true(lambda: read()["tandem_batch_images_sum"] - before["tandem_batch_images_sum"] == 15)
    await_true(lambda: read()["tandem_handler_seconds_count"] - before["tandem_handler_seconds_count"] == 3)
    assert read()["QueueTime_count"] - before["QueueTime_count"] == 3
    page = metrics(target)
    latency = {
        re.search(r'le="([^"]+)"', key)[1]: value  # type: ignore[index]
        for key, value in page.items()
        if key.startswith("tandem_handler_seconds_bucket") and 'protocol="rest"' in key
    }
    in_order = [latency[le] for le in sorted(latency, key=float)]
    assert in_order == sorted(in_order)
    rest = next(key for key in page if key.startswith("tandem_handler_seconds_count") and 'protocol="rest"' in key)
    assert latency["+Inf"] == page[rest] >= 2
    assert 'model="convnet",version="1"' in rest


def test_management_registers_no_model_from_anywhere_and_listens_on_loopback_only(running, bundle):
    folder = running.process.log.parent
    text = (folder / "config.properties").read_text()
    address = re.search(r"management_address=(\S+)", text)[1]  # type: ignore[index]
    assert urllib.parse.urlsplit(address).hostname == "127.0.0.1"
    for url in ("http://127.0.0.1:1/evil.mar", "https://example.org/evil.mar", bundle.archive.resolve().as_uri()):
        query = urllib.parse.urlencode({"url": url, "model_name": "evil"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(f"{address}/models?{query}", method="POST"), timeout=10)
        assert 400 <= refused.value.code < 500
    with urllib.request.urlopen(f"{address}/models", timeout=10) as answer:
        assert [model["modelName"] for model in json.load(answer)["models"]] == ["convnet"]
    ports = {connection.laddr.port for connection in listening(running.process.pid)}
    assert urllib.parse.urlsplit(address).port in ports
    assert {connection.laddr.ip.removeprefix("::ffff:") for connection in listening(running.process.pid)} == {
        "127.0.0.1"
    }


def listening(pid: int) -> list:
    connections = psutil.Process(pid).net_connections("tcp")
    return [connection for connection in connections if connection.status == psutil.CONN_LISTEN]


def test_a_dying_worker_is_reported_and_stop_leaves_nothing(bundle, tmp_path):
    running = launch.start("pytorch", bundle, ServingProfile(), tmp_path, cores=sorted(os.sched_getaffinity(0))[:1])
    try:
        group = group_of(running.process.pid)
        assert len(group) == 2  # Java and one worker
        pinned = {frozenset(os.sched_getaffinity(pid)) for pid in group}
        assert pinned == {frozenset(running.target.cores)}
        [worker] = psutil.Process(running.process.pid).children()
        scratch = re.search(r"java\.io\.tmpdir=(\S+)", " ".join(psutil.Process(running.process.pid).cmdline()))
        assert scratch is not None
        assert Path(scratch[1]).is_dir()
        worker.kill()
        with pytest.raises(Problem, match=r"a worker process .* of TorchServe died") as caught:
            running.process.wait_until(lambda: False, 20)
        assert caught.value.details
    finally:
        running.stop()
    assert group_of(running.process.pid) == []
    assert not Path(scratch[1]).exists()
    running.stop()


def test_a_model_that_does_not_load_shows_the_workers_traceback(bundle, tmp_path):
    archive = tmp_path / "store" / "convnet.mar"
    archive.parent.mkdir()
    with zipfile.ZipFile(bundle.archive) as good, zipfile.ZipFile(archive, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, b"no TorchScript" if name.endswith(".pt") else good.read(name))
    broken = copy(bundle, archive=archive)
    with pytest.raises(Problem, match=r"TorchServe cannot load the model \(log: .*server\.log") as caught:
        launch.start("pytorch", broken, ServingProfile(), tmp_path / "run")
    assert any("Error" in line or "died" in line for line in caught.value.details)


def test_a_missing_archive_and_a_taken_port_are_named_before_anything_starts(bundle, tmp_path):
    with pytest.raises(Problem, match=r"nowhere\.mar: no TorchServe model archive"):
        launch.start("pytorch", copy(bundle, archive=tmp_path / "nowhere.mar"), ServingProfile(), tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Problem, match=f"port {port} for TorchServe's gRPC API is taken"):
            launch.start("pytorch", bundle, ServingProfile(), tmp_path, fixed_ports=Ports(0, port, 0))
    with pytest.raises(Problem, match="target 'jax': use one of pytorch, tensorflow, embedded-tfserving"):
        launch.start("jax", bundle, ServingProfile(), tmp_path)


def copy(bundle, **changes) -> Any:
    names = (
        "model",
        "version",
        "input_shape",
        "classes",
        "archive",
        "savedmodel",
        "reference",
        "precision",
        "encoding",
        "left_out",
    )
    return SimpleNamespace(**{**{name: getattr(bundle, name) for name in names}, **changes})


def test_serve_prints_a_curl_line_that_works_and_stops_on_ctrl_c(bundle, reference, tmp_path):
    command = [sys.executable, "-m", "serving", "serve", "--stack", "pytorch", "--folder", str(tmp_path / "serve")]
    server = subprocess.Popen(
        [*command, "--bundle", str(bundle.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        printed = []
        assert server.stdout is not None
        for line in server.stdout:
            printed.append(line)
            if "Ctrl-C stops" in line:
                break
        curl = next(line for line in printed if line.strip().startswith("try")).split(None, 1)[1]
        words = shlex.split(curl)
        sample = Path(words[words.index("--data-binary") + 1].removeprefix("@"))
        request = urllib.request.Request(words[-1], sample.read_bytes(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as answer:
            rows = np.array(json.load(answer)["predictions"])
        np.testing.assert_allclose(rows, reference[1][:1], atol=1e-4)
        [target] = json.loads((tmp_path / "serve" / "targets.json").read_text())
        assert target["name"] == "pytorch"
        started = psutil.Process(server.pid).children()
        assert len(started) == (2 if shutil.which("prometheus") else 1)
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0, server.stderr.read() if server.stderr else ""
        assert [group_of(process.pid) for process in started] == [[]] * len(started)
        assert not (tmp_path / "serve" / "targets.json").exists()
    finally:
        server.kill()
        server.communicate()


@pytest.mark.exhaustive
def test_it_starts_from_a_shell_made_for_other_programs_in_a_folder_with_any_letter(bundle, tmp_path, monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    shell = {
        "http_proxy": "http://127.0.0.1:9",
        "LC_ALL": "C",
        "JAVA_TOOL_OPTIONS": "-Xmx1m",
        "_JAVA_OPTIONS": "-Dfile.encoding=US-ASCII",
        "PYTHONPATH": str(tmp_path / "mine"),
        "PYTORCH_JIT": "0",
    }
    for name, value in shell.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "torch.py").write_text("raise SystemExit('the shell's')")
    with launch.start("pytorch", bundle, ServingProfile(), tmp_path / "Läufe äöü") as running:
        found = wire_parity.check(running.target, bundle.reference)
        assert all(one.top1_agreement == 1.0 for one in found.values())
        (worker,) = psutil.Process(running.process.pid).children()
        assert worker.cmdline()[worker.cmdline().index("--sock-type") + 1] == "unix"
