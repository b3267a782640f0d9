"""The stack on a real Docker engine: up, healthy, locked down, compared, drained, killed, and gone without a trace.

What no registry is needed for: the embedded server stands in for TensorFlow Serving, Grafana is left out, and the base
images are made by tests/docker/base-images.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.experiment.runtimes import on_this_machine
from models.bundle import Bundle
from serving import ports
from serving.client import Client, RequestFailed
from serving.engines import registry
from serving.runtimes.containers import base_images, compose_project, docker_cli, images, program_line, published
from serving.runtimes.containers.images import Build
from serving.runtimes.containers.servers import container_of
from serving.runtimes.containers.stack import Choice, Stack
from serving.target import Caveat, Target
from serving.this_machine import boot_id
from tests.components import require, require_docker_engine
from tests.docker import stand_in
from tests.docker.files import ROOT

PROJECT = f"tandem-test-{os.getpid()}"
TARGETS = {"pytorch": "torchserve", "tensorflow": "embedded-tfserving"}  # name to engine, with --embedded
SERVERS = tuple(TARGETS.values())
OPTIONS = ("--embedded", "--no-digests")
UP_S, RUN_S = 560, 280
IMAGE_LIMIT_MB = 350
THREADS = 3  # of load on each protocol

pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(UP_S + 60)]


@pytest.fixture(scope="module")
def running(bundle: Bundle, artifacts: Path) -> Iterator[Stack]:
    """The stack, as `make up` leaves it; what is in it is removed in any case."""
    require_docker_engine()
    bases = base_images.variables()
    needed = [bases[f"{name}_IMAGE"] for name in ("PYTHON", "PROMETHEUS", "ALERTMANAGER")]
    if missing := set(needed) - set(docker_cli.images_present(*needed)):
        pytest.fail(f"{', '.join(sorted(missing))}: run tests/docker/base-images (make ci-tools)")
    names = [one.variable for one in published.known()]
    variables = dict(zip(names, map(str, ports.free(len(names))), strict=True)) | {"COMPOSE_PROJECT_NAME": PROJECT}
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        done = make("serving", "up", "--artifacts", str(artifacts), *OPTIONS, "--without", "grafana", limit_s=UP_S)
        assert done.returncode == 0, done.stderr
        assert "is up and healthy" in done.stdout
        yield Stack(bundle, Choice(embedded=True, without=("grafana",), build=Build(digests=False)), artifacts)
    finally:
        compose_project.down(artifacts, PROJECT)
        os.environ.clear()
        os.environ.update(before)


def image_of(engine: str) -> images.Image:
    return images.of(registry.engine(engine))


def make(package: str, *arguments: str, limit_s: float = RUN_S) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", package, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit_s,
        check=False,
    )


def inspect(running: Stack, service: str) -> dict[str, Any]:
    state = running.inspect(service)
    assert state is not None, f"{service} has no container"
    return state


def execute(running: Stack, service: str, code: str) -> subprocess.CompletedProcess[str]:
    return docker_cli.docker("exec", inspect(running, service)["Id"], "python3", "-c", code, check=False)


def ask(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.parametrize("service", [*SERVERS, "prometheus", "alertmanager"])
def test_every_container_is_healthy_unprivileged_and_on_a_read_only_root(running, service):
    state = inspect(running, service)
    assert state["State"]["Health"]["Status"] == "healthy"
    assert state["Config"]["User"].split(":")[0] == ("10001" if service in SERVERS else "65534")
    host = state["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["Memory"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    for bindings in state["NetworkSettings"]["Ports"].values():
        assert {binding["HostIp"] for binding in bindings or []} <= {"127.0.0.1"}


@pytest.mark.parametrize("which", TARGETS)
def test_a_server_in_a_container_is_found_behind_its_port_and_at_its_own_address(running, which):
    engine = running.choice.servers[which]
    container, pid = container_of(engine), inspect(running, container_of(engine).image)["State"]["Pid"]
    profile = running.default_profile
    known = running.target(which, engine, profile, running.configure(engine, profile))
    published_at = {one.port: running.ports[one.variable] for one in container.published}
    behind = f"127.0.0.1:{published_at[container.ports.rest]}"
    own = f"{running.address(container.image)}:{container.ports.rest}"
    for address, caveats in ((behind, (Caveat.DOCKER_PROXY,)), (own, ())):
        asked = replace(known, rest=address, grpc="", cores=(), caveats=(), machine="", process=0)
        (found,) = on_this_machine.located([asked])
        assert (found.process, found.machine, found.caveats) == (pid, boot_id(), caveats), address
        assert found.cores == running.server_cores
        assert on_this_machine.not_seen([asked]) == []
        servers, generator = on_this_machine.split([found])
        assert (servers, set(generator)) == (running.server_cores, set(running.generator_cores))


@pytest.mark.parametrize("service", SERVERS)
def test_a_server_can_write_its_temporary_folder_and_nothing_else(running, service):
    done = execute(running, service, "import os; print(os.getuid()); open('/tmp/x', 'w'); open('/app/x', 'w')")
    assert done.stdout == "10001\n"
    assert "Read-only file system: '/app/x'" in done.stderr


def test_both_servers_have_the_same_cores_and_no_one_else_has_them(running):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU cannot be divided")
    hosts = [inspect(running, service)["HostConfig"] for service in SERVERS]
    keys = ("CpusetCpus", "NanoCpus", "Memory", "MemorySwap", "PidsLimit")
    assert [hosts[0][key] for key in keys] == [hosts[1][key] for key in keys]
    other = inspect(running, "prometheus")["HostConfig"]["CpusetCpus"]
    assert not set(hosts[0]["CpusetCpus"].split(",")) & set(other.split(","))


def test_management_answers_inside_torchserves_container_only(running):
    address = running.address("torchserve")
    assert address
    assert not ports.answers(address, 8081)
    inside = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8081/models').status)"
    assert execute(running, "torchserve", inside).stdout == "200\n"
    assert "8081/tcp" not in inspect(running, "torchserve")["NetworkSettings"]["Ports"]


def test_prometheus_has_both_servers_up(running):
    url = f"http://127.0.0.1:{running.ports['TANDEM_PROMETHEUS_PORT']}/api/v1/targets?state=active"
    deadline = time.monotonic() + 60
    health: dict[str, str] = {}
    while set(health.values()) != {"up"} or set(health) != set(SERVERS):
        assert time.monotonic() < deadline, health
        targets = ask(url)["data"]["activeTargets"]
        health = {one["labels"]["server"]: one["health"] for one in targets if one["labels"]["job"] == "serving"}
        time.sleep(0.5)
    alertmanagers = ask(url.replace("targets?state=active", "alertmanagers"))["data"]["activeAlertmanagers"]
    assert [one["url"] for one in alertmanagers] == ["http://alertmanager:9093/api/v2/alerts"]


def test_images_say_which_bundle_they_hold_and_what_they_weigh(running, bundle):
    build = Build(digests=False)
    names = [build.tag(image, bundle.version) for image in map(image_of, SERVERS)]
    for name in names:
        labels = json.loads(docker_cli.docker("image", "inspect", name).stdout)[0]["Config"]["Labels"]
        assert labels["dev.tandem.bundle.digest"] == f"sha256:{bundle.digest}"
        assert labels["org.opencontainers.image.version"] == str(bundle.version)
    assert all(name in images.sizes(names) for name in names)


def test_the_load_generators_image_is_small_and_generates_load(running, bundle, artifacts):
    (name,) = images.build(bundle, [images.LOADTEST], Build(digests=False), artifacts)
    size = json.loads(docker_cli.docker("image", "inspect", name).stdout)[0]["Size"]
    assert size < IMAGE_LIMIT_MB * 1e6
    locked = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none")
    code = "import importlib.util as u; print([m for m in ('torch', 'tensorflow') if u.find_spec(m)])"
    done = docker_cli.docker("run", "--rm", *locked, "--entrypoint", "python3", name, "-c", code)
    assert done.stdout == "[]\n"
    done = docker_cli.docker("run", "--rm", *locked, name, "--headless", "-u", "1", "--only-summary", check=False)
    assert "no plan: give --plan FILE" in done.stderr  # the whole generator could be imported


def test_a_changed_model_is_not_served(running, bundle, artifacts, tmp_path):
    archive = tmp_path / bundle.archive.name
    archive.write_bytes(bundle.archive.read_bytes() + b" ")
    archive.chmod(0o644)
    tmp_path.chmod(0o755)
    name = Build(digests=False).tag(image_of("torchserve"), bundle.version)
    mount = f"{archive}:/models/{archive.name}:ro"
    done = docker_cli.docker("run", "--rm", "--read-only", "--tmpfs", "/tmp", "-v", mount, name, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"error: /models/{archive.name}: changed since the export; build the image again"
    ]


def test_tensorflow_servings_image_brings_its_own_python(bundle, artifacts):
    """On a base that stands in for tensorflow/serving: the entry point, hashes, flags and draining; no serving."""
    require_docker_engine()
    with stand_in.tensorflow_serving():
        (name,) = images.build(bundle, [image_of("tensorflow-serving")], Build(registry="tandem-test/"), artifacts)
    locked = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--env", "TANDEM_DRAIN_S=0.1")
    container = docker_cli.docker("run", "--detach", *locked, name).stdout.strip()
    try:
        deadline = time.monotonic() + 30
        while "--rest_api_num_threads" not in (log := docker_cli.docker("logs", container).stdout):
            assert time.monotonic() < deadline, docker_cli.docker("logs", container).stderr
            time.sleep(0.1)
        assert "are as exported" in log
        assert program_line.version(log) == stand_in.VERSION
        for flag in (f"--model_base_path=/models/{bundle.model}", "--port=8500", "--rest_api_port=8501"):
            assert flag in log.splitlines()
        check = json.loads(docker_cli.docker("image", "inspect", name).stdout)[0]["Config"]["Healthcheck"]["Test"]
        done = docker_cli.docker("exec", container, *check[1:], check=False)
        assert done.returncode == 1
        assert done.stdout.startswith("no answer: [Errno 111]")
        docker_cli.docker("stop", "--time", "20", container)
        state = json.loads(docker_cli.docker("inspect", container).stdout)[0]["State"]
        assert state["ExitCode"] == 0
        assert "unready, serving for 0.1 s more" in docker_cli.docker("logs", container).stdout
    finally:
        docker_cli.docker("rm", "--force", container)
        docker_cli.docker("rmi", name)


def test_an_image_with_another_program_is_refused_in_one_line(bundle, artifacts):
    require_docker_engine()
    with stand_in.tensorflow_serving(says="embedded-tfserving: 1.0"):
        (name,) = images.build(bundle, [image_of("tensorflow-serving")], Build(registry="tandem-test/"), artifacts)
    try:
        done = docker_cli.docker("run", "--rm", "--read-only", "--tmpfs", "/tmp", name, check=False)
    finally:
        docker_cli.docker("rmi", name)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        "error: /usr/bin/tensorflow_model_server is not TensorFlow Serving: its --version says 'embedded-tfserving: "
        "1.0', not 'TensorFlow ModelServer: ...'; build the image from the official tensorflow/serving"
    )


class Load:
    """Requests one after the other from a few threads on each protocol, with their times and outcomes."""

    def __init__(self, target: Target) -> None:
        self.outcomes: list[tuple[str, float, str]] = []
        self._target, self._stop = target, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(one,)) for one in ("grpc", "rest") * THREADS]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, protocol: str) -> None:
        image = np.zeros((1, *self._target.input_shape), np.uint8)
        with Client(self._target, timeout_s=4) as client:
            while not self._stop.is_set():
                sent = time.time()
                try:
                    client.predict(protocol, image)
                    self.outcomes.append((protocol, sent, "ok"))
                except RequestFailed as failure:
                    self.outcomes.append((protocol, sent, str(failure)))
                    time.sleep(0.02)


# How a server says "not me": the request was never taken on, and may go to another. Not among them: a time-out, a reset
# of a connection that had been answering, an error of the model.
REFUSALS = {
    "grpc": ("failed to connect", "Connection refused", "GOAWAY", "Socket closed", "the server is stopping"),
    "rest": ("HTTP 503", "ConnectionRefusedError", "ConnectionResetError", "RemoteDisconnected", "BrokenPipeError"),
}


@pytest.mark.parametrize("which", [pytest.param("pytorch", marks=pytest.mark.exhaustive), "tensorflow"])
def test_sigterm_loses_no_request_that_was_accepted(running, which):
    engine = running.choice.servers[which]
    service = container_of(engine).image
    profile = running.default_profile
    target = running.target(which, engine, profile, running.configure(engine, profile))
    with Load(target) as load:
        deadline = time.monotonic() + 60
        while sum(outcome == "ok" for _, _, outcome in load.outcomes) < 50:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        container = inspect(running, service)["Id"]
        asked = time.time()
        docker_cli.docker("kill", "--signal", "TERM", container)
        state = inspect(running, service)["State"]
        while state["Running"]:
            assert time.time() < asked + 30
            time.sleep(0.05)
            state = inspect(running, service)["State"]
    assert state["ExitCode"] == 0
    # A request that was sent afterwards finds nobody at that address, and times out.
    ended = datetime.fromisoformat(state["FinishedAt"]).timestamp()
    refused_since = {}
    for protocol in ("grpc", "rest"):
        mine = [(sent, outcome) for one, sent, outcome in load.outcomes if one == protocol]
        failures = [(sent, outcome) for sent, outcome in mine if outcome != "ok"]
        assert failures
        refused_since[protocol] = min(sent for sent, _ in failures) - asked
        before_the_end = [outcome for sent, outcome in failures if sent < ended - 0.05]
        # Seen on a busy core, 3 ms after the last answer. Such a call needs a new connection, and one was seen to come
        # 0.1 s late: probably it can come after the container's network has gone, and then nothing refuses it. A call
        # that was accepted and lost would end with its connection, at once, and not at its deadline.
        last_answered = max(sent for sent, outcome in mine if outcome == "ok")
        unexpected = [
            outcome
            for sent, outcome in failures
            if sent < ended - 0.05
            and not any(known in outcome for known in REFUSALS[protocol])
            and not (sent > last_answered and "DEADLINE_EXCEEDED" in outcome)
        ]
        when = [f"{sent - asked:.3f} s after SIGTERM: {outcome}" for sent, outcome in failures]
        assert not unexpected, (protocol, unexpected[:3], f"ended {ended - asked:.3f} s after it", when[:5], when[-5:])
        resets = [one for one in before_the_end if "Reset" in one or "Disconnected" in one or "Broken" in one]
        assert (
            len(resets) <= THREADS
        )  # a keep-alive connection that closes under the next request, at most one a thread
    # For two seconds after SIGTERM everything was still answered: the time for a load balancer to notice.
    assert min(refused_since.values()) > 1.5
    docker_cli.docker("start", container)
    running.wait_until_healthy([service])


def compare(artifacts: Path, results: Path, *arguments: str) -> list[str]:
    command = ["compare", "--experiment", "smoke", "--artifacts", str(artifacts), "--results", str(results)]
    # Trials are not repeated where this machine sends late: nothing here depends on schedules.
    return [*command, "--set", "runtime=container", "--set", "generator.retries=0", *OPTIONS, *arguments]


def test_the_same_experiment_gives_the_same_summary(running, artifacts, tmp_path):
    require("prometheus")
    quick = ("ladder.repetitions=1", "warm_up.min_s=0.5", "warm_up.tolerance=1.0")
    done = make("loadtest", *compare(artifacts, tmp_path, *(word for one in quick for word in ("--set", one))))
    assert done.returncode == 0, done.stdout + done.stderr
    run = (tmp_path / "latest").resolve()
    summary = json.loads((run / "summary.json").read_text())
    assert {one["name"]: (one["engine"], one["runtime"]) for one in summary["targets"]} == {
        "pytorch": ("torchserve", "container"),
        "tensorflow": ("embedded-tfserving", "container"),
    }
    measured = {(one["target"], one["protocol"]) for one in summary["measurements"]}
    assert measured == {(name, protocol) for name in TARGETS for protocol in ("grpc", "rest")}
    for one in summary["measurements"]:
        assert one["requests"]["ok"] > 0
        assert one["valid"] or one["why_not_valid"]
    for name in TARGETS:
        for figures in summary["parity"]["wire"][name].values():
            assert figures["max_abs_diff"] <= 1e-4
        (log, *_) = run.glob(f"servers/{name}-*/server.log")
        assert "are as exported" in log.read_text()
    assert list(run.glob("servers/pytorch-*/config.properties"))
    assert list(run.glob("servers/tensorflow-*/batching.txt"))
    assert any(json.loads(path.read_text())["throughput"] for path in run.glob("trials/*/server.json"))
    running.wait_until_healthy(SERVERS)  # what was up before is up after


@pytest.mark.exhaustive
def test_a_container_killed_under_load_is_another_server_and_its_start_is_repeated(running, artifacts, tmp_path):
    settings = ("targets=['tensorflow']", "protocols=['grpc']", "ladder.rates={grpc=[30]}", "ladder.duration_s=15")
    more = ("ladder.repetitions=1", "generator.timeout_s=2")
    changed = [word for setting in (*settings, *more) for word in ("--set", setting)]
    command = [sys.executable, "-m", "loadtest", *compare(artifacts, tmp_path, *changed)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 150
        while not list(tmp_path.glob("*-smoke/warm-ups/*/warm-up.json")):
            assert process.poll() is None, process.stdout.read() if process.stdout else ""
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(inspect(running, "embedded-tfserving")["State"]["Pid"], signal.SIGKILL)
        output, _ = process.communicate(timeout=RUN_S)
    finally:
        process.kill()
    assert process.returncode == 0, output
    run = (tmp_path / "latest").resolve()
    warnings = json.loads((run / "environment.json").read_text())["warnings"]
    (note,) = (one for one in warnings if one["type"] == "server-replaced")
    assert (note["target"], note["engine"], note["what"]) == ("tensorflow", "embedded-tfserving", "container")
    assert (note["exit_status"], note["start"]) == (137, 1)
    assert "the server was replaced" in output
    (trial,) = (json.loads(path.read_text()) for path in run.glob("trials/*/trial.json"))
    assert not trial["errors"]
    assert trial["requests"]["ok"] > 0
    assert list((run / "replaced").iterdir())
    running.wait_until_healthy(SERVERS)  # the other server, too, which this run stopped


def test_locusts_page_starts_a_load_on_demand(running, artifacts):
    options = ("--artifacts", str(artifacts), *OPTIONS, "--rate", "5", "--seconds", "2")
    done = make("loadtest", "web", "pytorch", *options)
    assert done.returncode == 0, done.stderr
    page = done.stdout.partition(": start the load there")[0]
    assert page == f"http://localhost:{running.ports['TANDEM_LOCUST_PORT']}"
    state = inspect(running, "loadtest")
    assert state["Config"]["User"].startswith("10001")
    assert state["HostConfig"]["ReadonlyRootfs"] is True
    start = urllib.request.Request(f"{page}/swarm", data=b"user_count=1&spawn_rate=1", method="POST")
    with urllib.request.urlopen(start, timeout=10) as answer:
        assert json.load(answer)["success"] is True
    deadline = time.monotonic() + 60
    while (state := inspect(running, "loadtest")["State"])["Running"]:
        assert time.monotonic() < deadline, running.logs("loadtest")
        time.sleep(0.2)
    ended = [json.loads(line) for line in running.logs("loadtest").splitlines() if '"phase-ended"' in line]
    assert [one["id"] for one in ended] == ["pytorch-grpc", "pytorch-rest"], running.logs("loadtest")
    assert state["ExitCode"] == 0


def test_down_leaves_nothing(running, artifacts):
    assert {one.split()[0] for one in compose_project.left(PROJECT)} == {"container", "network", "volume"}
    done = make("serving", "down", "--artifacts", str(artifacts))
    assert done.returncode == 0, done.stderr
    assert compose_project.left(PROJECT) == []
    assert make("serving", "down", "--artifacts", str(artifacts)).stderr.endswith("nothing was up\n")
