"""The stack on Docker Compose: up, healthy, described; and down, with nothing left."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.problem import Problem
from serving import ports
from serving.cores import split_cores
from serving.engines.tensorflow_serving import config as tensorflow_serving
from serving.profile import ServingProfile
from serving.runtimes.containers import base_images, docker_cli, images, layout
from serving.runtimes.containers.docker_cli import Compose
from serving.runtimes.containers.images import ROOT, Build
from serving.target import STACKS, Target

if TYPE_CHECKING:
    from models.bundle import Bundle

PROJECT = "tandem"
READY_S = 180.0
MONITORING = ("alertmanager", "prometheus", "grafana")
# variable -> (default, service, purpose); an environment variable of that name wins
PORTS = {
    "TANDEM_TORCHSERVE_REST_PORT": (8080, "torchserve", "TorchServe's REST API"),
    "TANDEM_TORCHSERVE_GRPC_PORT": (7070, "torchserve", "TorchServe's gRPC API"),
    "TANDEM_TORCHSERVE_METRICS_PORT": (8082, "torchserve", "TorchServe's metrics"),
    "TANDEM_TENSORFLOW_REST_PORT": (8501, "tensorflow", "TensorFlow Serving's REST API"),
    "TANDEM_TENSORFLOW_GRPC_PORT": (8500, "tensorflow", "TensorFlow Serving's gRPC API"),
    "TANDEM_PROMETHEUS_PORT": (9090, "prometheus", "Prometheus"),
    "TANDEM_ALERTMANAGER_PORT": (9093, "alertmanager", "Alertmanager"),
    "TANDEM_GRAFANA_PORT": (3000, "grafana", "Grafana"),
    "TANDEM_LOCUST_PORT": (8089, "loadtest", "Locust's web page"),
}


@dataclass(frozen=True)
class Choice:
    """What a stack is made of.

    embedded  the embedded server instead of TensorFlow Serving
    gpu       compose.gpu.yaml and the GPU images
    without   of MONITORING, what to leave out
    memory    each server's limit, as Docker writes it
    """

    embedded: bool = False
    gpu: bool = False
    without: tuple[str, ...] = ()
    memory: str = "4g"
    build: Build = field(default_factory=Build)

    def engine(self, stack: str) -> str:
        """The engine, which is the service's name, that serves a stack."""
        if stack == "pytorch":
            return "torchserve"
        return "embedded-tfserving" if self.embedded else "tensorflow-serving"

    @property
    def services(self) -> list[str]:
        """The services to start, in order."""
        return [*(self.engine(stack) for stack in STACKS), *(one for one in MONITORING if one not in self.without)]


class Stack:
    """One Compose project for one bundle: its files are below ``artifacts``/containers."""

    def __init__(self, bundle: Bundle, choice: Choice, artifacts: Path, project: str | None = None) -> None:
        docker_cli.require_engine()
        self.bundle, self.choice, self._artifacts = bundle, choice, artifacts
        self.folder = (artifacts / "containers").resolve()
        self.project = project or os.environ.get("COMPOSE_PROJECT_NAME") or PROJECT
        self.config = self.folder / (self.project if self.project != PROJECT else "config")
        self.server_cores, self.generator_cores = split_cores(sorted(os.sched_getaffinity(0)))
        self.ports = {name: _port(name, default) for name, (default, *_) in PORTS.items()}
        self.compose = Compose(self.project, compose_files(choice.gpu), self._variables())

    def up(self) -> None:
        """Build what is missing, start everything, and return when all of it is healthy; raises `Problem`."""
        if self.choice.gpu:
            require_gpu()
        self.require_ports()
        self.require_images()
        for stack in STACKS:
            self.configure(stack, ServingProfile(device="gpu" if self.choice.gpu else "cpu"))
        self._write_scrape_targets()
        self._write_variables()
        services = self.choice.services
        print(f"starting {', '.join(services)}", file=sys.stderr, flush=True)
        self.compose.run(
            *("up", "-d", "--remove-orphans", *services),
            doing="docker compose up",
            pulling='give the engine access to the registry, or leave it out: ARGS="--without grafana"',
        )
        self.wait_until_healthy(services)
        targets = [self.target(stack).to_dict() for stack in STACKS]
        (self.folder / "targets.json").write_text(json.dumps(targets, indent=2) + "\n")

    def require_images(self) -> None:
        """Build the servers' images where they are missing."""
        wanted = images.chosen(embedded=self.choice.embedded, loadtest=False)
        names = {self.choice.build.tag(image, self.bundle.version): image for image in wanted}
        present = docker_cli.images_present(*names)
        missing = [image for name, image in names.items() if name not in present or not self.holds_bundle(name)]
        if missing:
            images.build(self.bundle, missing, self.choice.build, self._artifacts)

    def holds_bundle(self, name: str) -> bool:
        """Whether an image holds this bundle: another one may have had the same model's version."""
        label = '{{index .Config.Labels "dev.tandem.bundle.digest"}}'
        return docker_cli.docker("image", "inspect", "--format", label, name).stdout.strip() == (
            f"sha256:{self.bundle.digest}"
        )

    def configure(self, stack: str, profile: ServingProfile) -> images.configuration.Rendering:
        """Render a server's configuration into the folder that its container mounts; returns the rendering."""
        engine = self.choice.engine(stack)
        cores = len(self.server_cores) or len(os.sched_getaffinity(0))
        return images.render(self.bundle, engine, profile, self.config / engine, cores=cores)

    def start_alone(self, stack: str) -> None:
        """Have a fresh container of this stack's server, and the other stack's stopped."""
        others = [self.choice.engine(other) for other in STACKS if other != stack]
        self.compose.run("stop", *others, doing="docker compose stop")
        engine = self.choice.engine(stack)
        self.compose.run("up", "-d", "--no-deps", "--force-recreate", engine, doing="docker compose up")

    def target(self, stack: str, rendering: images.configuration.Rendering | None = None) -> Target:
        """A running server as clients on this machine see it.

        At its container's own address, where that can be reached: the published ports lead through Docker's proxy
        process, which would be measured, too.
        """
        engine = self.choice.engine(stack)
        rendering = rendering or self.configure(stack, ServingProfile())
        inside = layout.PORTS[engine]
        address = self.address(engine)
        notes = list(rendering.notes)
        if address and ports.answers(address, inside.grpc):
            grpc, rest, metrics = (f"{address}:{port}" for port in (inside.grpc, inside.rest, inside.metrics))
        else:
            notes.append("Containers cannot be reached at their own address: requests pass through Docker's proxy.")
            prefix = "TANDEM_TORCHSERVE" if stack == "pytorch" else "TANDEM_TENSORFLOW"
            published = {kind: self.ports.get(f"{prefix}_{kind}_PORT", 0) for kind in ("GRPC", "REST", "METRICS")}
            grpc, rest, metrics = (
                f"{ports.LOOPBACK}:{port}"
                for port in (published["GRPC"], published["REST"], published["METRICS"] or published["REST"])
            )
        path = "/metrics" if stack == "pytorch" else tensorflow_serving.METRICS_PATH
        return Target(
            name=stack,
            engine=engine,
            engine_version=self._engine_version(stack),
            runtime="container",
            model=self.bundle.model,
            version=self.bundle.version,
            input_shape=self.bundle.input_shape,
            classes=self.bundle.classes,
            grpc=grpc,
            rest=rest,
            metrics=f"http://{metrics}{path}",
            cores=self.server_cores,
            settings=rendering.settings,
            notes=tuple(notes),
        )

    def address(self, service: str) -> str | None:
        """The IP address of a service's running container."""
        state = self.inspect(service)
        networks = (state or {}).get("NetworkSettings", {}).get("Networks", {})
        return next((one["IPAddress"] for one in networks.values() if one["IPAddress"]), None)

    def inspect(self, service: str) -> dict[str, Any] | None:
        """What Docker knows of a service's container; None where it has none."""
        container = self.compose.container(service)
        if container is None:
            return None
        done = docker_cli.docker("inspect", container, check=False)
        return json.loads(done.stdout)[0] if done.returncode == 0 else None

    def wait_until_healthy(self, services: Iterable[str], timeout_s: float = READY_S) -> None:
        """Return when every service's health check passes. Raises `Problem`, with a container's last log lines, where
        one ends, restarts, or does not get there."""
        deadline = time.monotonic() + timeout_s
        waiting = list(services)
        while waiting:
            for service in list(waiting):
                state = self.inspect(service)
                status = (state or {}).get("State", {})
                if state is None or status.get("Status") in ("exited", "dead") or state["RestartCount"]:
                    raise Problem(f"{service} does not stay up", self.last_lines(service))
                if status["Health"]["Status"] == "healthy":
                    waiting.remove(service)
            if time.monotonic() > deadline:
                raise Problem(f"{waiting[0]} is not healthy after {timeout_s:g} s", self.last_lines(waiting[0]))
            if waiting:
                time.sleep(0.5)

    def last_lines(self, service: str, count: int = 15) -> list[str]:
        """The last lines of a container's log."""
        return self.logs(service).splitlines()[-count:]

    def logs(self, service: str) -> str:
        """A container's log, as far as Docker keeps it."""
        container = self.compose.container(service)
        if container is None:
            return ""
        done = docker_cli.docker("logs", container, check=False)
        return done.stdout + done.stderr

    def require_ports(self) -> None:
        """Raise `Problem` where a port that a service of this stack will publish is taken by somebody else."""
        services = self.choice.services
        for name, (_, service, purpose) in PORTS.items():
            wanted = self.choice.engine("tensorflow") if service == "tensorflow" else service
            if wanted in services and self.compose.container(wanted) is None:
                port = self.ports[name]
                try:
                    ports.require_free(port, purpose)
                except Problem:
                    raise Problem(
                        f"port {port} for {purpose} is taken: stop what uses it (ss -ltnp shows it), or choose "
                        f"another: {name}=... make up"
                    ) from None

    def _variables(self) -> dict[str, str]:
        every = sorted(os.sched_getaffinity(0))
        servers, beside = self.server_cores or every, self.generator_cores or every
        version = str(self.bundle.version)
        return {
            **base_images.variables(digests=self.choice.build.digests),
            **{name: str(port) for name, port in self.ports.items()},
            "TANDEM_REGISTRY": self.choice.build.registry,
            "TANDEM_VERSION": version,
            "TANDEM_TAG": f"{version}-gpu" if self.choice.gpu else version,
            "TANDEM_CONFIG": str(self.config),
            "TANDEM_SERVER_CPUS": str(len(servers)),
            "TANDEM_SERVER_CPUSET": ",".join(map(str, servers)),
            "TANDEM_SERVER_MEMORY": self.choice.memory,
            "TANDEM_BESIDE_CPUS": str(len(beside)),
            "TANDEM_GENERATOR_CPUSET": ",".join(map(str, beside)),
        }

    def _write_variables(self) -> None:
        """So that Compose can be used by hand."""
        lines = [f"{name}={value}" for name, value in self.compose.variables.items()]
        (self.folder / "compose.env").write_text("\n".join(lines) + "\n")

    def _write_scrape_targets(self) -> None:
        entries = []
        for stack in STACKS:
            engine = self.choice.engine(stack)
            labels = {"server": engine}
            if stack == "tensorflow":
                labels["__metrics_path__"] = tensorflow_serving.METRICS_PATH
            entries.append({"targets": [f"{engine}:{layout.PORTS[engine].metrics}"], "labels": labels})
        folder = self.config / "prometheus"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "serving.json").write_text(json.dumps(entries, indent=2) + "\n")

    def _engine_version(self, stack: str) -> str:
        from importlib.metadata import version

        if stack == "pytorch":
            return f"{version('torchserve')} (torch {version('torch').partition('+')[0]})"
        if self.choice.embedded:
            return f"tensorflow {version('tensorflow')}"
        name = "TENSORFLOW_SERVING_GPU" if self.choice.gpu else "TENSORFLOW_SERVING"
        return base_images.variables()[f"{name}_IMAGE"].rpartition(":")[2]


def down(artifacts: Path, project: str | None = None) -> list[str]:
    """Stop a project and remove its containers, networks and volumes; returns what was there. Raises `Problem`."""
    docker_cli.require_engine()
    project = project or os.environ.get("COMPOSE_PROJECT_NAME") or PROJECT
    before = left(project)
    # Compose wants every variable, though nothing of them matters here; profiles are named, or v1 leaves theirs.
    variables = {**base_images.variables(), "COMPOSE_PROFILES": "embedded,loadtest,gpu"}
    Compose(project, compose_files(gpu=True), variables).run(
        "down", "--volumes", "--remove-orphans", doing="docker compose down"
    )
    folder = artifacts / "containers"
    (folder / "targets.json").unlink(missing_ok=True)
    if project != PROJECT:
        shutil.rmtree(folder / project, ignore_errors=True)
    if still := left(project):
        raise Problem(f"still there: {', '.join(still)}; remove them with docker")
    return before


def left(project: str) -> list[str]:
    """The containers, networks and volumes of a project, by kind and name."""
    found = []
    label = f"label=com.docker.compose.project={project}"
    for kind, command in (
        ("container", ("ps", "--all", "--format", "{{.Names}}")),
        ("network", ("network", "ls", "--format", "{{.Name}}")),
        ("volume", ("volume", "ls", "--format", "{{.Name}}")),
    ):
        names = docker_cli.docker(*command, "--filter", label).stdout.split()
        found += [f"{kind} {name}" for name in names]
    return found


def compose_files(gpu: bool) -> list[Path]:
    """The Compose files of a stack."""
    names = ["compose.yaml", *(["compose.gpu.yaml"] if gpu else [])]
    return [ROOT / "docker" / name for name in names]


def require_gpu() -> None:
    """Raise `Problem` where Docker cannot give a GPU to a container."""
    runtimes = docker_cli.docker("info", "--format", "{{json .Runtimes}}", check=False).stdout
    if "nvidia" not in runtimes and not shutil.which("nvidia-container-runtime"):
        raise Problem(
            "no GPU for containers: install NVIDIA's driver and the NVIDIA Container Toolkit "
            "(nvidia-ctk runtime configure --runtime=docker), or leave --gpu out"
        )


def describe(stack: Stack) -> str:
    """Where everything is, for people."""
    lines = []
    for name, (_, service, purpose) in PORTS.items():
        wanted = stack.choice.engine("tensorflow") if service == "tensorflow" else service
        if wanted in stack.choice.services:
            scheme = "" if "GRPC" in name else "http://"
            lines.append(f"  {purpose:<32} {scheme}localhost:{stack.ports[name]}")
    return "\n".join(lines)


def _port(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise Problem(f"{name}={text}: use a port from 1 to 65535")
    return int(text)
