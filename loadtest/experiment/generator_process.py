"""The load generator as this program sees it: Locust in a process of its own that runs a plan of phases."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from loadtest.experiment.file import Generator
from loadtest.experiment.phase_plan import longest_s
from loadtest.experiment.phases import Traffic
from models import whole_file
from models.problem import Problem
from serving import ports
from serving.runtimes.process.server_process import ServerProcess
from serving.target import Target

ROOT = Path(__file__).resolve().parents[2]
LOCUSTFILE = ROOT / "loadtest" / "generator" / "locustfile.py"


def run_phases(
    target: Target,
    reference: Path,
    phases: Sequence[dict[str, Any]],
    *,
    mix: Sequence[Traffic] = (),
    folder: Path,
    generator: Generator,
    exporter_port: int,
    cores: tuple[int, ...],
    name: str = "",
    on_event: Callable[[dict[str, Any]], None],
    check: Callable[[], None],
) -> None:
    """Run phases (warm-ups and trials) against a target and return when all have ended.

    `mix`: the models of the target's server that the requests are for, where these are several. `folder` receives the
    plan and the generator's log; each phase writes its own folder as it ends. `on_event` gets the generator's progress
    events; `check` is called all the while and raises when the server under test has died. Raises `Problem` when the
    generator fails or does not end in time; the generator never outlives this call.
    """
    folder.mkdir(parents=True)
    plan = folder / "plan.json"
    whole_file.write_json(
        plan,
        {
            "target": target.to_dict(),
            "reference": str(reference),
            **({"mix": [one.to_values() for one in mix]} if mix else {}),
            "payloads": generator.payloads,
            "exporter_port": exporter_port,
            "cores": list(cores),
            "name": name,
            "phases": list(phases),
        },
    )
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "-u", "1", "-r", "1"]
    command += ["--only-summary", "--plan", str(plan), *workers(generator)]
    log = folder / "locust.log"
    process = ServerProcess("the load generator", command, log, folder=ROOT, cores=cores)
    deadline = time.monotonic() + 60 + sum(map(longest_s, phases))
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

    def __init__(self, lines: Any, on_event: Callable[[dict[str, Any]], None]) -> None:
        self._lines, self._on_event, self._partial = lines, on_event, ""

    def read(self) -> None:
        while line := self._lines.readline():
            self._partial += line
            if self._partial.endswith("\n"):
                text, self._partial = self._partial, ""
                if text.startswith("{"):
                    self._on_event(json.loads(text))
