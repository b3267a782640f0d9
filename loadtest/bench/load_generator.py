"""The load generator against a server that answers at once, beside other tools, in one run (`make bench-loadgen`).

Tandem's open loop: the highest offered rate at which every request is answered rightly, none is dropped and slip p99
stays at 1 ms or less, in one of four attempts spread over the run (a busy neighbour can spoil any one of them; all are
printed). The others, and Tandem's own warm-up, are closed loops with as many connections: their best case, they send
when an answer has come. The last column shows whether the server had time left.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtest.bench import cpu_clock
from loadtest.bench import tools as bench_tools
from loadtest.bench.tools import CONNECTIONS, ROOT, pinned
from loadtest.experiment import events, records
from loadtest.experiment.events import PhaseEnded, PhaseStarted
from loadtest.experiment.generator_process import LOCUST, workers
from loadtest.experiment.phases import OpenLoopPhase, Plan, WarmUpPhase
from loadtest.experiment.records import Slip, TrialRecord
from loadtest.experiment.settings import Generator
from loadtest.experiment.verb import Verb
from models import child_environment
from models.problem import Problem
from serving.requests import encode, grpc_method
from serving.target import Target

CLASSES = 10
SLIP_LIMIT_MS = 1.0
RATES = (4000, 8000, 12000, 16000, 20000, 24000, 28000)
RATES_OF_TWO = (16000, 24000, 32000, 40000, 48000)
ATTEMPTS = (1, 2, 3, 4)
_LONGEST_S = 120


@dataclass(frozen=True)
class Result:
    """One row: requests/s, slip p99 of an open loop in milliseconds, the server's share of its core (0 to 1), and
    microseconds of the generator's CPU time for each request."""

    protocol: str
    tool: str
    rate: float
    slip_p99_ms: float | None
    server_cpu: float
    cpu_us: float | None = None


class TrivialServer:
    """A running `trivial_server`, on cores of its own where there are two or more."""

    def __init__(self, protocol: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.protocol = protocol
        self.address = f"127.0.0.1:{process.stdout.readline().strip()}"
        self._pid = process.pid
        self.target = Target(
            name="trivial",
            engine="torchserve",  # whose calls it answers
            engine_version="1",
            runtime="process",
            model="trivial",
            version=1,
            input_shape=(32, 32, 3),
            classes=CLASSES,
            grpc=self.address,
            rest=self.address,
        )

    def cpu_seconds(self) -> float:
        """CPU time that the server has used so far."""
        return cpu_clock.seconds(self._pid)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=1.2, help="measured seconds of each offered rate (1.2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")


def _run(options: argparse.Namespace) -> int:
    if not 0.5 <= options.seconds <= 60:
        raise Problem(f"--seconds {options.seconds:g}: use 0.5 to 60")
    console = Console(highlight=False, soft_wrap=True, width=max(130, shutil.get_terminal_size().columns))
    cores = sorted(os.sched_getaffinity(0))
    server_cores, tool_cores = (cores[:1], cores[1:2]) if len(cores) > 1 else ([], [])
    results: list[Result] = []
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as name:
        folder = Path(name)
        images = _write_reference(folder / "reference.npz")
        for protocol in ("rest", "grpc"):
            with _trivial_server(protocol, server_cores) as server:
                results += _tandem(server, folder, options.seconds, tool_cores, console)
                # A core each; where there are only two, the server has to share one of them.
                both = cores[1:3] if len(cores) > 2 else cores
                results += _tandem(server, folder, options.seconds, both, console, processes=2)[:1]
                request = encode(server.target, protocol, images[:1])
                if protocol == "rest":
                    body = request.partition(b"\r\n\r\n")[2]
                    for tool, measure in bench_tools.rest_tools(server.address, body, folder, tool_cores):
                        results.append(_watched(server, tool, measure))
                else:
                    method = grpc_method(server.target)
                    results.append(
                        _watched(
                            server,
                            "grpcio with gevent (closed loop)",
                            lambda: bench_tools.grpcio(server.address, method, request, folder, tool_cores),  # noqa: B023
                        )
                    )
    _show(results, console)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    return 0


def _write_reference(path: Path) -> np.ndarray:
    """Images whose right answer is what the trivial server says, so that answers are checked here as well."""
    images = np.random.default_rng(0).integers(0, 256, (256, 32, 32, 3), dtype=np.uint8)
    probabilities = np.full((len(images), CLASSES), 1 / CLASSES, dtype=np.float32)
    np.savez(path, images=images, labels=np.zeros(len(images), np.int64), probabilities=probabilities)
    return images


@contextmanager
def _trivial_server(protocol: str, cores: Sequence[int]) -> Iterator[TrivialServer]:
    answer = np.full((1, CLASSES), 1 / CLASSES, dtype="<f4")
    body = json.dumps({"predictions": answer.tolist()}).encode()
    message = b"\x0a" + bytes([answer.nbytes]) + answer.tobytes()  # PredictionResponse.prediction
    command = [sys.executable, "-m", "loadtest.bench.trivial_server", protocol, "--answer"]
    command.append((message if protocol == "grpc" else body).hex())
    process = subprocess.Popen(
        pinned(cores, command),
        env=child_environment.measured(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        yield TrivialServer(protocol, process)
    finally:
        process.kill()
        process.communicate()


def _watched(server: TrivialServer, tool: str, measure: Callable[[], float]) -> Result:
    began, cpu = time.monotonic(), server.cpu_seconds()
    rate = measure()
    # The tool's start counts as time in which the server idles, so the share is corrected to the measured seconds.
    share = (server.cpu_seconds() - cpu) / min(time.monotonic() - began, bench_tools.SECONDS)
    return Result(server.protocol, tool, rate, None, min(share, 1.0))


def _tandem(
    server: TrivialServer, folder: Path, seconds: float, cores: Sequence[int], console: Console, processes: int = 1
) -> list[Result]:
    """A warm-up, then every rate, four times over: one plan, run as a real comparison runs it."""
    protocol = server.protocol
    place = folder / f"{protocol}-{processes}"
    rates, who = (RATES, "Tandem") if processes == 1 else (RATES_OF_TWO, f"Tandem, {processes} processes")
    warm_up = WarmUpPhase(
        id="warm-up",
        folder=place / "warm-up",
        protocol=protocol,
        seed=1,
        concurrency=CONNECTIONS,
        window_s=0.25,
        min_s=1.0,
        max_s=3.0,
    )
    trials = [
        OpenLoopPhase(
            id=f"{rate}-{attempt}",
            folder=place / f"{rate}-{attempt}",
            protocol=protocol,
            seed=1,
            rate=rate,
            duration_s=seconds,
            lead_in_s=0.3,
            repetition=attempt,
        )
        for attempt in ATTEMPTS
        for rate in rates
    ]
    reference = folder / "reference.npz"
    plan = Plan(target=server.target, reference=reference, cores=tuple(cores), phases=(warm_up, *trials))
    server_cpu = run_plan(plan, place.with_suffix(".json"), server.cpu_seconds, processes=processes)
    best = Result(protocol, f"{who} (open loop): no rate held", 0.0, None, 0.0)
    for rate in rates:
        attempts = [records.read_trial(place / f"{rate}-{attempt}" / "trial.json") for attempt in ATTEMPTS]
        for trial in attempts:
            console.print(_line(trial))
        good = [trial for trial in attempts if _good(trial)]
        if good:
            trial = min(good, key=_slip_p99_ms)
            cost = (trial.generator_cpus or 0.0) * trial.duration_s / trial.requests.sent * 1e6
            best = Result(protocol, f"{who} (open loop)", rate, _slip_p99_ms(trial), server_cpu[trial.id], cost)
    closed = records.read_warm_up(place / "warm-up" / "warm-up.json").throughput
    return [best, Result(protocol, "Tandem (closed loop)", closed, None, server_cpu["warm-up"])]


def run_plan(
    plan: Plan, path: Path, cpu_seconds: Callable[[], float], longest_s: float = _LONGEST_S, processes: int = 1
) -> dict[str, float]:
    """Run the generator with a plan, written to `path`; the server's share of a core in each phase, from the CPU time
    that it has used so far.

    Raises `Problem` where the generator fails or takes longer than `longest_s`.
    """
    plan.write(path)
    command = [*LOCUST, "--headless"]
    command += ["-u", "1", "-r", "1", "--only-summary", "--plan", str(path)]
    command += workers(Generator(processes=processes))
    log = path.with_suffix(".log")
    shares = {}
    began, cpu = 0.0, 0.0
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, env=child_environment.measured(), stdout=subprocess.PIPE, stderr=errors, text=True, cwd=ROOT
        )
        assert process.stdout is not None
        deadline = time.monotonic() + longest_s
        try:
            for line in process.stdout:
                event = events.decode(line)
                if isinstance(event, PhaseStarted):
                    began, cpu = time.monotonic(), cpu_seconds()
                elif isinstance(event, PhaseEnded):
                    shares[event.id] = (cpu_seconds() - cpu) / (time.monotonic() - began)
                if time.monotonic() > deadline:
                    raise Problem(f"the load generator took more than {longest_s:g} s")
            status = process.wait(timeout=30)
        finally:
            process.kill()
            process.communicate()
    if status:
        raise Problem("the load generator failed", log.read_text().splitlines()[-5:])
    return shares


def _good(trial: TrialRecord) -> bool:
    return trial.requests.ok == trial.requests.scheduled and _slip_p99_ms(trial) <= SLIP_LIMIT_MS


def _slip_p99_ms(trial: TrialRecord) -> float:
    """Infinite where nothing was sent."""
    slip = trial.schedule_slip_ms
    return math.inf if slip is None or slip.p99 is None else slip.p99


def _line(trial: TrialRecord) -> str:
    requests, slip, latency = trial.requests, trial.schedule_slip_ms or Slip(), trial.latency_ms
    return (
        f"  {trial.protocol:>4} {trial.offered_rate:>6.0f}/s offered: "
        f"{requests.ok} of {requests.scheduled} ok, {requests.dropped} dropped, "
        f"slip p50 {slip.p50} p99 {slip.p99} ms, latency p50 {latency.p50} p99 {latency.p99} ms, "
        f"generator's core {trial.generator_cpu or 0:.0%} busy, {trial.cpu_stolen or 0:.0%} of CPU time stolen"
    )


def _show(results: Sequence[Result], console: Console) -> None:
    table = Table(title="One core, a trivial server on another; ratio: Tandem's open loop = 1")
    for heading in ("protocol", "tool", "requests/s", "ratio", "slip p99", "CPU/request", "server's core"):
        table.add_column(heading, justify="left" if heading in ("protocol", "tool") else "right", no_wrap=True)
    ours: dict[str, float] = {}
    for result in results:
        base = ours.setdefault(result.protocol, result.rate)
        table.add_row(
            result.protocol,
            result.tool,
            f"{result.rate:,.0f}",
            f"{result.rate / base:.2f}" if base else "-",
            "-" if result.slip_p99_ms is None else f"{result.slip_p99_ms:.3f} ms",
            "-" if result.cpu_us is None else f"{result.cpu_us:.0f} µs",
            f"{result.server_cpu:.0%}",
        )
    console.print(table)


VERB = Verb(
    "bench-loadgen", "the generator against a trivial server, beside other tools", _add_arguments, _run, __doc__
)
