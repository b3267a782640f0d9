"""The real tritonserver of nvidia-pytriton, as a process: the same model over every protocol, and what it says."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest

from models.bundle import Bundle
from models.problem import Problem
from serving import requests, serve, wire_parity
from serving.client import Client, RequestFailed
from serving.engines import registry
from serving.engines.container import Inside
from serving.engines.engine import KnobKind, Switch
from serving.engines.triton import server
from serving.ports import free
from serving.profile import ServingProfile
from serving.runtimes.containers import images
from serving.runtimes.process import launch, own_program
from serving.runtimes.process.launch import RunningTarget
from tests.components import require_program

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ROOT = Path(__file__).resolve().parents[2]
ENGINES = ("triton", "triton-torchscript")
SHARED_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module", params=ENGINES)
def running(request, bundle, tmp_path_factory) -> Iterator[RunningTarget]:
    require_program(registry.engine(request.param))
    with launch.start(request.param, bundle, ServingProfile(), tmp_path_factory.mktemp("triton")) as running:
        yield running


def page(target) -> str:
    with urllib.request.urlopen(target.metrics, timeout=5) as answer:
        return answer.read().decode()


def value(text: str, name: str) -> float:
    """Of the only series of this name on a page."""
    (found,) = re.findall(rf"^{name}{{.*}} (\S+)$", text, re.MULTILINE)
    return float(found)


def test_it_serves_the_same_model_over_every_protocol(running, bundle):
    found = wire_parity.check(running.target, bundle.reference)
    assert set(found) == {"grpc", "rest", "rest-binary"}
    assert all(one.top1_agreement == 1.0 for one in found.values())
    assert all(one.samples == 360 for one in found.values())


def test_the_target_says_what_computes_and_the_server_its_version(running, bundle):
    target = running.target
    assert re.fullmatch(r"2\.51\.0 \(Python backend, (onnxruntime|torch) [\d.+a-z]+\)", target.engine_version)
    assert target.backend
    assert target.backend.instead_of
    bounded = {knob.name: knob for knob in target.knobs}["queue_capacity"]
    assert (bounded.value, bounded.kind) == (None, KnobKind.DIFFERS)
    named = [switch for switch in target.switches if switch.name == "oneDNN"]
    assert named == ([Switch("oneDNN", True)] if target.engine == "triton-torchscript" else [])
    with urllib.request.urlopen(f"http://{target.rest}/v2", timeout=5) as answer:
        said = json.load(answer)
    assert f"{said['name']} {said['version']}" == "triton 2.51.0"
    asked = registry.engine(target.engine).metadata(target, "rest")
    assert asked
    with urllib.request.urlopen(f"http://{target.rest}{asked.path}", timeout=5) as answer:
        described = asked.read(answer.read())
    assert [(one.name, one.datatype, one.shape) for one in described.inputs] == [("images", "uint8", (-1, 32, 32, 3))]
    assert [(one.name, one.shape) for one in described.outputs] == [("probabilities", (-1, bundle.classes))]
    assert described.versions == (str(bundle.version),)


def test_the_sample_that_make_serve_writes_is_answered(running, bundle, tmp_path):
    sample = tmp_path / "sample.json"
    serve.write_sample(bundle, running.target, sample)
    url = f"http://{running.target.rest}{requests.rest_path(running.target)}"
    asked = urllib.request.Request(url, sample.read_bytes(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=5) as answer:
        (output,) = json.load(answer)["outputs"]
    with np.load(bundle.reference) as saved:
        assert np.argmax(output["data"]) == saved["probabilities"][0].argmax()


def test_no_lone_request_is_left_lying(running):
    """With a bound of its queue, this version looks at one of a hundred of them half a second late."""
    image = np.zeros((1, 32, 32, 3), np.uint8)
    slowest = 0.0
    with Client(running.target) as client:
        for _ in range(400):
            began = time.perf_counter()
            client.predict("grpc", image)
            slowest = max(slowest, time.perf_counter() - began)
    assert slowest < 0.45


def test_its_page_has_every_series_of_the_dialect_and_counts_images_and_batches(running):
    engine = registry.engine(running.target.engine)
    assert engine.dialect
    named = set(re.findall(r"nv_[a-z_]+", engine.dialect.read_text())) - {"nv_inference_"}
    text = page(running.target)
    assert {name for name in named if f"\n{name}{{" not in text} == set()
    before = text
    with Client(running.target) as client:
        client.predict("rest", np.zeros((7, 32, 32, 3), np.uint8))

    after = page(running.target)

    def grown(name: str) -> float:
        return value(after, name) - value(before, name)

    assert grown("nv_inference_request_success") == 1
    assert grown("nv_inference_count") == 7
    assert grown("nv_inference_exec_count") == 1


def test_what_it_cannot_take_is_refused_with_the_reason_and_harms_nothing(running):
    other = replace(running.target, input_shape=(16, 16, 3))
    with Client(other) as client:
        for protocol in ("grpc", "rest", "rest-binary"):
            with pytest.raises(RequestFailed, match=r"unexpected shape for input 'images'"):
                client.predict(protocol, np.zeros((2, 16, 16, 3), np.uint8))
    with Client(running.target) as client:
        assert client.predict("grpc", np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, running.target.classes)
        with pytest.raises(RequestFailed, match="HTTP 404"):
            client.send(
                "rest",
                requests.encode(replace(running.target, model="none"), "rest", np.zeros((1, 32, 32, 3), np.uint8)),
            )
    log = running.process.log.read_text(errors="replace")
    assert "Traceback" not in log


def test_a_batch_of_several_requests_is_cut_into_their_answers(running, bundle):
    """Sixteen requests of different sizes at once, of which the server makes few batches."""
    with np.load(bundle.reference) as saved:
        images, expected = saved["images"], saved["probabilities"]
    found: dict[int, np.ndarray] = {}

    def ask(number: int) -> None:
        with Client(running.target) as client:
            first = 10 * number
            found[number] = client.predict("grpc", images[first : first + 1 + number % 3])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, answer in found.items():
        first = 10 * number
        assert np.abs(answer - expected[first : first + 1 + number % 3]).max() < 1e-5
    assert len(found) == 16


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
def test_on_sigterm_what_is_under_way_is_answered_and_what_comes_is_refused(protocol, bundle, tmp_path):
    require_program(registry.engine("triton"))
    image = np.zeros((1, 32, 32, 3), np.uint8)
    with launch.start("triton", bundle, ServingProfile(batch_timeout_ms=2000.0), tmp_path / "run") as running:
        found: list[tuple[int, ...]] = []

        def ask() -> None:
            with Client(running.target) as client:
                found.append(client.predict(protocol, image).shape)

        waiting = [threading.Thread(target=ask) for _ in range(3)]
        for thread in waiting:
            thread.start()
        running.process.wait_until(lambda: value(page(running.target), "nv_inference_pending_request_count") == 3, 10)
        os.kill(running.process.pid, signal.SIGTERM)
        running.process.wait_until(lambda: "Waiting for in-flight requests" in running.process.log.read_text(), 10)
        with Client(running.target) as client, pytest.raises(RequestFailed):
            client.predict(protocol, image)
        for thread in waiting:
            thread.join()
        assert found == [(1, bundle.classes)] * 3


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_it_ends_whole_and_leaves_nothing(killed, bundle, tmp_path):
    require_program(registry.engine("triton"))
    with launch.start("triton", bundle, ServingProfile(instances=2), tmp_path / "run") as running:
        server = psutil.Process(running.process.pid)
        stubs = server.children(recursive=True)
        assert len(stubs) == 2  # one an instance
        named = re.search(r"shm-region-prefix-name=(\S+)", " ".join(server.cmdline()))
        assert named
        scratch = Path(tempfile.gettempdir()) / named[1]
        assert scratch.is_dir()
        assert list(SHARED_MEMORY.glob(f"{named[1]}*"))
        if killed:
            server.kill()
    assert not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in (server, *stubs))
    assert not scratch.exists()
    assert not list(SHARED_MEMORY.glob(f"{named[1]}*"))


def test_a_model_that_cannot_be_loaded_is_told_with_the_server_s_own_words(bundle, tmp_path):
    require_program(registry.engine("triton"))
    broken = tmp_path / "bundle"
    (broken / "onnx").mkdir(parents=True)
    (broken / "onnx" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(Problem) as problem:
        launch.start("triton", Bundle(broken, bundle.manifest), ServingProfile(), tmp_path / "run")
    assert "Triton died" in str(problem.value)
    assert "InvalidProtobuf" in (tmp_path / "run" / "server.log").read_text()


def test_the_configuration_of_its_own_backend_is_understood(bundle, tmp_path):
    """By the server of the wheel, which finds everything but that backend; the links are as in the container."""
    engine = registry.engine("triton")
    require_program(engine)
    assert engine.container
    program = own_program.find(engine)
    assert program
    rendering = images.render(bundle, engine, ServingProfile(), tmp_path / "config", cores=1)
    assert rendering.backend
    assert not rendering.backend.instead_of
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / bundle.model).symlink_to(bundle.onnx.parent)
    inside = Inside(tmp_path / "config" / "triton", tmp_path / "models", tmp_path, rendering.arguments, program)
    ports = dict(zip(("http-port", "grpc-port", "metrics-port"), free(3), strict=True))
    command = [
        re.sub(r"^--(\w+-port)=.*", lambda found: f"--{found[1]}={ports[found[1]]}", word)
        for word in engine.container.command(inside)
    ]
    (tmp_path / "backends").mkdir()
    done = subprocess.run(
        [*command, f"--backend-directory={tmp_path / 'backends'}"],
        env={**os.environ, **server.environment(program)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    failed = re.findall(r"failed to load '(\w+)' version (\d+): (.*)", done.stdout + done.stderr)
    assert [(model, version) for model, version, _ in failed] == [(bundle.model, str(bundle.version))]
    assert "unable to find backend library for backend 'onnxruntime'" in failed[0][2]


def test_a_gpu_is_refused_in_one_line(bundle, tmp_path):
    require_program(registry.engine("triton"))
    with pytest.raises(
        Problem, match=r"profile\.device = 'gpu': Triton's server of the wheel computes on the CPU alone"
    ):
        launch.start("triton", bundle, ServingProfile(device="gpu"), tmp_path / "run")


@pytest.mark.timeout(290)
def test_three_engines_are_compared_from_one_command_up_to_the_report(artifacts, tmp_path):
    """`make compare ENGINES=torchserve,tensorflow-serving,triton EXPERIMENT=smoke`, on one start of each that lasts as
    long as its two."""
    require_program(registry.engine("triton"))
    engines = ["--engines", "torchserve,tensorflow-serving,triton"]
    folders = ["--artifacts", str(artifacts), "--results", str(tmp_path / "results")]
    once = ["--set", "ladder.repetitions=1", "--set", "ladder.duration_s=4.0"]
    command = [sys.executable, "-m", "loadtest", "compare", "--experiment", "smoke", *engines, *folders, *once]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (path for path in (tmp_path / "results").iterdir() if not path.is_symlink())
    summary = json.loads((run / "summary.json").read_text())
    assert [target["name"] for target in summary["targets"]] == ["pytorch", "tensorflow", "triton"]
    assert summary["parity"]["proven"] is True
    assert set(summary["parity"]["wire"]["triton"]) == {"grpc", "rest"}
    for ranking in summary["rankings"]:
        assert {standing["target"] for standing in ranking["standings"]} == {"pytorch", "tensorflow", "triton"}
        assert all(standing["place"] for standing in ranking["standings"])
    triton = summary["targets"][2]
    assert triton["backend"]["instead_of"] == "onnxruntime"
    measured = next(one for one in summary["measurements"] if one["target"] == "triton")
    server = measured["server"][0]
    assert server["throughput"]
    assert server["latency_ms_mean"] > server["queue_ms_mean"] > 0
    assert server["latency_ms"] == {"p50": None, "p99": None}  # of 60 s, of which the trial is a small part
    text = (run / "report.md").read_text()
    assert "Triton’s Python backend" in text
    assert "not its onnxruntime backend: its speed says little about that one" in text


def test_it_is_a_server_of_the_open_inference_protocol_like_any_other(running, bundle):
    """As a user's own endpoint: what it describes is what it is asked for, over every protocol."""
    engine = registry.engine("open-inference")
    described = []
    with grpc.insecure_channel(running.target.grpc) as channel:
        for protocol in ("grpc", "rest"):
            asked = engine.metadata(running.target, protocol)
            assert asked
            for question in (asked, *asked.also):
                if question.message is None:
                    with urllib.request.urlopen(f"http://{running.target.rest}{question.path}", timeout=5) as answer:
                        said = question.read(answer.read())
                else:
                    said = question.read(channel.unary_unary(question.path)(question.message, timeout=5))
                described.append(said)
    assert described[:2] == described[2:]
    assert described[1].server == "triton 2.51.0"
    endpoint = replace(
        running.target, engine=engine.id, inputs=described[0].inputs, outputs=described[0].outputs, pinned_version="1"
    )
    found = wire_parity.check(endpoint, bundle.reference)
    assert set(found) == {"grpc", "rest", "rest-binary"}


EXPERIMENT = """
name = "endpoint"
scenarios = ["ladder"]
protocols = ["grpc", "rest", "rest-binary"]
[ladder]
rates = { grpc = [50.0], rest = [50.0], rest-binary = [50.0] }
repetitions = 2
duration_s = 1.0
lead_in_s = 0.25
[warm_up]
window_s = 0.25
min_s = 0.5
max_s = 2.0
settle_s = 0.0
min_requests = 0
tolerance = 0.5
"""


@pytest.mark.timeout(200)
def test_it_is_loaded_as_an_endpoint_without_any_bundle(running, tmp_path):
    target = running.target
    experiment, endpoints = tmp_path / "endpoint.toml", tmp_path / "endpoints.toml"
    experiment.write_text(EXPERIMENT)
    endpoints.write_text(
        '[[target]]\nname = "mine"\nengine = "open-inference"\n'
        f'url = "http://{target.rest}"\ngrpc = "{target.grpc}"\nmodel = "{target.model}"\n'
    )
    command = [sys.executable, "-m", "loadtest", "run", "--experiment", str(experiment), "--targets", str(endpoints)]
    done = subprocess.run(
        [*command, "--results", str(tmp_path / "results")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (path for path in (tmp_path / "results").iterdir() if not path.is_symlink())
    summary = json.loads((run / "summary.json").read_text())
    assert [one["engine"] for one in summary["targets"]] == ["open-inference"]
    measured = {one["protocol"]: one for one in summary["measurements"]}
    assert set(measured) == {"grpc", "rest", "rest-binary"}
    assert all(not one["errors"] for one in measured.values())
