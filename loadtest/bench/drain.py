"""What clients lose when a server gets SIGTERM, and when it is replaced by another (`make bench-drain`).

The servers as processes, bare and under the entry point of the images, which drains them: TensorFlow Serving itself
where its program is named, on the PATH or fetched, else what stands in for it; an engine that runs outside its image
with another backend (--engines), with that one. Each request waits for its batch
(--batch-timeout-ms), so that at any moment a few of every kind are under way. Then the replacement, as a rolling update
of the Deployments does it, in a tenth of the time: the new server becomes an endpoint, the old one leaves the list,
which clients notice a while later, and is told to end after its preStop pause, or without one. Both have the same ports
then, at addresses of their own; where a server listens on every address of this machine, a forwarder gives it one. A
request counts as refused where the server said that it did not take it on, and as lost where it took the connection and
gave no answer. The exit status is 1 where the replacement with the pause lost or refused any.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from loadtest.bench import twins
from loadtest.bench.name_server import Endpoints
from loadtest.bench.switching_load import FLOWS, Flow, Outcome, SwitchingLoad
from loadtest.bench.tools import ROOT
from loadtest.experiment.verb import Verb
from models.bundle import Bundle
from models.problem import Problem
from serving import ports
from serving.engines import programs, registry
from serving.engines.container import Container, Inside
from serving.engines.engine import Engine, Ports, Served, Site
from serving.profile import ServingProfile
from serving.runtimes.answering import Awaited
from serving.runtimes.containers import servers as containers
from serving.runtimes.process import launch, own_program
from serving.runtimes.process.server_process import ServerProcess
from serving.target import Target

OLD, NEW = "127.0.0.2", "127.0.0.3"
# The Deployments' times (k8s/base), and what docs/operations.md says of clients, in seconds.
CONNECTION_AGE_S, PRE_STOP_S, RESOLVE_EVERY_S, REST_AGE_S, LAG_S = 20.0, 60.0, 30.0, 50.0, 5.0
BEFORE_S, AFTER_S = 2.0, 1.0  # of load on both sides of what is measured
END_S = 30.0
PortPair = tuple[int, int]  # REST, gRPC
HERE = {"PYTHONPATH": str(ROOT)}
SUPERVISED = (
    "import sys; from pathlib import Path; from serving.runtimes.containers.entrypoint import Supervisor; "
    "sys.exit(Supervisor(sys.argv[1], sys.argv[3:], {}, Path(sys.argv[2])).run())"
)


@dataclass(frozen=True)
class Way:
    """How a server ends: under the images' entry point or bare, alone or replaced by another, with preStop or not."""

    name: str
    supervised: bool
    replaced: bool
    pre_stop: bool = False


WAYS = (
    Way("SIGTERM, bare", supervised=False, replaced=False),
    Way("SIGTERM, entry point", supervised=True, replaced=False),
    Way("replaced, bare, no pause", supervised=False, replaced=True),
    Way("replaced, entry point, no pause", supervised=True, replaced=True),
    Way("replaced, entry point, preStop", supervised=True, replaced=True, pre_stop=True),
)


@dataclass(frozen=True)
class Options:
    """``rate``: requests/s of each kind of client; ``scale``: of the Deployments' times."""

    rate: float = 50.0
    scale: float = 0.1
    batch_timeout_ms: float = 100.0

    @property
    def profile(self) -> ServingProfile:
        """The servers' tuning: batches that nothing fills before their time."""
        return ServingProfile(max_batch_size=128, batch_timeout_ms=self.batch_timeout_ms)


@dataclass(frozen=True)
class Subject:
    """Whose server is measured, with which model; ``program``: its own, where it has one."""

    engine: Engine
    bundle: Bundle
    program: Path | None = None

    @property
    def container(self) -> Container:
        """How the server is started, as in its image."""
        assert self.engine.container is not None
        return self.engine.container


@dataclass(frozen=True)
class Replica:
    """A server under way, as one replica of a Deployment would be."""

    target: Target
    process: ServerProcess


@dataclass(frozen=True)
class Row:
    """What became of the requests of one kind, from SIGTERM's coming (or the replacement) to the old server's end."""

    engine: str
    way: str
    flow: str
    sent: int
    refused: int
    lost: int
    ended_s: float  # from SIGTERM to the process's end
    failures: tuple[str, ...]


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = Options()
    parser.add_argument("--bundle", type=Path, help="the model's bundle (default: the first under artifacts/)")
    known = [one.default_target for one in containers.engines() if not one.stands_in_for]
    default = ", ".join(registry.DEFAULT_TARGETS)
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--target", action="append", choices=known, help=f"whose server; repeatable (default: {default})"
    )
    which.add_argument("--engines", help="the same by engines, separated by commas, such as torchserve,triton")
    parser.add_argument("--rate", type=float, default=defaults.rate, help="requests/s of each kind (%(default)s)")
    parser.add_argument("--scale", type=float, default=defaults.scale, help="of the Deployments' times (%(default)s)")
    parser.add_argument(
        "--batch-timeout-ms", type=float, default=defaults.batch_timeout_ms, help="a request's time (%(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows as JSON, too")
    programs.add_flags(parser)


def _run(given: argparse.Namespace) -> int:
    for name, least, most in (("rate", 1, 200), ("scale", 0.02, 1), ("batch_timeout_ms", 1, 1000)):
        if not least <= getattr(given, name) <= most:
            raise Problem(f"--{name.replace('_', '-')} {getattr(given, name):g}: use {least} to {most}")
    options = Options(given.rate, given.scale, given.batch_timeout_ms)
    engines, named = _engines(given), programs.named(given)
    bundle = twins.find_bundle(given.bundle)
    launch.require(engines, named)
    chosen = [launch.at_hand(engine, named) for engine in engines]
    subjects = [Subject(engine, bundle, own_program.find(engine, named)) for engine in chosen]
    rows = [row for subject in subjects for row in measure(subject, options, WAYS)]
    Console(highlight=False, soft_wrap=True, width=160).print(table(rows, options))
    if given.json:
        given.json.write_text(json.dumps([vars(row) for row in rows], indent=2) + "\n")
    return int(any(row.way == WAYS[-1].name and row.lost + row.refused for row in rows))


def _engines(given: argparse.Namespace) -> list[Engine]:
    """Those whose servers are asked for. Raises `Problem` where there is none, or one without a container."""
    if given.engines:
        ids = filter(None, map(str.strip, given.engines.split(",")))
        engines = [registry.engine(id) for id in dict.fromkeys(ids)]
    else:
        engines = [registry.of_target(name) for name in given.target or registry.DEFAULT_TARGETS]
    for engine in engines:
        containers.container_of(engine)
    if not engines:
        raise Problem("--engines names none: give ids, separated by commas")
    return engines


def measure(subject: Subject, options: Options, ways: Sequence[Way]) -> Iterator[Row]:
    """The rows of one server, each way from a fresh start. Raises `Problem` where a server does not start or end."""
    for way in ways:
        print(f"{subject.engine.title}: {way.name}", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory(prefix="tandem-bench-") as name, ExitStack() as started:
            yield from _measure(subject, options, way, Path(name), started)


def _measure(subject: Subject, options: Options, way: Way, folder: Path, started: ExitStack) -> Iterator[Row]:
    addresses = (OLD, NEW) if way.replaced else (OLD,)
    shared, *own = _pairs(ports.free(2 + 2 * len(addresses)))
    servers = {
        address: started.enter_context(_started(subject, options, way, folder / address, address, shared, own.pop()))
        for address in addresses
    }
    for server in servers.values():
        server.process.wait_until(partial(Awaited().answers, server.target), 120)
    old = servers[OLD]
    endpoints = Endpoints([OLD], LAG_S * options.scale)
    load = SwitchingLoad(
        old.target,
        endpoints,
        rate=options.rate,
        rest_age_s=REST_AGE_S * options.scale,
        resolve_every_s=RESOLVE_EVERY_S * options.scale,
    )
    with load:
        deadline = time.monotonic() + 60
        while load.answered() < 4 * options.rate:
            old.process.check()
            if time.monotonic() > deadline:
                raise Problem(f"{old.target.engine} answers too slowly for {options.rate:g} requests/s of each kind")
            time.sleep(0.05)
        begin = time.monotonic()
        time.sleep(BEFORE_S)
        if way.replaced:
            endpoints.replace([OLD, NEW])
            time.sleep(BEFORE_S)
            endpoints.replace([NEW])
        if way.pre_stop:
            time.sleep(PRE_STOP_S * options.scale)
        if not way.replaced:  # between two batches there is nothing to lose
            while not load.under_way():
                old.process.check()
                time.sleep(0.001)
        asked = time.monotonic()
        os.kill(old.process.pid, signal.SIGTERM)
        while old.process.status is None:
            if time.monotonic() > asked + END_S:
                raise Problem(f"{old.target.engine} has not ended {END_S:g} s after SIGTERM", old.process.last_lines())
            time.sleep(0.005)
        ended = time.monotonic()
        if way.replaced:
            time.sleep(AFTER_S + endpoints.lag_s)
    end = float("inf") if way.replaced else ended  # alone, whoever comes after its end is refused by nobody
    for flow in FLOWS:
        mine = [one for one in load.outcomes if one.flow == flow and begin <= one.sent < end]
        yield _row(old.target.engine, way, flow, mine, ended - asked)


def _pairs(numbers: Sequence[int]) -> list[PortPair]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _row(engine: str, way: Way, flow: Flow, outcomes: Sequence[Outcome], ended_s: float) -> Row:
    lost, refused = sum(one.lost for one in outcomes), sum(one.refused for one in outcomes)
    failures = sorted({one.failure[:200] for one in outcomes if one.failure})
    return Row(engine, way.name, str(flow), len(outcomes), refused, lost, ended_s, tuple(failures))


@contextmanager
def _started(
    subject: Subject, options: Options, way: Way, folder: Path, address: str, shared: PortPair, own: PortPair
) -> Iterator[Replica]:
    """A server at ``address``, with the ports ``shared`` that its twin at another address has, too; ``own``: where it
    listens itself, if a forwarder has to take those."""
    container = subject.container
    aside = container.everywhere and way.replaced
    with ExitStack() as running:
        # Short: a worker's Unix socket lies below it.
        name = running.enter_context(tempfile.TemporaryDirectory(prefix="tandem-"))
        listens = own if aside else shared
        command, environment = running.enter_context(_prepared(subject, options, folder, Path(name), address, listens))
        if way.supervised:
            command = [sys.executable, "-c", SUPERVISED, container.image, name, *command]
        if aside:
            pairs = [f"{address}:{shown}={address}:{port}" for shown, port in zip(shared, own, strict=True)]
            how = [sys.executable, "-m", "loadtest.bench.forwarder", *pairs]
            forwarder = ServerProcess("forwarder", how, folder / "forwarder.log", environment=HERE, folder=folder)
            running.callback(forwarder.stop)
        server = ServerProcess(
            subject.engine.title, command, folder / "server.log", environment={**environment, **HERE}, folder=folder
        )
        running.callback(server.stop)
        yield Replica(_target(subject.engine, subject.bundle, address, shared), server)


@contextmanager
def _prepared(
    subject: Subject, options: Options, folder: Path, scratch: Path, address: str, listens: PortPair
) -> Iterator[tuple[list[str], dict[str, str]]]:
    """The server's command line and environment, with the files written that its container's entry point would find."""
    rest, grpc = listens
    management, metrics, grpc_management = ports.free(3)
    bundle, container = subject.bundle, subject.container
    models = (bundle.folder / container.part).resolve()
    site = Site(
        host=address,
        ports=Ports(rest, grpc, metrics, management, grpc_management),
        configuration=str(folder),
        models=str(models),
        cores=len(os.sched_getaffinity(0)),
        connection_age_s=CONNECTION_AGE_S * options.scale,
    )
    if container.outside:
        plan = container.outside(bundle, options.profile, site, subject.program)
        try:
            yield [*plan.command], {**plan.environment}
        finally:
            plan.release()
        return
    served = [Served(bundle.model, container.model_version(bundle), str(models))]
    rendering = subject.engine.render(options.profile, served, site)
    rendering.write(folder)
    inside = Inside(folder, models, scratch, rendering.arguments, subject.program)
    yield [*container.command(inside)], {**rendering.environment, **container.environment(inside)}


def _target(engine: Engine, bundle: Bundle, address: str, shared: PortPair) -> Target:
    rest, grpc = shared
    return Target(
        name=engine.default_target,
        engine=engine.id,
        engine_version="",
        runtime="process",
        model=bundle.model,
        version=bundle.version,
        input_shape=bundle.input_shape,
        classes=bundle.classes,
        grpc=f"{address}:{grpc}",
        rest=f"{address}:{rest}",
        metrics=None,
    )


def table(rows: Sequence[Row], options: Options) -> Table:
    """The rows as a table, a way a line: requests lost and refused, of those sent, by kind of client."""
    every = f"{options.rate:g} requests/s of each kind, {options.batch_timeout_ms:g} ms each"
    shown = Table(title=f"Requests lost + refused / sent ({every}; times of the Deployments x {options.scale:g})")
    for title in ("server", "how it ends", *map(str, FLOWS), "ended after"):
        shown.add_column(title, no_wrap=True)
    of_ways: dict[tuple[str, str, float], dict[str, str]] = {}
    for row in rows:
        cells = of_ways.setdefault((row.engine, row.way, row.ended_s), {})
        cells[row.flow] = f"{row.lost} + {row.refused} / {row.sent}"
    for (engine, way, ended_s), cells in of_ways.items():
        shown.add_row(engine, way, *(cells[str(flow)] for flow in FLOWS), f"{ended_s:.1f} s")
    return shown


VERB = Verb(
    "bench-drain",
    "what clients lose when a server gets SIGTERM, and when it is replaced",
    _add_arguments,
    _run,
    __doc__,
)
