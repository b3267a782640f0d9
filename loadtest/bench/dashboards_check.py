"""`make dashboards-check`: real servers under load, a real Prometheus, and every query of every dashboard asked.

A query passes where Prometheus accepts it and it yields data (of every server that was started, unless it asks for
one): with every variable at "All", and again with one value of each chosen. What may yield nothing, and why, stands in
monitoring/grafana/may_be_empty.toml; so may the dashboard of a server that was not started.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.experiment import file as experiments
from loadtest.experiment.compare import export
from loadtest.experiment.generator_process import run_phases
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.phases import OpenLoopPhase
from loadtest.experiment.settings import Generator
from loadtest.experiment.verb import Verb
from models import bundle as bundles
from models.bundle import Bundle
from models.problem import Problem
from monitoring.grafana import queries
from monitoring.grafana.queries import DashboardQuery
from monitoring.grafana.selection import SERVERS
from monitoring.prometheus_api import PrometheusApi, QueryRefused, Unreachable
from serving import ports, requests, serve
from serving.engines import programs, registry
from serving.profile import ServingProfile
from serving.runtimes.process import launch
from serving.runtimes.process.prometheus import Prometheus, start
from serving.target import Target

PASSED, ALLOWED, EMPTY, REFUSED = "data", "may be empty", "NO DATA", "REFUSED"
FAILURES = (EMPTY, REFUSED)
SERVER_CHOSEN = re.compile(r'server=~?"')
RATE = 40.0
STEP_S = 1.0
# Prometheus scrapes a new target within seconds, and its rules see the last load some seconds later; longer where the
# machine is busy.
SCRAPED_S, SETTLED_S = 30.0, 20.0


@dataclass(frozen=True)
class Outcome:
    """What came of a query: its verdict, and the number of series, the reason or Prometheus' own words."""

    query: DashboardQuery
    verdict: str
    detail: str


def check(
    api: PrometheusApi,
    dashboards: Iterable[Mapping[str, Any]],
    start: float,
    end: float,
    servers: Collection[str] = (),
) -> list[Outcome]:
    """Ask every query of the dashboards for the time between two Unix times; raises `Unreachable`.

    `servers`: values of the label `server` that must all be there where a query asks for any server; the dashboard of
    another server may be empty.
    """
    reasons = queries.may_be_empty()
    outcomes = []
    for dashboard in dashboards:
        everything = {**_built_in(start, end), **queries.variables(dashboard)}
        chosen = {**everything, **_chosen(api, dashboard, everything, start, end)}
        for query in queries.of(dashboard):
            verdict, detail = _ask(api, query, everything, start, end, servers)
            if verdict == PASSED and query.place != "variable":
                narrowed, reason = _ask(api, query, chosen, start, end)
                if narrowed in FAILURES:
                    values = ", ".join(f"{name} = {chosen[name]}" for name in queries.variables(dashboard))
                    verdict, detail = narrowed, f"with {values}: {reason}"
            excuse = reasons.get((query.uid, query.name)) or reasons.get(("*", query.name)) or _absent(query, servers)
            if excuse and verdict == EMPTY:
                verdict, detail = ALLOWED, excuse
            outcomes.append(Outcome(query, verdict, detail))
    return outcomes


def _absent(query: DashboardQuery, servers: Collection[str]) -> str:
    """Why a query of one server's dashboard may be empty where others were started; empty: it may not."""
    shown = next((one for one in SERVERS if one.uid == query.uid), None)
    if shown is None or not servers or any(re.fullmatch(shown.pattern, one) for one in servers):
        return ""
    return f"{shown.title} was not started: the check starts it where --engines names it"


def _ask(
    api: PrometheusApi,
    query: DashboardQuery,
    values: Mapping[str, str],
    start: float,
    end: float,
    servers: Collection[str] = (),
) -> tuple[str, str]:
    try:
        expression = queries.filled(query.expression, values)
        if query.place == "variable":
            selector, label = queries.label_values(expression)
            found = api.label_values(label, selector, start, end)
            return (PASSED, ", ".join(found)) if found else (EMPTY, expression)
        series = api.range(expression, start, end, STEP_S)
        if not series:
            return EMPTY, expression
        there = {one.labels["server"] for one in series if "server" in one.labels}
        if there and not SERVER_CHOSEN.search(expression) and not there >= set(servers):
            return EMPTY, f"of {', '.join(set(servers) - there)}: {expression}"
        return PASSED, f"{len(series)} series"
    except (QueryRefused, ValueError) as problem:
        return REFUSED, str(problem)
    except KeyError as problem:
        return REFUSED, f"no such variable: {problem}"


def _built_in(start: float, end: float) -> dict[str, str]:
    """Grafana's own variables, for a data source scraped every second or faster."""
    return {"__rate_interval": "5s", "__interval": "1s", "__range": f"{end - start:.0f}s"}


def _chosen(
    api: PrometheusApi, dashboard: Mapping[str, Any], values: Mapping[str, str], start: float, end: float
) -> dict[str, str]:
    """One value of each variable that has any."""
    chosen: dict[str, str] = {}
    for query in queries.of(dashboard):
        if query.place == "variable":
            selector, label = queries.label_values(queries.filled(query.expression, {**values, **chosen}))
            found = api.label_values(label, selector, start, end)
            if found:
                chosen[query.name] = found[0]
    return chosen


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", type=Path, metavar="FOLDER", help="default: one of digits is exported (20 s)")
    parser.add_argument("--seconds", type=float, default=6.0, help="load on each server and protocol (%(default)s)")
    parser.add_argument("--engines", help="the servers to start, as ids, separated by commas (default: the two)")
    programs.add_flags(parser)


def _run(options: argparse.Namespace) -> int:
    """Exit status 1 where a query fails."""
    if not 1 <= options.seconds <= 600:
        raise Problem(f"--seconds {options.seconds:g}: use 1 to 600")
    named = programs.named(options)
    targets = _targets(options.engines)
    launch.require([registry.of_target(name) for name in targets], named)
    console = Console(highlight=False, soft_wrap=True, width=max(160, shutil.get_terminal_size().columns))
    with tempfile.TemporaryDirectory(prefix="tandem-dashboards-") as name, ExitStack() as running:
        folder = Path(name)
        bundle = bundles.load(options.bundle) if options.bundle else _export(folder / "artifacts")
        prometheus = _prometheus(folder / "prometheus")
        running.callback(prometheus.stop)
        servers = serve.started(
            bundle,
            ServingProfile(),
            folder / "servers",
            targets=targets,
            programs=named,
        )
        up = running.enter_context(servers)
        (port,) = ports.free(1)
        prometheus.watch_generator(port)
        prometheus.watch_servers([(one.target, one.process.pid) for one in up])
        began, engines = time.time(), [one.target.engine for one in up]
        _await_scraped(prometheus, engines)
        for one in up:
            console.print(f"loading {one.target.name}: {one.target.engine} {one.target.engine_version}", markup=False)
            load(one.target, bundle, folder, options.seconds, port)
        try:
            outcomes = _settled(PrometheusApi(prometheus.url), began, engines)
        except Unreachable as trouble:
            raise Problem(f"Prometheus does not answer any more: {trouble}") from trouble
    _show(outcomes, console)
    failed = sum(outcome.verdict in FAILURES for outcome in outcomes)
    console.print(f"{len(outcomes)} queries, {failed} failed")
    return 1 if failed else 0


def _await_scraped(prometheus: Prometheus, engines: Collection[str]) -> None:
    """Wait until every server has been scraped: of a counter that is first seen after the load there is no rate."""
    deadline = time.monotonic() + SCRAPED_S
    while prometheus.query('count(up{server!=""} == 1)', time.time()) != len(engines):
        if time.monotonic() > deadline:
            raise Problem(f"Prometheus has not scraped {', '.join(engines)} in {SCRAPED_S:g} s")
        time.sleep(0.1)


def _settled(api: PrometheusApi, began: float, engines: Collection[str]) -> list[Outcome]:
    """What came of all queries: once none lacks data, or after `SETTLED_S`."""
    deadline = time.monotonic() + SETTLED_S
    while True:
        outcomes = check(api, queries.load(), began, time.time(), engines)
        if time.monotonic() > deadline or all(one.verdict != EMPTY for one in outcomes):
            return outcomes
        time.sleep(0.5)


def _targets(engines: str | None) -> Sequence[str]:
    """The default targets of these engines. Raises `Problem`."""
    if engines is None:
        return registry.DEFAULT_TARGETS
    return [registry.engine(id).default_target for id in engines.replace(",", " ").split()]


def load(target: Target, bundle: Bundle, folder: Path, seconds: float, port: int) -> None:
    """Load a target over each protocol, then once beyond what the generator may have in flight, so that the panels of
    failures have something to show, and send it a request that it must refuse. `port`: of the generator's metrics."""
    phases: list[OpenLoopPhase] = []
    for protocol in ("grpc", "rest"):
        name = f"{target.name}-{protocol}-within"
        within = OpenLoopPhase(
            id=name,
            folder=folder / "trials" / name,
            protocol=protocol,
            seed=0,
            rate=RATE,
            duration_s=seconds,
            lead_in_s=0.0,
            timeout_s=5.0,
        )
        name = f"{target.name}-{protocol}-beyond"
        place = folder / "trials" / name
        beyond = msgspec.structs.replace(
            within, id=name, folder=place, duration_s=2.0, max_in_flight=1, timeout_s=0.001
        )
        phases += [within, beyond]
    job = LoadJob(
        target=target,
        reference=bundle.reference,
        phases=tuple(phases),
        folder=folder / "generator" / target.name,
        generator=Generator(payloads=16),
        exporter_port=port,
    )
    run_phases(job, on_event=lambda _: None, check=lambda: None)
    _ask_nonsense(target)


def _ask_nonsense(target: Target) -> None:
    """One request that the server must refuse."""
    address = f"http://{target.rest}{requests.rest_path(target)}"
    nonsense = urllib.request.Request(address, b'{"instances": 1}', {"Content-Type": "application/json"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(nonsense, timeout=10):
            raise Problem(f"{address}: the server answered a request that makes no sense")
    except urllib.error.HTTPError:
        pass


def _prometheus(folder: Path) -> Prometheus:
    started = start(folder, ())
    if started is None:
        raise Problem("Prometheus is not installed: apt-get install prometheus")
    return started


def _show(outcomes: Sequence[Outcome], console: Console) -> None:
    table = Table(title="Every query of every dashboard, asked of a real Prometheus", title_justify="left")
    for heading in ("dashboard", "", "name", "verdict", "detail"):
        table.add_column(heading, overflow="fold")
    for outcome in outcomes:
        query = outcome.query
        table.add_row(query.dashboard, query.place, query.name, outcome.verdict, outcome.detail)
    console.print(table)


def _export(artifacts: Path) -> Bundle:
    """The smallest bundle: what a model answers does not matter here."""
    smoke = experiments.load("smoke")
    return export(smoke, smoke.model, artifacts)


VERB = Verb(
    "dashboards-check",
    "every query of every Grafana dashboard, asked of a real Prometheus",
    _add_arguments,
    _run,
    __doc__,
)
