"""Both servers live in a terminal, from Prometheus, for people without Grafana: `make watch`.

On a terminal a table is redrawn each second until Ctrl-C or the end of the run; elsewhere each second is one line for
each server. Exit status: 0, or 1 with one line on stderr where there is no Prometheus to ask.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from monitoring.prometheus_api import PrometheusApi, QueryRefused, Unreachable, running_at

PERIOD_S = 1.0
# Where a run and `make serve` keep their Prometheus, below the folder of results; a run is the more interesting one.
PLACES = ("latest", "serve")


@dataclass(frozen=True)
class Column:
    """A figure: its heading, its PromQL (one series for each server and protocol), and how a value is written."""

    heading: str
    expression: str
    write: Callable[[float], str]


def _rate(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.1f}/s"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


def _share(ratio: float) -> str:
    return f"{ratio:.2%}"


def _count(value: float) -> str:
    return f"{value:,.1f}"


COLUMNS = (
    Column("rate", "sum by (server, protocol) (serving:requests:rate1m)", _rate),
    Column("p50", "max by (server, protocol) (serving:request_latency_seconds:p50)", _milliseconds),
    Column("p99", "max by (server, protocol) (serving:request_latency_seconds:p99)", _milliseconds),
    Column("errors", "max by (server, protocol) (serving:errors:ratio)", _share),
    Column("batch", "max by (server, protocol) (serving:batch_size:avg)", _count),
)

Figures = dict[tuple[str, str], dict[str, float]]


def figures(prometheus: PrometheusApi) -> Figures:
    """(server, protocol) to heading to value; protocol is empty for what a server does not tell apart."""
    found: Figures = {}
    for column in COLUMNS:
        for series in prometheus.instant(column.expression):
            if series.samples:
                key = (series.labels.get("server", ""), series.labels.get("protocol", ""))
                found.setdefault(key, {})[column.heading] = series.samples[-1][1]
    return dict(sorted(found.items()))


def table(now: Figures, source: str) -> Table:
    """The figures as a table; `source` says where they come from."""
    drawn = Table(title=f"{time.strftime('%H:%M:%S')}  {source}", title_justify="left", expand=False)
    drawn.add_column("server")
    drawn.add_column("protocol")
    for column in COLUMNS:
        drawn.add_column(column.heading, justify="right", min_width=9)
    for (server, protocol), values in now.items():
        drawn.add_row(server, protocol, *_cells(values))
    if not now:
        drawn.add_row("no request yet", "", *("-" for _ in COLUMNS))
    return drawn


def lines(now: Figures) -> list[str]:
    """The figures as one line for each server and protocol."""
    clock = time.strftime("%H:%M:%S")
    return [
        f"{clock} {' '.join(filter(None, key))}: "
        + ", ".join(f"{column.heading} {cell}" for column, cell in zip(COLUMNS, _cells(values), strict=True))
        for key, values in now.items()
    ] or [f"{clock} no request yet"]


def watch(prometheus: PrometheusApi, source: str, console: Console, once: bool = False) -> None:
    """Show the figures each second until the Prometheus goes away, or only once. Raises `Unreachable` where it never
    answered."""
    now = figures(prometheus)
    if not console.is_terminal or once:
        _print(now, source, console)
        while not once:
            time.sleep(PERIOD_S)
            try:
                _print(figures(prometheus), source, console)
            except Unreachable:
                break
    else:
        with Live(table(now, source), console=console, auto_refresh=False, transient=True) as live:
            while True:
                time.sleep(PERIOD_S)
                try:
                    live.update(table(figures(prometheus), source), refresh=True)
                except Unreachable:
                    break
    if not once:
        console.print("the run has ended", markup=False)


def find(results: Path) -> PrometheusApi | None:
    """The Prometheus of the run that is going, else the one of `make serve`."""
    for place in PLACES:
        url = running_at(results / place / "prometheus")
        if url:
            return PrometheusApi(url)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.watch", description=__doc__)
    parser.add_argument("--once", action="store_true", help="show the figures of this moment and end")
    parser.add_argument("--prometheus", metavar="URL", help="default: the one of a run, or of make serve")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs (%(default)s)")
    options = parser.parse_args(argv)
    console = Console(highlight=False, soft_wrap=True)
    prometheus = PrometheusApi(options.prometheus) if options.prometheus else find(options.results)
    if prometheus is None:
        return _fail(_nothing_to_watch())
    try:
        watch(prometheus, f"Prometheus {prometheus.url}", console, options.once)
    except Unreachable as problem:
        return _fail(f"no Prometheus answers at {problem}")
    except QueryRefused as problem:
        return _fail(f"the Prometheus at {prometheus.url} refuses a query: {problem}")
    except KeyboardInterrupt:
        pass  # how one ends it
    return 0


def _cells(values: dict[str, float]) -> list[str]:
    return [column.write(values[column.heading]) if column.heading in values else "-" for column in COLUMNS]


def _print(now: Figures, source: str, console: Console) -> None:
    if console.is_terminal:
        console.print(table(now, source))
    else:
        for line in lines(now):
            console.print(line, markup=False)
        sys.stdout.flush()


def _nothing_to_watch() -> str:
    if shutil.which("prometheus") is None:
        return "Prometheus is not installed, so there are no figures to watch: apt-get install prometheus"
    return "nothing is running: start make compare or make serve in another terminal, or give --prometheus URL"


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
