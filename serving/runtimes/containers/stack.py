"""The stack on Docker Compose: up, healthy, described."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.problem import Problem
from serving import ports
from serving.cores import split_cores
from serving.engines import variables
from serving.engines.engine import Engine, Rendering
from serving.profile import ServingProfile
from serving.runtimes.containers import (
    base_images,
    compose_project,
    docker_cli,
    images,
    program_line,
    published,
    servers,
)
from serving.runtimes.containers.docker_cli import Compose
from serving.runtimes.containers.images import Build
from serving.runtimes.containers.servers import container_of
from serving.target import Caveat, Target

if TYPE_CHECKING:
    from models.bundle import Bundle

READY_S = 180.0
USUAL_METRICS_PATH = "/metrics"  # Prometheus' default
MONITORING = ("alertmanager", "prometheus", "grafana")
REFUSAL = "error: "  # how the line begins in which our entry point says why it does not start the server


State = dict[str, Any]
"""What `docker inspect` says of a container."""


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

    @property
    def servers(self) -> dict[str, Engine]:
        """What is up where no experiment says it, by the names of their targets."""
        return servers.by_target(embedded=self.embedded)

    @property
    def services(self) -> list[str]:
        """The services to start, in order."""
        return [
            *(container_of(one).image for one in self.servers.values()),
            *(one for one in MONITORING if one not in self.without),
        ]


class Stack:
    """One Compose project for one bundle: its files are below ``artifacts``/containers."""

    def __init__(self, bundle: Bundle, choice: Choice, artifacts: Path, project: str | None = None) -> None:
        docker_cli.require_engine()
        self.bundle, self.choice, self._artifacts = bundle, choice, artifacts
        self.folder = (artifacts / "containers").resolve()
        self.project = compose_project.name(project)
        self.config = self.folder / (self.project if self.project != compose_project.DEFAULT else "config")
        self.server_cores, self.generator_cores = split_cores(sorted(os.sched_getaffinity(0)))
        self.ports = published.chosen()
        self.compose = Compose(self.project, compose_project.files(choice.gpu), self._variables())

    def up(self) -> None:
        """Build what is missing, start everything, and return when all of it is healthy; raises `Problem`."""
        if self.choice.gpu:
            require_gpu()
        self.require_ports()
        chosen = self.choice.servers
        self.require_images(chosen.values())
        renderings = {name: self.configure(engine, self.default_profile) for name, engine in chosen.items()}
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
        targets = []
        for name, engine in chosen.items():
            target = self.target(name, engine, self.default_profile, renderings[name])
            targets.append(self.as_it_says(target, engine, renderings[name]).to_dict())
        (self.folder / "targets.json").write_text(json.dumps(targets, indent=2) + "\n")

    @property
    def default_profile(self) -> ServingProfile:
        """What servers get where no experiment says it."""
        return ServingProfile(device="gpu" if self.choice.gpu else "cpu", precision=self.bundle.precision)

    def require_images(self, engines: Iterable[Engine]) -> None:
        """Build the images of these servers where they are missing."""
        names = {self.choice.build.tag(image, self.bundle.version): image for image in map(images.of, engines)}
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

    def configure(self, engine: Engine, profile: ServingProfile) -> Rendering:
        """Render a server's configuration into the folder that its container mounts; returns the rendering."""
        cores = len(self.server_cores) or len(os.sched_getaffinity(0))
        return images.render(self.bundle, engine, profile, self.config, cores=cores)

    def start_alone(self, engine: Engine) -> None:
        """Have a fresh container of this engine's server, and every other server's stopped."""
        service = container_of(engine).image
        others = [one for one in self.servers_with_container() if one != service]
        if others:
            self.compose.run("stop", *others, doing="docker compose stop")
        self.compose.run("up", "-d", "--no-deps", "--force-recreate", service, doing="docker compose up")

    def servers_with_container(self) -> list[str]:
        """The services of servers that have a container, running or not."""
        known = [container_of(one).image for one in servers.engines()]
        return [service for service in known if self.compose.container(service)]

    def target(self, name: str, engine: Engine, profile: ServingProfile, rendering: Rendering) -> Target:
        """A running server as clients on this machine see it; ``rendering``: what it was given of ``profile``.

        At its container's own address, where that can be reached: the published ports lead through Docker's proxy
        process, which would be measured, too.
        """
        container = container_of(engine)
        inside = container.ports
        address = self.address(container.image)
        caveats: tuple[Caveat, ...] = ()
        if address and ports.answers(address, inside.grpc):
            grpc, rest, metrics = (f"{address}:{port}" for port in (inside.grpc, inside.rest, inside.metrics))
        else:
            caveats = (Caveat.DOCKER_PROXY,)
            outside = {one.port: f"{ports.LOOPBACK}:{self.ports[one.variable]}" for one in container.published}
            grpc, rest, metrics = (outside[port] for port in (inside.grpc, inside.rest, inside.metrics))
        return Target(
            name=name,
            engine=engine.id,
            engine_version=self._engine_version(engine),
            runtime="container",
            model=self.bundle.model,
            version=self.bundle.version,
            input_shape=self.bundle.input_shape,
            classes=self.bundle.classes,
            grpc=grpc,
            rest=rest,
            metrics=f"http://{metrics}{engine.metrics_path}",
            cores=self.server_cores,
            backend=rendering.backend,
            knobs=rendering.knobs,
            max_batch_size=profile.max_batch_size,
            precision=profile.precision,
            encoding=self.bundle.encoding,
            caveats=caveats,
        )

    def as_it_says(self, target: Target, engine: Engine, rendering: Rendering) -> Target:
        """A `target` that is ready, with what its log says of its program's version and of the switches in force, and
        the variables that its container has and ``rendering`` adds."""
        service = container_of(engine).image
        pairs = (self.inspect(service) or {}).get("Config", {}).get("Env") or []
        environment = {name: value for name, _, value in (pair.partition("=") for pair in pairs)}
        log = self.logs(service)
        found = variables.in_force({**environment, **rendering.environment})
        return replace(
            target,
            engine_version=program_line.version(log) or target.engine_version,
            switches=(*engine.in_force(log), *found),
        )

    def address(self, service: str) -> str | None:
        """The IP address of a service's running container."""
        state = self.inspect(service)
        networks = (state or {}).get("NetworkSettings", {}).get("Networks", {})
        return next((one["IPAddress"] for one in networks.values() if one["IPAddress"]), None)

    def inspect(self, service: str) -> State | None:
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
                    raise self.fallen(service)
                if status["Health"]["Status"] == "healthy":
                    waiting.remove(service)
            if time.monotonic() > deadline:
                raise Problem(f"{waiting[0]} is not healthy after {timeout_s:g} s", self.last_lines(waiting[0]))
            if waiting:
                time.sleep(0.5)

    def fallen(self, service: str) -> Problem:
        """Why a container does not stay up: in the words of our entry point where it refused, else its last lines."""
        lines = self.last_lines(service)
        refusals = [line for line in lines if line.startswith(REFUSAL)]
        if refusals:
            return Problem(f"{service}: {refusals[-1].removeprefix(REFUSAL)}")
        return Problem(f"{service} does not stay up", lines)

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
        for one in published.known():
            service = one.by(self.choice.services)
            if service and self.compose.container(service) is None:
                published.require_free(one, self.ports[one.variable])

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
        for engine in self.choice.servers.values():
            container = container_of(engine)
            labels = {"server": engine.id}
            if engine.metrics_path != USUAL_METRICS_PATH:
                labels["__metrics_path__"] = engine.metrics_path
            entries.append({"targets": [f"{container.image}:{container.ports.metrics}"], "labels": labels})
        folder = self.config / "prometheus"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "serving.json").write_text(json.dumps(entries, indent=2) + "\n")

    def _engine_version(self, engine: Engine) -> str:
        known = base_images.variables()
        bases = images.of(engine).bases(gpu=self.choice.gpu).values()
        tags = [known[f"{base}_IMAGE"].rpartition(":")[2] for base in bases]
        return container_of(engine).version(next(iter(tags), ""))


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
    shown = [one for one in published.known() if one.by(stack.choice.services)]
    return "\n".join(f"  {one.purpose:<32} {one.url(stack.ports[one.variable])}" for one in shown)
