"""The same server against itself, over the whole pipeline (`make bench-aa`): it must show no difference.

Each run compares, on three starts of each server, the capacity and p99 at two rates over gRPC and REST, which are six
comparisons for each pair of its targets. All of a run may together name a winner in one of twenty runs. A comparison
without a valid measurement on either side has no verdict and does not count; further runs make up for it, up to twice
as many as would do without.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from loadtest.analysis.records import Verdict
from loadtest.bench import twins
from loadtest.experiment.file import Experiment
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.scenarios import Capacity, Ladder
from loadtest.experiment.settings import WarmUp
from loadtest.experiment.verb import Verb
from loadtest.report import progress_words, wording
from models.problem import Problem
from serving.engines import programs, registry
from serving.runtimes.process import launch

ALLOWED = 0.05
PER_PAIR = 6
STARTS = 3
# Enough answers for a p99, and far below what any of the servers can do.
RATES = {"grpc": (400.0, 800.0), "rest": (400.0, 800.0)}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--comparisons", type=int, default=20, help="comparisons with a verdict (20)")
    parser.add_argument("--targets", type=int, default=2, help="how often the server takes part in a run (2)")
    parser.add_argument("--seconds", type=float, default=2.5, help="measured seconds of each trial (2.5)")
    known = [engine.default_target for engine in registry.startable()]
    parser.add_argument(
        "--engine", choices=known, default=registry.DEFAULT_TARGETS[-1], help="whose server (%(default)s)"
    )
    parser.add_argument("--bundle", type=Path, help="the model's bundle (default: the first under artifacts/)")
    parser.add_argument("--results", type=Path, help="keep the runs in this folder")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the comparisons as JSON, too")
    programs.add_flags(parser)


def _run(options: argparse.Namespace) -> int:
    """Exit status: 1 where too many comparisons show a difference."""
    if not 1 <= options.comparisons <= 1000:
        raise Problem(f"--comparisons {options.comparisons}: use 1 to 1000")
    if not 2 <= options.targets <= 10:
        raise Problem(f"--targets {options.targets}: use 2 to 10")
    bundle, engine = twins.find_bundle(options.bundle), registry.of_target(options.engine)
    named = programs.named(options)
    launch.require([engine], named)
    names = [f"server-{number + 1}" for number in range(options.targets)]
    targets = twins.specs(engine.id, names)
    per_run = PER_PAIR * math.comb(options.targets, 2)
    console = Console(highlight=False, soft_wrap=True, width=max(100, shutil.get_terminal_size().columns))
    rows: list[tuple[int, Verdict]] = []
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as name:
        results = options.results or Path(name)
        for number in range(2 * -(-options.comparisons // per_run)):
            if sum(verdict.ratio is not None for _, verdict in rows) >= options.comparisons:
                break
            experiment = replace(_experiment(number, options.seconds), targets=targets)
            with RunProgress(progress_words.line, console) as progress:
                summary = twins.compare(experiment, dict.fromkeys(names, bundle), results, progress, named)
            rows += [(number + 1, verdict) for verdict in summary.verdicts]
    _show(rows, console)
    if options.json:
        plain = [{"run": number, **msgspec.to_builtins(verdict)} for number, verdict in rows]
        options.json.write_text(json.dumps(plain, indent=2) + "\n")
    differ = sum(verdict.winner is not None for _, verdict in rows)
    compared = sum(verdict.has_ratio for _, verdict in rows)
    console.print(
        f"{compared - differ} of {compared} comparisons show no difference; {len(rows) - compared} had no verdict"
    )
    return int(compared < options.comparisons or differ > ALLOWED * compared)


def _experiment(number: int, seconds: float) -> Experiment:
    ladder = Ladder(rates=RATES, repetitions=STARTS, duration_s=seconds, lead_in_s=0.3)
    capacity = Capacity(repetitions=STARTS, trials=5)
    warm_up = WarmUp(window_s=0.25, min_s=1.0, max_s=6.0, tolerance=0.2, settle_s=0.0, min_requests=0)
    return Experiment(name="aa", dataset="digits", seed=number, capacity=capacity, ladder=ladder, warm_up=warm_up)


def _show(rows: Sequence[tuple[int, Verdict]], console: Console) -> None:
    table = Table(title="The same server twice: first / second")
    for heading in ("run", "protocol", "metric", "ratio", "95 % interval", "p (adjusted)", "difference"):
        table.add_column(heading, no_wrap=True)
    for number, verdict in rows:
        shown = "no verdict" if not verdict.has_ratio else "shown" if verdict.winner else "none shown"
        cells = [str(number), wording.protocol(verdict.protocol), verdict.metric.value, wording.number(verdict.ratio)]
        table.add_row(*cells, wording.interval(verdict.ci95), wording.number(verdict.p_adjusted, 2), shown)
    console.print(table)


VERB = Verb("bench-aa", "the same server against itself: no difference may be shown", _add_arguments, _run, __doc__)
