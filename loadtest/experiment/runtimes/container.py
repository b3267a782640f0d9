"""Runtime "container": the servers of a Compose stack, one at a time, each block on a fresh container."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from loadtest.experiment.observation import Prometheus
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.parity_gate import ParityGate
from models.bundle import Bundle
from models.problem import Problem
from serving.profile import ServingProfile
from serving.runtimes.containers import docker_cli
from serving.runtimes.containers.stack import Stack, left
from serving.runtimes.process import launch
from serving.runtimes.process.server_process import ServerProcess
from serving.target import STACKS, Target

READY_S = 120.0
# A container that is killed comes back by its restart policy; one that does not is the end of the run.
BACK_S = 60.0


class ContainerTargets:
    """The stack's servers under this experiment's profile; the load generator is a process on the host's other cores.

    Containers get the profile through their mounted configuration. What was up before the run is up after it.
    """

    def __init__(
        self,
        folder: RunFolder,
        bundle: Bundle,
        profile: ServingProfile,
        protocols: Sequence[str],
        stack: Stack,
    ) -> None:
        self.server_cores, self.generator_cores = stack.server_cores, stack.generator_cores
        self._folder, self._profile, self._stack = folder, profile, stack
        self._parity_gate = ParityGate(folder, [bundle], protocols)
        self._prometheus: Prometheus | None = None
        self._in_use: _InUse | None = None
        self._up_before: list[str] | None = None

    def observe(self, prometheus: Prometheus | None) -> None:
        self._prometheus = prometheus

    def use(self, stack: str, now: Callable[[str], None]) -> None:
        if self._in_use and self._in_use.target.name == stack:
            return
        self._leave()
        if self._up_before is None:
            self._up_before = [one for one in self._engines() if _is_up(self._stack.inspect(one))]
            self._stack.require_images()
        rendering = self._stack.configure(stack, self._profile)
        folder = self._folder.new_folder("servers", stack)
        engine = self._stack.choice.engine(stack)
        folder.mkdir(parents=True)
        for file in (self._stack.config / engine).iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        now(f"{stack}: starting its container")
        self._stack.start_alone(stack)
        target = self._wait_until_it_answers(stack, rendering)
        target.save(folder / "target.json")
        state = self._stack.inspect(engine) or {}
        self._in_use = _InUse(target, engine, state.get("Id", ""), folder, self._folder)
        if self._prometheus:
            self._prometheus.watch_server(target, int(state["State"]["Pid"]) or None)
        self._parity_gate.prove(target, now)

    def target(self, stack: str) -> Target:
        assert self._in_use is not None
        return self._in_use.target

    def check(self) -> None:
        if self._in_use:
            self._in_use.check()

    def stop(self) -> None:
        """Bring back what was up before the run; remove the containers that were not there."""
        self._leave()
        if self._up_before is None:
            return
        engines = list(self._engines())
        if self._up_before:
            for stack in STACKS:
                self._stack.configure(stack, ServingProfile(device=self._profile.device))
            self._stack.compose.run("up", "-d", "--no-deps", "--force-recreate", *self._up_before)
        gone = [engine for engine in engines if engine not in self._up_before]
        if gone:
            self._stack.compose.run("rm", "--stop", "--force", *gone)
            if not any(one.startswith("container ") for one in left(self._stack.project)):
                self._stack.compose.run("down")  # its network
        self._up_before = None

    def _engines(self) -> list[str]:
        return [self._stack.choice.engine(stack) for stack in STACKS]

    def _leave(self) -> None:
        if self._in_use:
            (self._in_use.folder / "server.log").write_text(self._stack.logs(self._in_use.engine))
            self._in_use.close()
            self._in_use = None

    def _wait_until_it_answers(self, stack: str, rendering: Any) -> Target:
        engine = self._stack.choice.engine(stack)
        deadline = time.monotonic() + READY_S
        target: Target | None = None
        while True:
            state = self._stack.inspect(engine)
            if state is None or state["State"]["Status"] in ("exited", "dead") or state["RestartCount"]:
                raise Problem(f"{engine} does not stay up", self._stack.last_lines(engine))
            # Only a server that answers shows which of its addresses this machine reaches.
            target = self._stack.target(stack, rendering)
            if launch.answers(target):
                return target
            if time.monotonic() > deadline:
                raise Problem(f"{engine} does not answer after {READY_S:g} s", self._stack.last_lines(engine))
            time.sleep(0.2)


class _InUse:
    """The container under load, and Docker's events about it: a death is recorded with the gap that it leaves."""

    def __init__(self, target: Target, engine: str, container: str, folder: Path, run: RunFolder) -> None:
        self.target, self.engine, self.folder, self._run = target, engine, folder, run
        self._died: dict[str, Any] | None = None
        command = [docker_cli.program(), "events", "--format", "{{json .}}", "--filter", f"container={container}"]
        command += ["--filter", "event=die"]
        self._events = ServerProcess("docker events", command, folder / "events.jsonl")
        self._lines: IO[str] = (folder / "events.jsonl").open()

    def check(self) -> None:
        """Note a death, and how long it lasted; raises `Problem` where the container does not come back."""
        line = self._lines.readline()
        if line.startswith("{") and self._died is None:
            event = json.loads(line)
            self._died = {
                "stack": self.target.name,
                "engine": self.engine,
                "died_at": event["timeNano"] / 1e9,
                "exit_status": int(event["Actor"]["Attributes"].get("exitCode", -1)),
            }
        if self._died is None:
            return
        gap = time.time() - self._died["died_at"]
        if launch.answers(self.target, timeout_s=0.2):
            self._record({**self._died, "gap_s": round(gap, 2)})
            self._died = None
        elif gap > BACK_S:
            raise Problem(f"{self.engine} died and was not back after {BACK_S:g} s")

    def close(self) -> None:
        """Stop listening to Docker."""
        self._events.stop()
        self._lines.close()

    def _record(self, gap: dict[str, Any]) -> None:
        self._run.write("gaps.json", [*self._run.read("gaps.json", []), gap])
        at = datetime.fromtimestamp(gap["died_at"]).strftime("%H:%M:%S")
        how = f"exit status {gap['exit_status']}"
        text = f"{self.engine} died at {at} ({how}) and answered again after {gap['gap_s']} s"
        known = self._run.read("environment.json")
        if known:
            known["warnings"].append(text)
            self._run.write("environment.json", known)


def _is_up(state: dict[str, Any] | None) -> bool:
    return bool(state) and state["State"]["Status"] == "running"  # type: ignore[index]
