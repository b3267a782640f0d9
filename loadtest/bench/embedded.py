"""The embedded TensorFlow server on a core of its own, under closed loops (`make bench-embedded`).

The load generator runs on another core. Where a real tensorflow_model_server is there (named, on the PATH, or fetched),
each load runs against both servers in turn, and the ratios are of the same run; elsewhere its recorded
figures stand there, of another machine. Every ratio says how many times as good the embedded server is, by a higher
rate or a lower latency: 1 is as good as the real one, less is worse. Both are asked for the same of oneDNN, on which
their speed hangs, and each says what it has; where they have the same, a row says whether the embedded server holds
what it should. Every load runs once a round; a row's figures are the medians of the rounds. The last column shows how
busy the server's core was: well below 100 % with many clients means that something else was the bottleneck.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType

from rich.console import Console
from rich.table import Table

from loadtest.bench import soak
from loadtest.bench.load_generator import run_plan
from loadtest.bench.tensorflow_server import (
    BATCHING,
    EMBEDDED,
    MODEL,
    BenchServer,
    at_hand,
    closed_loop,
    make_model,
    started,
    write_reference,
)
from loadtest.experiment import records
from loadtest.experiment.phases import Plan
from loadtest.experiment.verb import Verb
from models.problem import Problem
from serving.engines import programs
from serving.profile import OneDnn, ServingProfile, parser_of
from serving.runtimes.process import own_program

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
    Load(
        *("gRPC, 32 clients, batched", "grpc", 32, True),
        targets={"rate": 3700, "p99_ms": 20},
        recorded={"rate": 6206, "p50_ms": 5.0, "p99_ms": 7.9},
    ),
    Load("gRPC, 32 clients", "grpc", 32, False, {}, {"rate": 3650, "p50_ms": 11.3}),
    Load("gRPC, 1 client", "grpc", 1, False, {"p50_ms": 0.9}, {"rate": 2043, "p50_ms": 0.44}),
    Load("REST rows, 32 clients, batched", "rest", 32, True, {"rate": 1600}, {}),
    Load("REST rows, 32 clients", "rest", 32, False, {"rate": 1600}, {"rate": 2729, "p50_ms": 11.7}),
    Load("REST rows, 1 client", "rest", 1, False, {}, {"rate": 2104, "p50_ms": 0.46}),
)
FIGURES = {"rate": "rate", "p50_ms": "p50", "p99_ms": "p99"}
"""What the two servers are compared by, key to the table's heading."""
HOLDS = {"rate": 0.8, "p99_ms": round(1 / 1.3, 3)}
"""Against the real server, with oneDNN alike: at least so many times as good."""


@dataclass(frozen=True)
class Measured:
    """One load against one server: requests/s, latency, failed requests, the share of a core the server used."""

    rate: float
    p50_ms: float
    p99_ms: float
    failed: int
    server_cpu: float


@dataclass(frozen=True)
class Row:
    """A load's line: the embedded server's figures, its targets met or not, what stands beside it.

    real      the real server's figures of the same run; None where it is not at hand, then ``recorded`` stands there
    ratios    of `FIGURES`, those that the other server has, too: how many times as good the embedded one is
    onednn    what the servers were asked for; ``in_force``: what the embedded one says of it
    holds     what `HOLDS` says; None where there is no real server, or one whose oneDNN is not the same
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
    real: Measured | None
    recorded: dict[str, float]
    ratios: dict[str, float]
    rounds: dict[str, list[Measured]]
    onednn: OneDnn
    in_force: bool | None
    holds: bool | None

    @property
    def beside(self) -> dict[str, float]:
        """The other server's figures."""
        return {one: getattr(self.real, one) for one in FIGURES} if self.real else self.recorded


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=4.0, help="measured seconds of each load in a round (4)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each load runs (3)")
    programs.add_flags(parser)
    parser.add_argument(
        "--onednn",
        nargs="+",
        type=parser_of("onednn"),
        default=[True, False],
        metavar="SETTING",
        help="true, false or default, each of which every load runs with (true false)",
    )
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="instead: load while versions change, and memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")


def _run(options: argparse.Namespace) -> int:
    for key, least, most in (("seconds", 0.2, 60), ("rounds", 1, 100), ("soak", 0.02, 10_000)):
        value = getattr(options, key)
        if value is not None and not least <= value <= most:
            raise Problem(f"--{key} {value:g}: use {least:g} to {most:g}")
    asked = [ServingProfile(onednn=one).onednn for one in dict.fromkeys(options.onednn)]
    console = Console(highlight=False, soft_wrap=True, width=max(230, shutil.get_terminal_size().columns))
    cores = sorted(os.sched_getaffinity(0))
    server_cores, client_cores = (cores[:1], cores[1:2]) if len(cores) > 1 else ([], [])
    named = programs.named(options)
    real = at_hand(named)
    engines = [EMBEDDED] if real is EMBEDDED else [EMBEDDED, real]
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        base_path = folder / MODEL
        make_model(base_path)
        batching = folder / "batching.txt"
        batching.write_text(BATCHING)
        flags = ("--enable_batching", f"--batching_parameters_file={batching}")
        reference = write_reference(folder / "reference.npz")
        rows: list[dict[str, object]] = []
        if options.soak:
            polling = (*flags, "--file_system_poll_wait_seconds=1")
            for engine in engines:
                program = own_program.find(engine, named)
                with started(engine, base_path, folder, server_cores, *polling, program=program) as server:
                    minutes = soak.run(server, base_path, reference, folder, options.soak, client_cores, console)
                rows += [asdict(row) for row in minutes]
        else:
            servers = {
                (engine.id, batched, onednn): stack.enter_context(
                    started(
                        *(engine, base_path, folder, server_cores),
                        *(flags if batched else ()),
                        program=own_program.find(engine, named),
                        onednn=onednn,
                    )
                )
                for onednn in asked
                for engine in engines
                for batched in (False, True)
            }
            rows = [asdict(row) for row in _bench(servers, reference, folder, options, client_cores, console)]
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


def _bench(
    servers: dict[tuple[str, bool, OneDnn], BenchServer],
    reference: Path,
    folder: Path,
    options: argparse.Namespace,
    cores: Sequence[int],
    console: Console,
) -> list[Row]:
    """Every load in every round against every engine; the table's rows."""
    rounds: dict[tuple[str, OneDnn, str], list[Measured]] = {}
    for number in range(options.rounds):
        for load in LOADS:
            for (engine, batching, onednn), server in servers.items():
                if batching == load.batching:
                    known = rounds.setdefault((load.name, onednn, engine), [])
                    place = folder / f"{engine}-{onednn}-{len(known)}-{LOADS.index(load)}"
                    known.append(_measure(server, load, options.seconds, reference, place, cores))
                    name = f"{load.name:<31} {engine:<19} oneDNN {_setting(onednn, server.onednn):<12}"
                    console.print(f"  round {number + 1}: {name} {_line(known[-1])}")
    engines = list(dict.fromkeys(engine for engine, _, _ in servers))
    settings = list(dict.fromkeys(onednn for _, _, onednn in servers))
    rows = [
        _row(
            load,
            {engine: rounds[load.name, onednn, engine] for engine in engines},
            onednn,
            {engine: servers[engine, load.batching, onednn].onednn for engine in engines},
        )
        for load in LOADS
        for onednn in settings
    ]
    _show(rows, console)
    _show_settings(rows, console)
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


def _row(
    load: Load,
    rounds: dict[str, list[Measured]],
    onednn: OneDnn = "default",
    said: Mapping[str, bool | None] = MappingProxyType({}),
) -> Row:
    """A load's row: the figures of each engine, the targets met or not, the real server beside the embedded one;
    ``said``: what each engine's server says of its oneDNN."""
    figures = {name: _medians(measured) for name, measured in rounds.items()}
    ours = figures.pop(EMBEDDED.id)
    real = next(iter(figures.values()), None)
    beside = asdict(real) if real else load.recorded
    ratios = {
        one: round(better(one, getattr(ours, one), beside[one]), 3)
        for one in FIGURES
        if beside.get(one) and getattr(ours, one)
    }
    alike = bool(said) and None not in said.values() and len(set(said.values())) == 1
    return Row(
        load=load.name,
        protocol=load.protocol,
        concurrency=load.concurrency,
        batching=load.batching,
        **asdict(ours),
        targets=load.targets,
        met=not ours.failed and all(_met(name, getattr(ours, name), value) for name, value in load.targets.items()),
        real=real,
        recorded=load.recorded,
        ratios=ratios,
        rounds=rounds,
        onednn=onednn,
        in_force=said.get(EMBEDDED.id),
        holds=all(ratios.get(one, 0.0) >= least for one, least in HOLDS.items()) if real and alike else None,
    )


def _medians(rounds: Sequence[Measured]) -> Measured:
    """The median of each figure of the rounds, but every request that failed."""
    middle = {one: statistics.median(getattr(each, one) for each in rounds) for one in (*FIGURES, "server_cpu")}
    return Measured(**middle, failed=sum(each.failed for each in rounds))


def better(figure: str, ours: float, other: float) -> float:
    """How many times as good ``ours`` is: of a rate the higher one is better, of a latency the lower one."""
    return ours / other if figure == "rate" else other / ours


def _met(figure: str, value: float, target: float) -> bool:
    return value >= target if figure == "rate" else value <= target


def _line(measured: Measured) -> str:
    return (
        f"{measured.rate:>6,.0f}/s, p50 {measured.p50_ms:.2f} p99 {measured.p99_ms:.2f} ms, {measured.failed} failed, "
        f"server's core {measured.server_cpu:.0%} busy"
    )


def _show(rows: Sequence[Row], console: Console) -> None:
    beside = "tensorflow-serving" if any(row.real for row in rows) else "recorded (another machine)"
    table = Table(
        title="The embedded server on one core, the load generator on another; ×: how many times as good it is"
    )
    ratios = [f"× {heading}" for heading in FIGURES.values()]
    held = "holds, oneDNN alike"
    headings = ("load", "oneDNN", *FIGURES.values(), "failed", "target", "met", beside, *ratios, held, "server's core")
    for heading in headings:
        table.add_column(heading, justify="left" if heading in ("load", "oneDNN", "target") else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.load,
            _setting(row.onednn, row.in_force),
            *(_figure(one, getattr(row, one)) for one in FIGURES),
            str(row.failed),
            ", ".join(_target(name, value) for name, value in row.targets.items()) or "-",
            ("yes" if row.met else "no") if row.targets else "-",
            ", ".join(_beside(one, value) for one, value in row.beside.items()) or "-",
            *(f"{row.ratios[one]:.2f}" if one in row.ratios else "-" for one in FIGURES),
            "-" if row.holds is None else "yes" if row.holds else "no",
            f"{row.server_cpu:.0%}",
        )
    console.print(table)


def _show_settings(rows: Sequence[Row], console: Console) -> None:
    """The embedded server under each setting of oneDNN beside itself without, or, where that did not run, the first."""
    asked = list(dict.fromkeys(row.onednn for row in rows))
    base = False if False in asked else asked[0]
    others = [one for one in asked if one != base]
    if not others:
        return
    found = {(row.load, row.onednn): row for row in rows}
    table = Table(title=f"The embedded server, × how many times as good as with oneDNN {_setting(base)}")
    table.add_column("load", no_wrap=True)
    for one in others:
        for heading in FIGURES.values():
            table.add_column(f"{_setting(one)}: × {heading}", justify="right", no_wrap=True)
    for load in dict.fromkeys(row.load for row in rows):
        there = found[load, base]
        pairs = [(one, getattr(found[load, other], one), getattr(there, one)) for other in others for one in FIGURES]
        table.add_row(load, *(f"{better(*pair):.2f}" if all(pair) else "-" for pair in pairs))
    console.print(table)


def _setting(asked: OneDnn, said: bool | None = None) -> str:
    """What was asked for, and what a server says that it has, where that is not the same: "on", "default (on)"."""
    words = {True: "on", False: "off", None: ""}
    wanted, has = asked if isinstance(asked, str) else words[asked], words[said]
    return f"{wanted} ({has})" if has not in ("", wanted) else wanted


def _target(figure: str, value: float) -> str:
    return f"≥ {value:,.0f}/s" if figure == "rate" else f"{figure[:3]} ≤ {value:g} ms"


def _beside(figure: str, value: float) -> str:
    return _figure(figure, value) if figure == "rate" else f"{FIGURES[figure]} {_figure(figure, value)}"


def _figure(figure: str, value: float) -> str:
    return f"{value:,.0f}/s" if figure == "rate" else f"{value:.2f} ms"


VERB = Verb("bench-embedded", "the embedded server beside TensorFlow Serving's figures", _add_arguments, _run, __doc__)
