"""Both servers live in a terminal, from Prometheus, for people without Grafana: `make watch`.

On a terminal a table is redrawn each second until Ctrl-C or the end of the run; elsewhere each second is one line for
each server and protocol. Exit status: 0, or 1 with one line on stderr where there is no Prometheus to ask.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import re
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from monitoring import schema
from monitoring.prometheus_api import PrometheusApi, QueryRefused, Unreachable, running_at

PERIOD_S = 1.0
WINDOW = "10s"
# Where a run and `make serve` keep their Prometheus, below the folder of results; a run is the more interesting one.
PLACES = ("latest", "serve")


@dataclass(frozen=True)
class Column:
    """A figure: its heading, the recorded metric, how replicas' values become one, and how a value is written."""

    heading: str
    metric: str
    over: str
    write: Callable[[float], str]


def _rate(value: float) -> str:
    return f"{value:,.0f}/s" if value >= 10 or value == 0 else f"{value:.1f}/s"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1e3:,.1f} ms"


COLUMNS = (
    Column("rate", "serving:requests:rate1m", "sum", _rate),
    Column("p50", "serving:request_latency_seconds:p50", "max", _milliseconds),
    Column("p99", "serving:request_latency_seconds:p99", "max", _milliseconds),
    Column("errors", "serving:errors:ratio", "max", "{:.2%}".format),
    Column("batch", "serving:batch_size:avg", "max", "{:,.1f}".format),
)
# (server, protocol) to heading to value. What a server does not tell apart by protocol stands under protocol "".
Figures = dict[tuple[str, str], dict[str, float]]


def expression(column: Column, window: str) -> str:
    """A column's PromQL, over a shorter window than the recording rules': what happens now."""
    metric = schema.load().metrics[column.metric]
    either = " or ".join(f"({metric.expression(dialect, window)})" for dialect in metric.dialects)
    return f"{column.over} by (server, protocol) ({either})"


def figures(prometheus: PrometheusApi, window: str = WINDOW) -> Figures:
    """What both servers do now. Raises `Unreachable` and `QueryRefused`."""
    found: Figures = {}
    for column in COLUMNS:
        for series in prometheus.instant(expression(column, window)):
            key = (series.labels.get("server", ""), series.labels.get("protocol", ""))
            found.setdefault(key, {})[column.heading] = series.samples[-1][1]
    for server in {server for server, _ in found}:
        protocols = [values for (one, protocol), values in found.items() if one == server and protocol]
        if protocols:
            found.setdefault((server, ""), {})["rate"] = sum(values.get("rate", 0.0) for values in protocols)
    return dict(sorted(found.items()))


def table(now: Figures, source: str) -> Table:
    """The figures as a table; `source` says where they come from."""
    drawn = Table(title=f"{time.strftime('%H:%M:%S')}  {source}", title_justify="left")
    drawn.add_column("server", min_width=len("embedded-tfserving"))
    drawn.add_column("protocol")
    for column in COLUMNS:
        drawn.add_column(column.heading, justify="right", min_width=9)
    for (server, protocol), values in now.items():
        drawn.add_row("" if protocol else server, protocol or "all", *_cells(values))
    if not now:
        drawn.add_row("no figures yet", "", *("-" for _ in COLUMNS))
    return drawn


def lines(now: Figures) -> list[str]:
    """The figures as one line for each server, and for each of its protocols."""
    clock = time.strftime("%H:%M:%S")
    return [
        f"{clock} {server} {protocol or 'all'}: "
        + ", ".join(f"{one.heading} {cell}" for one, cell in zip(COLUMNS, _cells(values), strict=True) if cell != "-")
        for (server, protocol), values in now.items()
    ] or [f"{clock} no figures yet"]


def watch(
    prometheus: PrometheusApi, source: str, console: Console, *, once: bool = False, window: str = WINDOW
) -> None:
    """Show the figures each second until the Prometheus goes away, or only once.

    Raises `QueryRefused`, and `Unreachable` where the Prometheus never answered.
    """
    now = figures(prometheus, window)
    if once:
        _show(now, source, console)
        return
    with contextlib.ExitStack() as screen:
        show = functools.partial(_show, console=console)
        if console.is_terminal:
            live = screen.enter_context(Live(console=console, auto_refresh=False, transient=True))
            show = functools.partial(_redraw, live=live)
        with contextlib.suppress(Unreachable):
            while True:
                show(now, source)
                time.sleep(PERIOD_S)
                now = figures(prometheus, window)
    console.print("the run has ended", markup=False)


def find(results: Path) -> PrometheusApi | None:
    """The Prometheus of the run that is going, else the one of `make serve`; None where neither is up."""
    for place in PLACES:
        url = running_at(results / place / "prometheus")
        if url:
            return PrometheusApi(url)
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m monitoring.watch", description=__doc__)
    parser.add_argument("--once", action="store_true", help="show the figures of this moment and end")
    parser.add_argument("--prometheus", metavar="URL", help="default: the one of a run, or of make serve")
    parser.add_argument("--window", type=_window, default=WINDOW, help="what counts as now (%(default)s)")
    parser.add_argument("--results", type=Path, default=Path("results"), help="folder of the runs (%(default)s)")
    options = parser.parse_args(argv)
    prometheus = PrometheusApi(options.prometheus) if options.prometheus else find(options.results)
    if prometheus is None:
        return _fail(_nothing_to_watch())
    console = Console(highlight=False, soft_wrap=True)
    try:
        watch(prometheus, f"Prometheus {prometheus.url}", console, once=options.once, window=options.window)
    except Unreachable as problem:
        return _fail(f"no Prometheus answers at {problem}")
    except QueryRefused as problem:
        return _fail(f"the Prometheus at {prometheus.url} refuses a query: {problem}")
    except KeyboardInterrupt:
        pass  # how one ends it
    return 0


def _cells(values: Mapping[str, float]) -> list[str]:
    return [column.write(values[column.heading]) if column.heading in values else "-" for column in COLUMNS]


def _show(now: Figures, source: str, console: Console) -> None:
    if console.is_terminal:
        console.print(table(now, source))
    else:
        for line in lines(now):
            console.print(line, markup=False)
        console.file.flush()


def _redraw(now: Figures, source: str, live: Live) -> None:
    live.update(table(now, source), refresh=True)


def _window(text: str) -> str:
    if not re.fullmatch(r"[1-9]\d*[sm]", text):
        raise argparse.ArgumentTypeError(f"{text}: use seconds or minutes, such as 10s or 1m")
    return text


def _nothing_to_watch() -> str:
    if shutil.which("prometheus") is None:
        return "Prometheus is not installed, so there is nothing to watch: apt-get install prometheus"
    return "nothing is running: start make compare or make serve in another terminal, or give --prometheus URL"


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
