"""What a user reads when something is in the way of containers: one line that says what to do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from models.problem import Problem
from serving.runtimes.containers import docker_cli, published
from serving.runtimes.containers.stack import Stack
from tests.components import require_docker_engine
from tests.docker.files import ROOT

pytestmark = [pytest.mark.docker, pytest.mark.slow]


def serving(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "serving", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, **environment},
    )


def the_error(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    return last


def stand_in(folder: Path, says: str, *, status: int = 0, error: bool = False) -> str:
    """A PATH whose docker says this: for engines that this machine cannot have."""
    program = folder / "docker"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{says}' {'>&2' if error else ''}\nexit {status}\n")
    program.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


@pytest.mark.parametrize("verb", ["images", "up"])
def test_no_docker(verb, artifacts, tmp_path):
    error = the_error(serving(verb, "--artifacts", str(artifacts), PATH=str(tmp_path)))
    assert "Docker is not installed" in error
    assert "RUNTIME" in error


@pytest.mark.skipif(not shutil.which("docker"), reason="docker's command line is not installed")
@pytest.mark.parametrize("verb", ["images", "up", "down"])
def test_the_daemon_is_not_running(verb, artifacts, tmp_path):
    error = the_error(serving(verb, "--artifacts", str(artifacts), DOCKER_HOST=f"unix://{tmp_path}/none.sock"))
    assert "the Docker daemon is not running" in error
    assert "systemctl start docker" in error


def test_no_permission(tmp_path, artifacts):
    require_docker_engine()
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", shutil.which("docker") or "", "version"],
        capture_output=True,
        text=True,
        env={**os.environ, "HOME": str(tmp_path)},
        check=False,
    )
    assert done.returncode
    assert "usermod -aG docker" in str(docker_cli.explain("docker version", done.stderr + done.stdout))


def test_another_architecture(artifacts, tmp_path):
    path = stand_in(tmp_path, "arm64")
    error = the_error(serving("images", "--artifacts", str(artifacts), PATH=path))
    assert "arm64" in error
    assert "amd64 only" in error


def test_no_bundle(tmp_path):
    error = the_error(serving("up", "--artifacts", str(tmp_path)))
    assert "no exported bundle; run make export" in error


@pytest.mark.timeout(300)
def test_an_image_that_cannot_be_pulled_leads_to_the_embedded_server(artifacts):
    require_docker_engine()
    missing = {"TENSORFLOW_SERVING_IMAGE": "localhost:1/tensorflow/serving:2.20.0"}
    code = (
        "import sys; from serving.runtimes.containers import base_images, images; "
        "from models import bundle, problem; "
        "from pathlib import Path; "
        f"known = base_images.variables(digests=False) | {missing!r}; "
        "base_images.variables = lambda **_: known; "
        f"one = bundle.load(Path({str(artifacts / 'convnet' / '1')!r})); "
        "sys.exit(problem.run(lambda: images.build(one, images.chosen(embedded=False)[1:2], images.Build(), "
        f"Path({str(artifacts)!r})) and None))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    error = the_error(done)
    assert "cannot be pulled" in error
    assert "make up ARGS=--embedded" in error


def test_a_container_that_refuses_to_start_says_why_in_one_line(monkeypatch):
    stack = object.__new__(Stack)
    monkeypatch.setattr(Stack, "logs", lambda *_: "a line\nerror: it is another program; build it again\n")
    refused = stack.fallen("tensorflow-serving")
    assert (str(refused), refused.details) == ("tensorflow-serving: it is another program; build it again", ())
    monkeypatch.setattr(Stack, "logs", lambda *_: "a line\nlast words\n")
    died = stack.fallen("torchserve")
    assert (str(died), died.details) == ("torchserve does not stay up", ("a line", "last words"))


def test_one_port_for_two_services_is_refused(monkeypatch):
    monkeypatch.setenv("TANDEM_TENSORFLOW_GRPC_PORT", "8501")
    with pytest.raises(Problem, match="TANDEM_TENSORFLOW_GRPC_PORT=8501: TANDEM_TENSORFLOW_REST_PORT is the same port"):
        published.chosen()
    monkeypatch.setenv("TANDEM_TENSORFLOW_REST_PORT", "8500")
    assert published.chosen()["TANDEM_TENSORFLOW_REST_PORT"] == 8500


def test_a_port_in_use(artifacts):
    require_docker_engine()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        project = {"COMPOSE_PROJECT_NAME": f"tandem-port-{os.getpid()}", "TANDEM_TORCHSERVE_GRPC_PORT": port}
        error = the_error(serving("up", "--artifacts", str(artifacts), "--embedded", **project))
    assert f"port {port} for TorchServe's gRPC API is taken" in error
    assert "TANDEM_TORCHSERVE_GRPC_PORT=... make up" in error


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (
            "driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:8080 failed: port is "
            "already allocated",
            "port 8080 is taken",
        ),
        (
            "Error starting userland proxy: listen tcp4 127.0.0.1:9090: bind: address already in use",
            "port 9090 is taken",
        ),
        ("failed to copy files: write /opt/venv/x: no space left on device", "docker system prune"),
        (
            'could not select device driver "nvidia" with capabilities: [[gpu]]',
            "NVIDIA Container Toolkit",
        ),
        ("exec /opt/venv/bin/python3: exec format error", "amd64"),
    ],
)
def test_dockers_own_words_are_translated(output, said):
    assert said in str(docker_cli.explain("docker compose up", output))


def test_a_gpu_that_is_not_there(artifacts):
    require_docker_engine()
    if "nvidia" in docker_cli.docker("info", "--format", "{{json .Runtimes}}").stdout:
        pytest.skip("this engine has a GPU runtime")
    error = the_error(serving("up", "--artifacts", str(artifacts), "--gpu"))
    assert "no GPU for containers" in error
    assert "NVIDIA Container Toolkit" in error
