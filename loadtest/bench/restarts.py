"""How far starts of the same server lie apart (`make bench-restarts`): what every plan of a comparison rests on.

Each target of an experiment is started anew so often, in turn with the others, and measured as in any run: its capacity
over each protocol, and p99 at the common rates. Printed is the standard deviation between starts on a log scale (0.1:
some 10 %), with its 95 % interval (χ²), beside what the trials of one start leave open by themselves. Where both
targets move together from block to block it is the machine and not the servers: their correlation says so.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.special import chdtri

from loadtest.experiment import arguments, records, starts
from loadtest.experiment.compare import compare
from loadtest.experiment.decision import LEVEL, Figure
from loadtest.experiment.questions import Metric
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.starts import Figures, Subject
from loadtest.experiment.verb import Verb
from loadtest.report import wording
from models.problem import Problem
from serving.engines import programs


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add(parser)
    parser.add_argument("--starts", type=int, default=8, help="of each target (8)")
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="tell it of this run, instead of making one")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as JSON, too")
    programs.add_flags(parser)


def _run(options: argparse.Namespace) -> int:
    if not 2 <= options.starts <= 100:
        raise Problem(f"--starts {options.starts}: use 2 to 100")
    with tempfile.TemporaryDirectory(prefix="tandem-bench-") as name:
        run = options.run or _measure(options, options.results if options.fresh else Path(name))
        found = spreads(figures(RunFolder(run.resolve())))
    console = Console(highlight=False, soft_wrap=True, width=max(110, shutil.get_terminal_size().columns))
    console.print(_table(found))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n")
    return 0


def _measure(options: argparse.Namespace, results: Path) -> Path:
    fixed = {"capacity.repetitions": options.starts, "ladder.repetitions": options.starts - 1}
    return compare(
        options.experiment,
        {**arguments.overrides(options), **fixed},
        artifacts=options.artifacts,
        results=results,
        fresh=True,
        programs=programs.named(options),
        words=options.words,
    )


def figures(folder: RunFolder) -> Figures:
    """What each start of a run says."""
    trials = [records.read_trial(path / "trial.json") for path in folder.trials()]
    unsteady = {one.id for one in folder.warm_ups() if not one.steady}
    return starts.figures(trials, folder.searches(), folder.experiment().slo, unsteady)


@dataclass(frozen=True)
class Spread:
    """How far starts of a target lie apart.

    what         "capacity", or "p99 at 600/s"; ``middle``: the geometric mean, requests/s or milliseconds
    between      the standard deviation of starts on a log scale, with its interval (``low``, ``high``)
    within       what the trials of one start leave open, likewise; None for p99, whose trial does not tell
    together     the correlation with the other target's starts of the same blocks; None for more than two targets
    """

    target: str
    protocol: str
    what: str
    starts: int
    middle: float
    between: float
    low: float
    high: float
    within: float | None
    together: float | None


def spreads(found: Figures) -> list[Spread]:
    """One for each target, protocol and figure that has two starts or more."""
    rows = []
    for subject in sorted(found, key=lambda one: (one.protocol, one.metric.value, one.rate, one.target)):
        own = found[subject]
        if len(own) < 2:
            continue
        values = np.array([own[block].log_value for block in sorted(own)])
        between, degrees = float(values.std(ddof=1)), len(values) - 1
        low, high = (
            between * math.sqrt(degrees / chdtri(degrees, tail)) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        )
        capacity = subject.metric is Metric.CAPACITY
        rows.append(
            Spread(
                target=subject.target,
                protocol=subject.protocol,
                what="capacity" if capacity else f"p99 at {subject.rate:g}/s",
                starts=len(values),
                middle=math.exp(values.mean()),
                between=between,
                low=low,
                high=high,
                within=math.sqrt(np.mean([one.variance for one in own.values()])) if capacity else None,
                together=_together(subject, own, found),
            )
        )
    return rows


def _together(subject: Subject, own: Mapping[int, Figure], found: Figures) -> float | None:
    others = [
        one
        for one in found
        if one != subject and (one.metric, one.protocol, one.rate) == (subject.metric, subject.protocol, subject.rate)
    ]
    if len(others) != 1:
        return None
    blocks = sorted(own.keys() & found[others[0]].keys())
    pairs = np.array([[own[block].log_value, found[others[0]][block].log_value] for block in blocks])
    if len(blocks) < 3 or not pairs.std(axis=0).all():
        return None
    return float(np.corrcoef(pairs.T)[0, 1])


def _table(found: Sequence[Spread]) -> Table:
    table = Table(title="How far starts of the same server lie apart")
    for heading in ("target", "over", "figure", "starts", "mean", "SD between starts", "of one search", "together"):
        table.add_column(heading, no_wrap=True)
    for one in found:
        table.add_row(
            one.target,
            wording.protocol(one.protocol),
            one.what,
            str(one.starts),
            wording.number(one.middle),
            f"{one.between:.1%} ({one.low:.1%}-{one.high:.1%})",
            wording.NOTHING if one.within is None else f"{one.within:.1%}",
            wording.NOTHING if one.together is None else f"{one.together:+.2f}",
        )
    return table


VERB = Verb("bench-restarts", "how far starts of the same server lie apart", _add_arguments, _run, __doc__)
