"""How surely a run decides, on synthetic servers whose truth is known (`make bench-decisions`).

Whole runs are simulated (see `synthetic_servers`), of two targets over two protocols, whose starts lie as far apart as
the row says (the standard deviation of a start's capacity and p99 on a log scale). What a run decides is decided by its
own code. Beside each figure stands that of the design before this one (`BEFORE`), and what it must be. With --real a
run is made on real servers whose capacities are known, instead (see `known_capacity`).
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from loadtest.bench import known_capacity
from loadtest.bench.synthetic_servers import Outcome, Runs, Searches, World, experiment
from loadtest.experiment.questions import Family, Metric
from loadtest.experiment.settings import Decision
from loadtest.experiment.verb import Verb
from models.problem import Problem

FigureOfRun = Callable[[Sequence[Outcome]], list[bool]]
"""What a figure counts of one run: a value for each question or interval that it is about."""


@dataclass(frozen=True)
class Asked:
    """A figure: the share of values that are true, over all runs; what it must be at least and at most, and what it was
    `before`, each by the standard deviation of starts (the larger one, where the two servers differ)."""

    name: str
    of_run: FigureOfRun
    least: Mapping[float, float] = field(default_factory=dict)
    most: Mapping[float, float] = field(default_factory=dict)
    before: Mapping[float, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """What is true of the servers, and what is asked of runs that compare them.

    capacity, p99  ratios, first / second, by protocol
    spreads        the standard deviation of each server's starts, for each row
    about          the family whose questions are waited for, in starts and seconds
    share          how many of the runs that were asked for are enough
    """

    name: str
    asked: tuple[Asked, ...]
    spreads: tuple[tuple[float, float], ...]
    capacity: Mapping[str, float] = field(default_factory=dict)
    p99: Mapping[str, float] = field(default_factory=dict)
    drift: float = 0.0
    about: Family = Family.CAPACITY
    experiment: str = "default"
    share: float = 0.5


@dataclass(frozen=True)
class Row:
    """A line of the table: a figure of a case, with its bounds (None: none).

    spread           of the servers' starts
    runs, values     simulated, and what the figure is a share of
    starts, seconds  of each target, and of trials, when all that the case is about was decided; means of the runs in
                     which it was; None: of none
    """

    case: str
    spread: tuple[float, float]
    figure: str
    share: float
    runs: int
    values: int
    least: float | None
    most: float | None
    before: float | None
    starts: float | None
    seconds: float | None

    @property
    def is_met(self) -> bool:
        """Whether it is within its bounds."""
        return (self.least is None or self.share >= self.least) and (self.most is None or self.share <= self.most)


def _named(family: Family) -> FigureOfRun:
    return lambda run: [one.is_right for one in run if one.question.family is family]


def _all_named(run: Sequence[Outcome]) -> list[bool]:
    return [all(_named(Family.CAPACITY)(run))]


def _any_wrong(run: Sequence[Outcome]) -> list[bool]:
    return [any(one.is_wrong for one in run)]


def _covered(metric: Metric) -> FigureOfRun:
    return lambda run: [one.is_covered for one in run if one.question.metric is metric and one.is_covered is not None]


def _both(ratio: float) -> dict[str, float]:
    return {"grpc": ratio, "rest": ratio}


EVERY = (0.05, 0.1, 0.2, 0.3)
ALIKE = tuple((one, one) for one in EVERY)

# The design before this one: two starts of each target, a search of up to 26 s on each, a winner only where both ends
# of both brackets were confirmed, Holm's correction over all six questions. Simulated once, with its own code (commit
# 3066939: capacity_search.look, capacity.of, verdicts) on servers like these, 500 runs a figure.
BEFORE: dict[str, dict[float, float]] = {
    "2": {0.05: 0.55, 0.1: 0.37, 0.2: 0.23, 0.3: 0.16},
    "1.3": {0.05: 0.11, 0.1: 0.06, 0.2: 0.05, 0.3: 0.04},
    "2 and 1/2": {0.05: 0.37, 0.1: 0.17, 0.2: 0.09, 0.3: 0.04},
    "wrong": {0.05: 0.009, 0.1: 0.017, 0.2: 0.033, 0.3: 0.071},
    "covered": {0.05: 0.99, 0.1: 0.972, 0.2: 0.952, 0.3: 0.891},
}

WRONG = Asked("any winner", _any_wrong, most=dict.fromkeys(EVERY, 0.05))
CASES = (
    Case(
        "capacity 2",
        (Asked("named", _named(Family.CAPACITY), {0.05: 0.99, 0.1: 0.99, 0.2: 0.95}, before=BEFORE["2"]),),
        ALIKE,
        capacity=_both(2),
    ),
    Case(
        "capacity 1.3",
        (Asked("named", _named(Family.CAPACITY), {0.05: 0.8, 0.1: 0.65}, before=BEFORE["1.3"]),),
        ALIKE,
        capacity=_both(1.3),
    ),
    Case(
        "capacity 1.3, thorough",
        (Asked("named", _named(Family.CAPACITY), {0.05: 0.95, 0.1: 0.95}),),
        ALIKE,
        capacity=_both(1.3),
        experiment="thorough",
        share=0.1,
    ),
    Case(
        "capacity 2 over gRPC, 1/2 over REST",
        (Asked("both named", _all_named, {0.1: 0.95}, before=BEFORE["2 and 1/2"]),),
        ALIKE,
        capacity={"grpc": 2, "rest": 0.5},
    ),
    Case(
        "p99 1.5 and capacity 1/1.5",
        (Asked("named", _named(Family.LATENCY), {0.05: 0.9, 0.1: 0.9}),),
        ALIKE,
        capacity=_both(1 / 1.5),
        p99=_both(1.5),
        about=Family.LATENCY,
    ),
    Case(
        "p99 1.5, the same capacity",
        (Asked("named", _named(Family.LATENCY), {0.05: 0.9}),),
        ALIKE,
        p99=_both(1.5),
        about=Family.LATENCY,
    ),
    Case(
        "the same",
        (
            Asked("any winner", _any_wrong, most=dict.fromkeys(EVERY, 0.05), before=BEFORE["wrong"]),
            Asked(
                "capacity in its interval",
                _covered(Metric.CAPACITY),
                dict.fromkeys(EVERY, 0.93),
                dict.fromkeys(EVERY, 0.97),
                BEFORE["covered"],
            ),
            Asked("p99 in its interval", _covered(Metric.P99), dict.fromkeys(EVERY, 0.93), dict.fromkeys(EVERY, 0.97)),
        ),
        ALIKE,
        share=1.0,
    ),
    # As many runs as for the others would take an hour, and fewer tell too little to ask for 5 %.
    Case("the same, thorough", (Asked("any winner", _any_wrong),), ALIKE[:3], experiment="thorough", share=0.25),
    Case("the same, the machine drifts by 5 % a block", (WRONG,), ALIKE, drift=0.05, share=1.0),
    Case("the same, one of them steadier", (WRONG,), ((0.05, 0.2),), share=1.0),
)


def simulate(
    runs: int,
    seed: int,
    cases: Sequence[Case],
    told: Callable[[], None] = lambda: None,
    *,
    budget_s: float | None = None,
) -> Iterator[Row]:
    """The rows of cases. `told` is called after each run; ``budget_s``: seconds of trials of the default experiment,
    where they are not to be its own."""
    searches = Searches(experiment().capacity)
    experiments = {name: experiment(name) for name in {case.experiment for case in cases}}
    if budget_s is not None and "default" in experiments:
        experiments["default"] = replace(experiments["default"], decision=Decision(budget_s))
    played = {name: Runs(one, searches) for name, one in experiments.items()}
    for case in cases:
        for spreads in case.spreads:
            world = World(case.capacity, case.p99, spreads, case.drift)
            outcomes = []
            for run in played[case.experiment].outcomes(world, _runs(case, runs), np.random.default_rng(seed)):
                outcomes.append(run)
                told()
            yield from _rows(case, spreads, outcomes)


def _runs(case: Case, runs: int) -> int:
    return math.ceil(case.share * runs)


def _rows(case: Case, spreads: tuple[float, float], outcomes: Sequence[Sequence[Outcome]]) -> Iterator[Row]:
    ended = []
    for run in outcomes:
        waited_for = [(one.starts, one.seconds) for one in run if one.question.family is case.about]
        if all(starts is not None for starts, _ in waited_for):
            ended.append(tuple(max(one or 0.0 for one in ends) for ends in zip(*waited_for, strict=True)))
    starts, seconds = (float(np.mean(ends)) for ends in zip(*ended, strict=True)) if ended else (None, None)
    for asked in case.asked:
        values = [value for run in outcomes for value in asked.of_run(run)]
        yield Row(
            case=case.name,
            spread=spreads,
            figure=asked.name,
            share=float(np.mean(values)),
            runs=len(outcomes),
            values=len(values),
            least=asked.least.get(max(spreads)),
            most=asked.most.get(max(spreads)),
            before=asked.before.get(max(spreads)),
            starts=starts,
            seconds=seconds,
        )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--runs", type=int, default=2000, help="simulated runs of a case about errors; of others less")
    parser.add_argument("--seed", type=int, default=13, help="of all that is drawn at random (13)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the table as JSON, too")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="and as a table in Markdown")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="of trials of a run (the default experiment's)")
    known_capacity.add_arguments(parser)


def _run(options: argparse.Namespace) -> int:
    """Exit status: 1 where a figure is not what it must be."""
    if options.real:
        return known_capacity.bench(options)
    if not 10 <= options.runs <= 1_000_000:
        raise Problem(f"--runs {options.runs}: use 10 to 1000000")
    console = Console(highlight=False, soft_wrap=True, width=max(165, shutil.get_terminal_size().columns))
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
        transient=True,
    ) as bar:
        total = sum(_runs(case, options.runs) * len(case.spreads) for case in CASES)
        task = bar.add_task("simulated runs", total=total)
        advance = partial(bar.advance, task)
        rows = list(simulate(options.runs, options.seed, CASES, advance, budget_s=options.budget))
    _show(rows, console)
    if options.json:
        plain = [{**asdict(row), "is_met": row.is_met} for row in rows]
        options.json.write_text(json.dumps(plain, indent=2) + "\n")
    if options.markdown:
        options.markdown.write_text(_markdown(rows))
    missed = [row for row in rows if not row.is_met]
    for row in missed:
        console.print(f"missed: {row.case}, {_spread(row)}: {row.figure} in {row.share:.3f} of {row.values}")
    return int(bool(missed))


HEADINGS = (
    "the servers, first / second",
    "starts' SD",
    "figure",
    "before",
    "now",
    "must be",
    "starts",
    "seconds",
    "met",
)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.case,
        _spread(row),
        row.figure,
        "-" if row.before is None else f"{row.before:.3g}",
        f"{row.share:.3f}",
        _bounds(row),
        "-" if row.starts is None else f"{row.starts:.1f}",
        "-" if row.seconds is None else f"{row.seconds:.0f}",
        "-" if row.least is row.most is None else "yes" if row.is_met else "NO",
    )


def _spread(row: Row) -> str:
    return " and ".join(f"{one:.0%}".replace("%", " %") for one in dict.fromkeys(row.spread))


def _bounds(row: Row) -> str:
    if row.least is not None and row.most is not None:
        return f"{row.least:g}–{row.most:g}"
    return f"≥ {row.least:g}" if row.least is not None else f"≤ {row.most:g}" if row.most is not None else "-"


def _show(rows: Sequence[Row], console: Console) -> None:
    table = Table(title="Shares of simulated runs; starts and seconds of trials until it was decided")
    for heading in HEADINGS:
        table.add_column(heading, justify="left" if heading in HEADINGS[:3] else "right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row))
    console.print(table)


def _markdown(rows: Sequence[Row]) -> str:
    lines = [HEADINGS, ["---"] * 3 + ["---:"] * (len(HEADINGS) - 3), *map(_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


VERB = Verb("bench-decisions", "how surely a run decides, on simulated servers", _add_arguments, _run, __doc__)
