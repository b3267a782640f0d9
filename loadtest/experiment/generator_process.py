"""The load generator as this program sees it: Locust in a process of its own that runs a plan of phases."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from loadtest.experiment import events
from loadtest.experiment.events import Event
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.settings import Generator
from models.problem import Problem
from serving import credentials, ports, proxies
from serving.runtimes.process.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[2]
LOCUSTFILE = ROOT / "loadtest" / "generator" / "locustfile.py"
LOCUST = (sys.executable, "-m", "loadtest.generator.start_locust", "-f", str(LOCUSTFILE))


def run_phases(job: LoadJob, *, on_event: Callable[[Event], None], check: Callable[[], None]) -> None:
    """Run a job's phases against its target and return when all have ended.

    `on_event` gets the generator's progress; `check` is called all the while and raises when the server under test has
    died. Raises `Problem` when the generator fails or does not end in time; it never outlives this call.
    """
    job.folder.mkdir(parents=True)
    plan = job.folder / "plan.json"
    job.plan.write(plan)
    command = [*LOCUST, "--headless", "-u", "1", "-r", "1"]
    command += ["--only-summary", "--plan", str(plan), *workers(job.generator)]
    log = job.folder / "locust.log"
    process = ServerProcess(
        "the load generator",
        command,
        log,
        folder=ROOT,
        cores=job.cores,
        environment={**credentials.variables_of(job.target), **proxies.variables_for(job.target)},
    )
    deadline = time.monotonic() + 60 + job.longest_s
    try:
        with log.open(errors="replace") as lines:
            tail = _Tail(lines, on_event)
            while (status := process.status) is None:
                check()
                tail.read()
                if time.monotonic() > deadline:
                    raise Problem(f"the load generator did not end in time; its log is {log}")
                time.sleep(0.1)
            tail.read()
        check()
        if status:
            process.check()
    finally:
        process.stop()


def workers(generator: Generator) -> list[str]:
    """Locust's arguments for its distributed mode; none where one process is the whole generator."""
    count = generator.remote_workers or generator.processes
    if generator.remote_workers:
        role = ["--master", "--expect-workers", str(count), "--master-bind-port", str(generator.port)]
    elif generator.processes > 1:
        (port,) = ports.free(1)
        role = ["--processes", str(count), "--master-port", str(port), "--master-bind-port", str(port)]
        role += ["--master-bind-host", ports.LOOPBACK]
    else:
        return []
    return [*role, "-u", str(count), "-r", str(count)]


class _Tail:
    """Reads whole JSON lines from a file that still grows."""

    def __init__(self, lines: IO[str], on_event: Callable[[Event], None]) -> None:
        self._lines, self._on_event, self._partial = lines, on_event, ""

    def read(self) -> None:
        while line := self._lines.readline():
            self._partial += line
            if self._partial.endswith("\n"):
                text, self._partial = self._partial, ""
                if text.startswith("{"):
                    self._on_event(events.decode(text))
