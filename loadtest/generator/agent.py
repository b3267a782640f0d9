"""The load generator as a service beside the servers: it takes a block of phases, runs it, and keeps the results.

    python -m loadtest.generator.agent --port 9647 --results /results

    GET    /healthz                    200 while it can take work
    GET    /environment                where it runs, as `environment.of_generator` says
    GET    /jobs                       {id: state}; state: running, ended, failed: and why, or lost: and why
    PUT    /references/SHA256          the reference images of a bundle (a NumPy archive)
    PUT    /jobs/ID/trials             before that: a tar of what its searches have tried already
    PUT    /jobs/ID                    start a `LoadJob` whose folders are relative and whose `reference` is a SHA-256;
                                       again: the same job
    GET    /jobs/ID/events?from=BYTE   progress, one JSON object a line; header X-State
    GET    /jobs/ID/results            what is there so far: a tar of the phases' folders
    DELETE /jobs/ID                    stop it, and forget it

A job goes on whether or not anybody listens. One at a time: two would disturb each other. Nobody reaches the port but
by a port-forward, which the cluster authorises.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import io
import json
import re
import shutil
import signal
import sys
import tarfile
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec

from loadtest.experiment import environment, events, phases
from loadtest.experiment.events import Event
from loadtest.experiment.generator_process import run_phases
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.verb import Verb
from models import whole_file
from models.problem import Problem

MAX_REFERENCE_BYTES = 2**30
ID = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=9647)
    parser.add_argument(
        "--results", type=Path, default=Path("results/agent"), help="where results wait for their owner"
    )
    parser.add_argument("--master-port", type=int, default=5557, help="where Locust's workers come to")
    parser.add_argument("--exporter-port", type=int, default=9646, help="the load generator's metrics")


def _agent(options: argparse.Namespace) -> int:
    ports = {"master_port": options.master_port, "exporter_port": options.exporter_port}
    serve(options.host, options.port, options.results, **ports)
    return 0


class ReferenceMissing(Problem):
    """A job's reference is not here."""


class Stopped(Problem):
    """Somebody deleted the job."""


class Agent:
    """The jobs, each a folder in `results`; one runs at a time."""

    def __init__(self, results: Path, *, master_port: int, exporter_port: int) -> None:
        self._results = results.absolute()  # Locust works in another folder
        self._master_port, self._exporter_port = master_port, exporter_port
        self._lock = threading.Lock()
        self._running: str | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        (results / "references").mkdir(parents=True, exist_ok=True)

    def jobs(self) -> dict[str, str]:
        """Every job's state, oldest first."""
        folders = sorted(self._results.glob("jobs/*/job.json"), key=lambda path: path.stat().st_mtime)
        return {path.parent.name: self.state(path.parent.name) or "" for path in folders}

    def state(self, job: str) -> str | None:
        """running, ended, failed and why, or lost where this program was started anew under it; None for a job that is
        not known."""
        folder = self.folder(job)
        if (folder / "state.txt").exists():
            return (folder / "state.txt").read_text()
        if self._running == job:
            return "running"
        return "lost: the load generator was started anew" if (folder / "job.json").exists() else None

    def folder(self, job: str) -> Path:
        """A job's folder; `run` in it takes the place of the run's folder."""
        return self._results / "jobs" / job

    def reference(self, digest: str) -> Path:
        """Where the reference with this SHA-256 is, or will be."""
        return self._results / "references" / f"{digest}.npz"

    def keep_reference(self, digest: str, content: bytes) -> bool:
        """Keep a reference; False where the content is another."""
        if hashlib.sha256(content).hexdigest() != digest:
            return False
        whole_file.write_bytes(self.reference(digest), content)
        return True

    def start(self, job: str, load: LoadJob) -> str:
        """Start a job, or find it started; returns its state. Raises `Problem` where that cannot be."""
        with self._lock:
            if known := self.state(job):
                return known
            if self._running:
                raise Problem(f"job {self._running} runs: collect it, or wait for its end")
            reference = self.reference(str(load.reference))
            if not reference.exists():
                raise ReferenceMissing(f"reference {load.reference} is not here: PUT it first")
            folder = self.folder(job)
            (folder / "run").mkdir(parents=True, exist_ok=True)
            whole_file.write_bytes(folder / "job.json", phases.encode(load))
            generator = dataclasses.replace(load.generator, port=self._master_port)
            here = msgspec.structs.replace(
                load.moved(Path(), folder / "run"),
                reference=reference,
                generator=generator,
                exporter_port=self._exporter_port,
                cores=(),
            )
            self._running = job
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, args=(job, here), daemon=True)
            self._thread.start()
            return "running"

    def keep_trials(self, job: str, packed: bytes) -> bool:
        """Take what the searches of a job to come had tried before; False where the job is known already."""
        with self._lock:
            if self.state(job):
                return False
            folder = self.folder(job) / "run"
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            with tarfile.open(fileobj=io.BytesIO(packed), mode="r:gz") as tar:
                tar.extractall(folder, filter="data")
            return True

    def delete(self, job: str) -> None:
        """Stop a job where it runs, and forget it."""
        if self._running == job and self._thread:
            self._stop.set()
            self._thread.join()
        shutil.rmtree(self.folder(job), ignore_errors=True)

    def close(self) -> None:
        """Stop whatever runs."""
        if self._running:
            self._stop.set()
            assert self._thread
            self._thread.join()

    def _run(self, job: str, load: LoadJob) -> None:
        folder = self.folder(job)
        state = "ended"
        try:
            with (folder / "events.jsonl").open("a", buffering=1) as lines:

                def note(event: Event) -> None:
                    print(events.encode(event), file=lines, flush=True)

                run_phases(load, on_event=note, check=self._check)
        except Problem as problem:
            state = "\n".join([f"failed: {problem}", *problem.details])
        except Exception as failure:  # whatever it is, the client should read it
            state = f"failed: {type(failure).__name__}: {failure}"
        # Its client has the files in a folder of its own, where they are brought to.
        (folder / "state.txt").write_text(state.replace(f"{folder / 'run'}/", "RUN/"))
        self._running = None

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped("stopped by its owner")

    def results(self, job: str) -> bytes:
        """A tar of what the job has written so far, without files that are still being written."""
        packed = io.BytesIO()
        folder = self.folder(job) / "run"
        with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
            for path in sorted(folder.rglob("*")):
                below = path.relative_to(folder)
                if path.is_file() and not any(part.startswith(".") for part in below.parts):
                    tar.add(path, below.as_posix())
        return packed.getvalue()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    agent: Agent

    def log_message(self, *_: object) -> None:
        """Probes ask every few seconds: no line for each."""

    def do_GET(self) -> None:
        """See the module."""
        url = urlsplit(self.path)
        if url.path == "/healthz":
            return self._send(200, b"ok\n")
        if url.path == "/environment":
            return self._json(200, msgspec.to_builtins(environment.of_generator(())))
        if url.path == "/jobs":
            return self._json(200, self.agent.jobs())
        found = re.fullmatch(rf"/jobs/({ID})/(events|results)", url.path)
        state = self.agent.state(found[1]) if found else None
        if not found or state is None:
            return self._json(404, {"error": f"{url.path}: nothing of that name"})
        if found[2] == "results":
            return self._send(200, self.agent.results(found[1]), kind="application/gzip")
        start = int(parse_qs(url.query).get("from", ["0"])[0])
        path = self.agent.folder(found[1]) / "events.jsonl"
        with path.open("rb") if path.exists() else io.BytesIO() as lines:
            lines.seek(start)
            text = lines.read()
        return self._send(200, text[: text.rfind(b"\n") + 1], {"X-State": json.dumps(state)})

    def do_PUT(self) -> None:
        """See the module."""
        length = int(self.headers.get("Content-Length", 0))
        if length > MAX_REFERENCE_BYTES:
            return self._json(413, {"error": f"{length} bytes: at most {MAX_REFERENCE_BYTES}"})
        body = self.rfile.read(length)
        if len(body) < length:  # the client went away
            return self._json(400, {"error": "the request was cut off"})
        if found := re.fullmatch(r"/references/([0-9a-f]{64})", self.path):
            there = self.agent.keep_reference(found[1], body)
            return self._json(201 if there else 400, {} if there else {"error": "another SHA-256"})
        if found := re.fullmatch(rf"/jobs/({ID})/trials", self.path):
            return self._trials(found[1], body)
        if found := re.fullmatch(rf"/jobs/({ID})", self.path):
            return self._start(found[1], body)
        return self._json(404, {"error": self.path})

    def _trials(self, job: str, body: bytes) -> None:
        try:
            kept = self.agent.keep_trials(job, body)
        except (tarfile.TarError, OSError, EOFError) as error:
            return self._json(400, {"error": f"no trials: {error!r}"})
        return self._json(201 if kept else 409, {} if kept else {"error": f"job {job} is known already"})

    def _start(self, job: str, body: bytes) -> None:
        try:
            self._json(201, {"state": self.agent.start(job, phases.decode(body, LoadJob))})
        except ReferenceMissing as problem:
            self._json(HTTPStatus.FAILED_DEPENDENCY, {"error": str(problem)})
        except Problem as problem:
            self._json(409, {"error": str(problem)})
        except ValueError as error:
            self._json(400, {"error": f"no job: {error!r}"})

    def do_DELETE(self) -> None:
        """See the module."""
        found = re.fullmatch(rf"/jobs/({ID})", self.path)
        if found:
            self.agent.delete(found[1])
        self._json(200 if found else 404, {})

    def _json(self, code: int, values: Any) -> None:
        self._send(code, json.dumps(values).encode(), kind="application/json")

    def _send(
        self, code: int, body: bytes, headers: dict[str, str] | None = None, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        self.send_response(code)
        for name, value in {**(headers or {}), "Content-Type": kind, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def server(agent: Agent, host: str, port: int) -> ThreadingHTTPServer:
    """The service, ready to `serve_forever`; port 0 picks a free one."""
    made = ThreadingHTTPServer((host, port), type("Handler", (_Handler,), {"agent": agent}))
    made.daemon_threads = True
    return made


def serve(host: str, port: int, results: Path, *, master_port: int, exporter_port: int) -> None:
    """Serve until interrupted; what runs then is stopped."""
    agent = Agent(results, master_port=master_port, exporter_port=exporter_port)
    service = server(agent, host, port)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        service.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        service.server_close()
        agent.close()


VERB = Verb(
    "agent",
    "be the load generator of a cluster: run what a client sends, keep results",
    _add_arguments,
    _agent,
    __doc__,
)

if __name__ == "__main__":
    sys.exit(VERB.main(sys.argv[1:]))
