"""What runs inside a serving container: the check of the model's files, the supervisor, the health check."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from models.problem import Problem
from serving.engines import registry
from serving.engines.container import Container, Inside
from serving.profile import ServingProfile
from serving.runtimes.containers import configuration, entrypoint, health, layout, program_line, servers
from tests.docker.files import ROOT
from tests.serving.golden import assert_golden


@pytest.fixture
def inside(bundle, tmp_path) -> Path:
    """A folder with bundle/manifest.json and models/, as an image of the embedded server has them at its root."""
    (tmp_path / "bundle").mkdir()
    shutil.copy(bundle.folder / "manifest.json", tmp_path / "bundle")
    shutil.copytree(bundle.savedmodel, tmp_path / "models" / bundle.model)
    return tmp_path


def verify(folder: Path, engine: str = "embedded-tfserving") -> None:
    container = servers.named(engine)
    entrypoint.verify(container, folder / "bundle" / "manifest.json", folder / "models")


def test_the_exported_model_passes(inside, capsys):
    verify(inside)
    assert "are as exported" in capsys.readouterr().out


def test_torchserves_archive_passes(bundle, tmp_path):
    shutil.copytree(bundle.archive.parent, tmp_path / "models")
    entrypoint.verify(servers.named("torchserve"), bundle.folder / "manifest.json", tmp_path / "models")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda file: file.write_bytes(file.read_bytes() + b" "), "saved_model.pb: changed since the export"),
        (lambda file: file.unlink(), "saved_model.pb: missing"),
        (lambda file: (file.parent / "extra.so").write_bytes(b""), "extra.so: not part of the bundle"),
    ],
)
def test_another_model_is_refused_and_the_file_named(inside, damage, said):
    (file,) = inside.glob("models/*/*/saved_model.pb")
    damage(file)
    with pytest.raises(Problem, match=said):
        verify(inside)


def test_an_unknown_engine_is_one_line():
    command = [sys.executable, "-m", "serving.runtimes.containers.entrypoint", "tritno"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr == "error: tritno: use one of torchserve, tensorflow-serving, embedded-tfserving, triton\n"


SUPERVISED = """
import sys
from pathlib import Path
from serving.runtimes.containers.entrypoint import Supervisor
sys.exit(Supervisor(sys.argv[1], sys.argv[3:], {}, Path(sys.argv[2])).run())
"""


def supervise(engine: str, folder: Path, *command: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, engine, str(folder), *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TANDEM_DRAIN_S": "0.2"},
    )


@pytest.mark.parametrize(("engine", "refused"), [("torchserve", True), ("embedded-tfserving", False)])
def test_sigterm_drains_before_the_server_gets_it(engine, refused, tmp_path):
    server = f"""
import os, signal, sys
def stop(*_):
    print("server stops;", *sorted(os.listdir({str(tmp_path)!r})), flush=True)
    sys.exit(5)
signal.signal(signal.SIGTERM, stop)
print("up", flush=True)
signal.pause()
"""
    process = supervise(engine, tmp_path, sys.executable, "-c", server)
    assert process.stdout
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "SIGTERM: unready, serving for 0.2 s more\n"
    assert process.stdout.readline() == f"server stops; draining{' refusing' if refused else ''}\n"
    assert process.wait(timeout=10) == 0


def test_a_server_that_dies_takes_the_container_with_it_and_its_status(tmp_path):
    assert supervise("torchserve", tmp_path, "false").wait(timeout=10) == 1
    killed = supervise("torchserve", tmp_path, sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    assert killed.wait(timeout=10) == 137


@pytest.mark.parametrize("engine", servers.engines(), ids=lambda engine: engine.id)
def test_the_configuration_of_a_container_is_complete(engine, bundle, tmp_path):
    profile = ServingProfile(threads=3, onednn=False)
    rendering = configuration.render(engine, profile, model=bundle.model, version="1.0", cores=2)
    configuration.write(rendering, tmp_path)
    assert entrypoint.rendered_environment(tmp_path) == rendering.environment
    assert_golden(f"{engine.id}-environment.txt", (tmp_path / "environment.txt").read_text())
    command = engine.container.command(replace(entrypoint.find(tmp_path), scratch=tmp_path / "scratch"))
    if engine.id == "torchserve":
        assert str(tmp_path / "config.properties") in command
        properties = (tmp_path / "config.properties").read_text()
        assert "inference_address=http://0.0.0.0:8080" in properties
        assert "management_address=http://127.0.0.1:8081" in properties
        assert "model_store=/models" in properties
    elif engine.id == "triton":
        (named,) = [flag for flag in command if flag.startswith("--model-repository=")]
        repository = Path(named.partition("=")[2])
        assert (repository / bundle.model / "config.pbtxt").resolve() == tmp_path / f"{bundle.model}.pbtxt"
        assert os.readlink(repository / bundle.model / "1.0" / "model.onnx") == f"/models/{bundle.model}/model.onnx"
        assert {"--http-port=8000", "--grpc-port=8001", "--metrics-port=8002"} <= set(command)
    else:
        assert f"--model_base_path=/models/{bundle.model}" in command
        assert "--port=8500" in command
        assert "--batching_parameters_file=/config/batching.txt" in command


def test_torchserve_writes_its_logs_where_it_may():
    variables = servers.named("torchserve").environment(Inside(Path("/config"), Path("/models"), Path("/tmp")))
    assert variables == {"LOG_LOCATION": "/tmp", "METRICS_LOCATION": "/tmp"}


def test_a_program_that_is_not_of_our_packages_is_asked_what_it_is(tmp_path):
    def identify(says: str) -> str:
        program = tmp_path / "tensorflow_model_server"
        program.write_text(f"#!/bin/sh\necho '{says}'\n")
        program.chmod(0o755)
        container = servers.named("tensorflow-serving")
        assert container.identify
        return container.identify(Inside(tmp_path, tmp_path, tmp_path, program=program))

    assert identify("TensorFlow ModelServer: 2.20.0") == "2.20.0"
    with pytest.raises(Problem, match=r"says 'hello', not .*; build the image from the official tensorflow/serving"):
        identify("hello")


def test_what_it_said_at_the_newest_start_is_read_from_the_log():
    log = f"x\n{program_line.line('2.19.0')}\nWARNING: y\n{program_line.line('2.20.0 (tensorflow 2.20.0)')}\r\nz\n"
    assert (program_line.version(log), program_line.version("x\n")) == ("2.20.0 (tensorflow 2.20.0)", "")


def test_an_unmounted_configuration_is_named(tmp_path):
    with pytest.raises(Problem, match=r"environment\.txt: No such file .*mount the rendered configuration at"):
        entrypoint.rendered_environment(tmp_path)


class _Answers(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    states: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        torchserve = [{"workers": [{"status": state} for state in self.states]}]
        tensorflow = {"model_version_status": [{"state": state} for state in self.states]}
        triton = {"versions": self.states} if self.states else {"error": "Request for unknown model"}
        answers = {"models": torchserve, "v1": tensorflow, "v2": triton}
        body = json.dumps(answers[self.path.split("/")[1]]).encode()
        self.send_response(400 if "error" in triton and "v2" in self.path else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(inside, monkeypatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        port = running.server_address[1]
        monkeypatch.setattr(servers, "named", lambda engine: at_port(engine, port))
        monkeypatch.setattr(layout, "MANIFEST", inside / "bundle" / "manifest.json")
        monkeypatch.setattr(layout, "DRAINING", inside / "draining")
        yield
        running.shutdown()


def at_port(engine: str, port: int) -> Container:
    container = registry.engine(engine).container
    assert container
    return replace(container, readiness=replace(container.readiness, port=port))


@pytest.mark.parametrize(
    ("engine", "states", "ready"),
    [
        ("torchserve", ["READY", "READY"], True),
        ("torchserve", ["READY", "LOADING"], False),
        ("torchserve", [], False),
        ("tensorflow-serving", ["AVAILABLE"], True),
        ("tensorflow-serving", ["LOADING"], False),
        ("embedded-tfserving", ["END", "AVAILABLE"], True),
        ("triton", ["1"], True),
        ("triton", [], False),
    ],
)
def test_healthy_means_that_the_model_answers(server, engine, states, ready):
    _Answers.states = states
    assert health.main(engine) == (0 if ready else 1)


def test_a_container_on_its_way_out_is_unhealthy(server):
    _Answers.states = ["READY"]
    layout.DRAINING.touch()
    assert health.main("torchserve") == 1


def test_no_server_is_unhealthy(inside, monkeypatch):
    monkeypatch.setattr(layout, "MANIFEST", inside / "bundle" / "manifest.json")
    monkeypatch.setattr(servers, "named", lambda engine: at_port(engine, 1))
    assert health.main("torchserve") == 1
