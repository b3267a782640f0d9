"""Runtime "container": the servers of a Compose stack, one at a time, each block on a fresh container."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

from loadtest.experiment.file import Experiment
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.parity_gate import ParityGate
from models import child_environment
from models.bundle import Bundle
from models.problem import Problem
from serving.engines import registry
from serving.engines.engine import Engine, Rendering
from serving.profile import ServingProfile
from serving.replaced import Replaced, Successor
from serving.runtimes.answering import Awaited
from serving.runtimes.containers import docker_cli, servers
from serving.runtimes.containers.compose_project import left
from serving.runtimes.containers.servers import container_of
from serving.runtimes.containers.stack import Stack, State
from serving.runtimes.process.server_process import ServerProcess
from serving.target import Target
from serving.this_machine import boot_id

READY_S = 120.0


def engines(experiment: Experiment, *, embedded: bool) -> dict[str, Engine]:
    """What runs for each target of an experiment; ``embedded``: with what stands in for one. Raises `Problem` where an
    engine has no container."""
    found = {}
    for spec in experiment.targets:
        found[spec.name] = servers.in_place_of(registry.engine(spec.engine), embedded=embedded)
        container_of(found[spec.name])
    return found


class ContainerTargets:
    """The stack's servers, each under its target's profile; the load generator is a process on the host's other cores.

    Containers get the profile through their mounted configuration: two targets of one engine are its container, started
    afresh with another one. What was up before the run is up after it.
    """

    def __init__(self, folder: RunFolder, bundle: Bundle, experiment: Experiment, stack: Stack) -> None:
        """Raises `Problem` where an engine of the experiment has no container."""
        self.server_cores, self.generator_cores = stack.server_cores, stack.generator_cores
        self._folder, self._experiment, self._stack = folder, experiment, stack
        self._engines = engines(experiment, embedded=stack.choice.embedded)
        self._parity_gate = ParityGate(folder, [bundle], experiment.protocols)
        self._prometheus: Prometheus | None = None
        self._in_use: _InUse | None = None
        self._up_before: list[str] | None = None

    def observe(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    def use(self, name: str, now: Callable[[str], None], offset: int = 0) -> None:  # noqa: ARG002 - as the protocol has it
        self._leave()
        if self._up_before is None:
            there = self._stack.servers_with_container()
            self._up_before = [service for service in there if _is_up(self._stack.inspect(service))]
            self._stack.require_images({one.id: one for one in self._engines.values()}.values())
        engine = self._engines[name]
        service = container_of(engine).image
        profile = self._experiment.profile_of(name)
        rendering = self._stack.configure(engine, profile)
        folder = self._folder.new_folder("servers", name)
        folder.mkdir(parents=True)
        for file in (self._stack.config / service).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        now(f"{name}: starting its container")
        self._stack.start_alone(engine)
        target = self._wait_until_it_answers(name, engine, profile, rendering)
        target = self._stack.as_it_says(target, engine, rendering)
        state = self._stack.inspect(service) or {}
        pid = int(state["State"]["Pid"])
        target = replace(target, machine=boot_id() if pid else "", process=pid, instance=_instance(state))
        target.save(folder / "target.json")
        self._in_use = _InUse(target, service, state.get("Id", ""), folder)
        if self._prometheus:
            self._prometheus.watch_server(target, pid or None)
        self._parity_gate.prove(target, now)

    def target(self, name: str) -> Target:  # noqa: ARG002 - as the protocol has it
        assert self._in_use is not None
        return self._in_use.target

    def check(self, *, fresh: bool = False) -> None:
        if self._in_use is None:
            return
        self._in_use.check()
        if fresh:
            service, target = self._in_use.service, self._in_use.target
            if _instance(self._stack.inspect(service) or {}) != target.instance:
                raise Replaced(Successor.CONTAINER, f"target.{target.name}: {service} has another container")

    def stop(self) -> None:
        """Bring back what was up before the run; remove the containers that were not there."""
        self._leave()
        if self._up_before is None:
            return
        ours = {container_of(one).image: one for one in self._engines.values()}
        again = [service for service in self._up_before if service in ours]
        if again:
            device = self._experiment.profile.device
            for service in again:
                self._stack.configure(
                    ours[service], ServingProfile(device=device, precision=self._stack.bundle.precision)
                )
            self._stack.compose.run("up", "-d", "--no-deps", "--force-recreate", *again)
        if others := [service for service in self._up_before if service not in ours]:
            self._stack.compose.run("start", *others)
        gone = [service for service in self._stack.servers_with_container() if service in ours and service not in again]
        if gone:
            self._stack.compose.run("rm", "--stop", "--force", *gone)
            if not any(one.startswith("container ") for one in left(self._stack.project)):
                self._stack.compose.run("down")  # its network
        self._up_before = None

    def _leave(self) -> None:
        if self._in_use:
            (self._in_use.folder / "server.log").write_text(self._stack.logs(self._in_use.service))
            self._in_use.close()
            self._in_use = None

    def _wait_until_it_answers(
        self, name: str, engine: Engine, profile: ServingProfile, rendering: Rendering
    ) -> Target:
        service = container_of(engine).image
        deadline = time.monotonic() + READY_S
        awaited = Awaited()
        target: Target | None = None
        while True:
            state = self._stack.inspect(service)
            if state is None or state["State"]["Status"] in ("exited", "dead") or state["RestartCount"]:
                raise self._stack.fallen(service)
            # Only a server that answers shows which of its addresses this machine reaches.
            target = self._stack.target(name, engine, profile, rendering)
            try:
                if awaited.answers(target):
                    return target
            except Problem as problem:
                raise Problem(str(problem), self._stack.last_lines(service)) from None
            if time.monotonic() > deadline:
                raise Problem(f"{service} does not answer after {READY_S:g} s", self._stack.last_lines(service))
            time.sleep(0.2)


class _InUse:
    """The container under load, and Docker's events about it: what comes back after a death is another server."""

    def __init__(self, target: Target, service: str, container: str, folder: Path) -> None:
        self.target, self.service, self.folder = target, service, folder
        command = [docker_cli.program(), "events", "--format", "{{json .}}", "--filter", f"container={container}"]
        command += ["--filter", "event=die"]
        self._events = ServerProcess(
            "docker events", command, folder / "events.jsonl", environment=child_environment.tool()
        )
        self._lines: IO[str] = (folder / "events.jsonl").open()

    def check(self) -> None:
        """Raise `Replaced` where the container has died, which its restart policy brings back."""
        line = self._lines.readline()
        if line.startswith("{"):
            status = int(json.loads(line)["Actor"]["Attributes"].get("exitCode", -1))
            message = f"target.{self.target.name}: the container of {self.service} died (exit status {status})"
            raise Replaced(Successor.CONTAINER, message, exit_status=status)

    def close(self) -> None:
        """Stop listening to Docker."""
        self._events.stop()
        self._lines.close()


def _instance(state: State) -> str:
    """What tells what runs in a container from what did before: its id, and when it was started."""
    return f"{state['Id']}@{state['State']['StartedAt']}" if state else ""


def _is_up(state: State | None) -> bool:
    return state is not None and state["State"]["Status"] == "running"
