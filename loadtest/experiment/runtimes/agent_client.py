"""A block of phases run by an agent elsewhere: followed through broken connections, its results brought home."""

from __future__ import annotations

import http.client
import io
import json
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from http import HTTPStatus
from pathlib import Path
from typing import Any

import msgspec

from loadtest.experiment import events, phases
from loadtest.experiment.events import Event, PhaseEnded, Tried
from loadtest.experiment.load_job import JobLost, LoadJob
from loadtest.experiment.phases import SearchPhase
from loadtest.experiment.records import Environment
from loadtest.experiment.run_folder import RunFolder
from models.bundle import sha256
from models.problem import Problem
from serving.replaced import Replaced

PATIENCE_S = 300.0  # without any answer
POLL_S = 0.5
# It is reached through a port-forward on this machine, whatever proxy HTTP_PROXY says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class AgentClient:
    """Speaks to the agent at ``address`` ("host:port"), for the run in folder ``run``."""

    def __init__(self, address: str, run: Path, *, patience_s: float = PATIENCE_S) -> None:
        self._url, self._run, self._patience_s = f"http://{address}", run, patience_s

    def environment(self) -> Environment:
        """Where the load comes from: `environment.of_generator` of that machine."""
        return msgspec.json.decode(self._ask("GET", "/environment")[0], type=Environment)

    def jobs(self) -> dict[str, str]:
        """The agent's jobs of this run, and their states."""
        known: dict[str, str] = json.loads(self._ask("GET", "/jobs")[0])
        return {job: state for job, state in known.items() if job.startswith(f"{self._run.name}.")}

    def run_phases(self, job: LoadJob, *, on_event: Callable[[Event], None], check: Callable[[], None]) -> None:
        """Like `generator_process.run_phases`, there. A phase's results are here before its end is reported, and those
        of a search's trial before it is.

        Interrupted, it leaves the job running: `collect` brings it home later. Where ``check`` raises `Replaced` the
        job is stopped: nobody wants the rest of it. Raises `Problem`, and `JobLost` where the agent has been replaced.
        """
        digest = sha256(job.reference)
        name = f"{self._run.name}.{job.folder.name}"
        # Elsewhere a file goes by its content, and folders lie in another machine's copy of the run's.
        body = phases.encode(msgspec.structs.replace(job.moved(self._run, Path()), reference=Path(digest)))
        self._send_trials(name, job)
        try:
            self._ask("PUT", f"/jobs/{name}", body)
        except _ReferenceMissing:
            self._ask("PUT", f"/references/{digest}", job.reference.read_bytes())
            self._ask("PUT", f"/jobs/{name}", body)
        try:
            self._follow(name, on_event, check)
        except Replaced:
            self._ask("DELETE", f"/jobs/{name}")
            raise
        self._finish(name)

    def collect(self, say: Callable[[str], None], home: Callable[[str], None] = lambda _: None) -> int:
        """Bring home every job of this run, waiting for one that still runs; returns how many. `home`: is told each
        one's folder, below `generator/`. Raises `Problem`."""
        found = self.jobs()
        for job, begun in found.items():
            state = begun
            if state == "running":
                say(f"{job} still runs; waiting for its end")
            try:
                while state == "running":
                    time.sleep(POLL_S)
                    state = self.jobs().get(job, "")
                self._finish(job)
            except JobLost as lost:
                state = str(lost)
            home(job.removeprefix(f"{self._run.name}."))
            say(f"{job}: collected ({state.splitlines()[0]})")
        return len(found)

    def _send_trials(self, name: str, job: LoadJob) -> None:
        """What the job's searches have tried before: they go on from there, as they would on this machine."""
        searches = [phase.id for phase in job.phases if isinstance(phase, SearchPhase)]
        made = [folder for search in searches for folder in RunFolder(self._run).tried(search)]
        if made and name not in self.jobs():
            self._ask("PUT", f"/jobs/{name}/trials", _packed(made, self._run))

    def _follow(self, job: str, on_event: Callable[[Event], None], check: Callable[[], None]) -> None:
        position = 0
        while True:
            text, headers = self._of_job(f"/jobs/{job}/events?from={position}")
            position += len(text)
            for line in text.splitlines():
                event = events.decode(line)
                if isinstance(event, PhaseEnded | Tried):
                    self._fetch(job)
                on_event(event)
            state = str(json.loads(headers["X-State"]))
            if state == "ended":
                return
            if state.startswith(("failed", "lost")):
                self._finish(job)
                kind = JobLost if state.startswith("lost") else Problem
                message, *details = state.partition(": ")[2].splitlines()
                raise kind(message, details)
            check()
            time.sleep(POLL_S)

    def _finish(self, job: str) -> None:
        self._fetch(job)
        self._ask("DELETE", f"/jobs/{job}")

    def _fetch(self, job: str) -> None:
        packed, _ = self._of_job(f"/jobs/{job}/results")
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
            tar.extractall(self._run, filter="data")

    def _of_job(self, path: str) -> tuple[bytes, Any]:
        """What the agent has of a job that it was given."""
        try:
            return self._ask("GET", path)
        except _NotFound:
            raise JobLost(
                "the load generator's pod was replaced, and with it went what it had not sent home yet"
            ) from None

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[bytes, Any]:
        """One request, tried again while the connection is away; every request may safely come twice."""
        deadline = time.monotonic() + self._patience_s
        while True:
            request = urllib.request.Request(self._url + path, data=body, method=method)
            try:
                with _DIRECT.open(request, timeout=60) as answer:
                    return answer.read(), answer.headers
            except urllib.error.HTTPError as error:
                said = error.read().decode("utf-8", "replace")
                kind = _KINDS.get(error.code, Problem)
                raise kind(f"the load generator refuses {method} {path}: {_error(said)}") from None
            except (OSError, http.client.HTTPException) as error:
                if time.monotonic() > deadline:
                    raise Problem(
                        f"the load generator does not answer ({error}); what it measures goes on: "
                        f"make compare RUNTIME=kubernetes goes on from there"
                    ) from None
                time.sleep(POLL_S)


class _ReferenceMissing(Problem):
    """The agent does not have the job's reference yet."""


class _NotFound(Problem):
    """The agent does not have what is asked for."""


_KINDS: dict[int, type[Problem]] = {
    HTTPStatus.FAILED_DEPENDENCY: _ReferenceMissing,
    HTTPStatus.NOT_FOUND: _NotFound,
}


def _packed(folders: Iterable[Path], run: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for folder in folders:
            tar.add(folder, folder.relative_to(run).as_posix())
    return packed.getvalue()


def _error(text: str) -> str:
    try:
        return str(json.loads(text)["error"])
    except (ValueError, KeyError, TypeError):
        return text[:200]
