"""The embedded TensorFlow server on a core of its own, under closed loops (`make bench-embedded`).

The load generator runs on another core. Where a real tensorflow_model_server is there (--tensorflow-model-server, or
on the PATH), each load runs against both servers in turn, and the ratio is of the same run; elsewhere its recorded
figures are shown, of another machine. Every load runs once a round; its row is the median round. The last column shows
how busy the server's core was: well below 100 % with many clients means that something else was the bottleneck.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtest.bench import soak
from loadtest.bench.load_generator import run_plan
from loadtest.bench.tensorflow_server import (
    BATCHING,
    EMBEDDED,
    MODEL,
    BenchServer,
    closed_loop,
    make_model,
    started,
    write_reference,
)
from loadtest.experiment import records
from loadtest.experiment.phases import Plan
from loadtest.experiment.verb import Verb
from models.problem import Problem
from serving.engines import programs, registry
from serving.engines.tensorflow_serving.engine import TensorFlowServing
from serving.runtimes.process import launch

WARM_UP_S = 1.5  # not shorter: a neighbour may take the core away for so long, and no answer at all is a failure


@dataclass(frozen=True)
class Load:
    """One closed loop. `targets`: figure to the value it should reach (requests/s) or stay within (milliseconds);
    `recorded`: the real server's figures, of another machine, where there are any."""

    name: str
    protocol: str
    concurrency: int
    batching: bool
    targets: dict[str, float]
    recorded: dict[str, float]


LOADS = (
    Load("gRPC, 32 clients, batched", "grpc", 32, True, {"rate": 3700, "p99_ms": 20}, {"rate": 6206, "p99_ms": 7.9}),
    Load("gRPC, 1 client", "grpc", 1, False, {"p50_ms": 0.9}, {"p50_ms": 0.44}),
    Load("REST rows, 32 clients", "rest", 32, False, {"rate": 1600}, {"rate": 2729}),
    Load("REST rows, 32 clients, batched", "rest", 32, True, {"rate": 1600}, {}),
)


@dataclass(frozen=True)
class Measured:
    """One load against one server once: requests/s, latency, failed requests, the share of a core the server used."""

    rate: float
    p50_ms: float
    p99_ms: float
    failed: int
    server_cpu: float


@dataclass(frozen=True)
class Row:
    """A load's line: the embedded server's median round, its targets met or not, what stands beside it.

    figure    of `Measured`, what the two servers are compared by
    real      the real server's median round of the same run; None where it is not at hand, then `recorded` stands there
    ratio     the embedded server's figure / the other's; None where there is none
    """

    load: str
    protocol: str
    concurrency: int
    batching: bool
    rate: float
    p50_ms: float
    p99_ms: float
    failed: int
    server_cpu: float
    targets: dict[str, float]
    met: bool
    figure: str
    real: Measured | None
    recorded: dict[str, float]
    ratio: float | None
    rounds: dict[str, list[Measured]]

    @property
    def beside(self) -> float | None:
        """The other server's figure."""
        return getattr(self.real, self.figure) if self.real else self.recorded.get(self.figure)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=4.0, help="measured seconds of each load in a round (4)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load runs (3)")
    programs.add_flags(parser)
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="instead: load while versions change, and memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")


def _run(options: argparse.Namespace) -> int:
    for key, least, most in (("seconds", 0.2, 60), ("rounds", 1, 100), ("soak", 0.02, 10_000)):
        value = getattr(options, key)
        if value is not None and not least <= value <= most:
            raise Problem(f"--{key} {value:g}: use {least:g} to {most:g}")
    console = Console(highlight=False, soft_wrap=True, width=max(165, shutil.get_terminal_size().columns))
    cores = sorted(os.sched_getaffinity(0))
    server_cores, client_cores = (cores[:1], cores[1:2]) if len(cores) > 1 else ([], [])
    named = programs.named(options)
    real = launch.at_hand(registry.engine(EMBEDDED.stands_in_for), named)
    engines = [EMBEDDED, real] if isinstance(real, TensorFlowServing) and real is not EMBEDDED else [EMBEDDED]
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        base_path = folder / MODEL
        make_model(base_path)
        batching = folder / "batching.txt"
        batching.write_text(BATCHING)
        flags = ("--enable_batching", f"--batching_parameters_file={batching}")
        reference = write_reference(folder / "reference.npz")
        if options.soak:
            server = stack.enter_context(
                started(EMBEDDED, base_path, folder, server_cores, *flags, "--file_system_poll_wait_seconds=1")
            )
            minutes = soak.run(server, base_path, reference, folder, options.soak, client_cores, console)
            rows = [asdict(row) for row in minutes]
        else:
            servers = {
                (engine.id, batched): stack.enter_context(
                    started(
                        *(engine, base_path, folder, server_cores),
                        *(flags if batched else ()),
                        program=named.get(engine.id),
                    )
                )
                for engine in engines
                for batched in (False, True)
            }
            rows = [asdict(row) for row in _bench(servers, reference, folder, options, client_cores, console)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def _bench(
    servers: dict[tuple[str, bool], BenchServer],
    reference: Path,
    folder: Path,
    options: argparse.Namespace,
    cores: Sequence[int],
    console: Console,
) -> list[Row]:
    """Every load in every round against every engine; the table's rows."""
    rounds: dict[tuple[str, str], list[Measured]] = {}
    for number in range(options.rounds):
        for load in LOADS:
            for (engine, batching), server in servers.items():
                if batching == load.batching:
                    place = folder / f"{engine}-{len(rounds.get((load.name, engine), []))}-{LOADS.index(load)}"
                    measured = _measure(server, load, options.seconds, reference, place, cores)
                    rounds.setdefault((load.name, engine), []).append(measured)
                    console.print(f"  round {number + 1}: {load.name:<31} {engine:<19} {_line(measured)}")
    rows = [_row(load, {name: rounds[load.name, name] for name, _ in servers}) for load in LOADS]
    _show(rows, console)
    return rows


def _measure(
    server: BenchServer, load: Load, seconds: float, reference: Path, folder: Path, cores: Sequence[int]
) -> Measured:
    folder.mkdir()
    phases = tuple(
        closed_loop(load.protocol, load.concurrency, duration, folder / name)
        for name, duration in (("warm-up", WARM_UP_S), ("measured", seconds))
    )
    plan = Plan(target=server.target, reference=reference, cores=tuple(cores), phases=phases)
    share = run_plan(plan, folder / "plan.json", server.cpu_seconds, seconds + 60)["measured"]
    found = records.read_warm_up(folder / "measured" / "warm-up.json")
    latency, failed = found.latency_ms, sum(found.errors.values())
    return Measured(found.throughput, latency.p50 or 0.0, latency.p99 or 0.0, failed, round(share, 3))


def _row(load: Load, rounds: dict[str, list[Measured]]) -> Row:
    """A load's row: the median round of each engine, the targets met or not, the real server beside it."""
    figure = "rate" if "rate" in load.targets else "p50_ms"
    median = {name: _median(measured, figure) for name, measured in rounds.items()}
    ours = median.pop(EMBEDDED.id)
    row = Row(
        load=load.name,
        protocol=load.protocol,
        concurrency=load.concurrency,
        batching=load.batching,
        **asdict(ours),
        targets=load.targets,
        met=not ours.failed and all(_met(name, getattr(ours, name), value) for name, value in load.targets.items()),
        figure=figure,
        real=next(iter(median.values()), None),
        recorded=load.recorded,
        ratio=None,
        rounds=rounds,
    )
    return replace(row, ratio=round(getattr(ours, figure) / row.beside, 3)) if row.beside else row


def _median(rounds: Sequence[Measured], figure: str) -> Measured:
    """The median round by a figure; of an even number, the worse one in the middle."""
    best_first = sorted(rounds, key=lambda one: float(getattr(one, figure)), reverse=figure == "rate")
    return best_first[len(rounds) // 2]


def _met(figure: str, value: float, target: float) -> bool:
    return value >= target if figure == "rate" else value <= target


def _line(measured: Measured) -> str:
    return (
        f"{measured.rate:>6,.0f}/s, p50 {measured.p50_ms:.2f} p99 {measured.p99_ms:.2f} ms, {measured.failed} failed, "
        f"server's core {measured.server_cpu:.0%} busy"
    )


def _show(rows: Sequence[Row], console: Console) -> None:
    real = any(row.real for row in rows)
    beside = "tensorflow-serving" if real else "recorded (another machine)"
    table = Table(
        title="The embedded server on one core, the load generator on another; ratio: embedded / the real one"
    )
    for heading in ("load", "requests/s", "p50", "p99", "failed", "target", "met", beside, "ratio", "server's core"):
        table.add_column(heading, justify="left" if heading in ("load", "target") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.load,
            f"{row.rate:,.0f}",
            f"{row.p50_ms:.2f} ms",
            f"{row.p99_ms:.2f} ms",
            str(row.failed),
            ", ".join(_target(name, value) for name, value in row.targets.items()),
            "yes" if row.met else "no",
            _figure(row.figure, row.beside) if row.beside else "-",
            f"{row.ratio:.2f}" if row.ratio else "-",
            f"{row.server_cpu:.0%}",
        )
    console.print(table)


def _target(figure: str, value: float) -> str:
    return f"≥ {value:,.0f}/s" if figure == "rate" else f"{figure[:3]} ≤ {value:g} ms"


def _figure(figure: str, value: float) -> str:
    return f"{value:,.0f}/s" if figure == "rate" else f"{figure[:3]} {value:.2f} ms"


VERB = Verb("bench-embedded", "the embedded server beside TensorFlow Serving's figures", _add_arguments, _run, __doc__)
