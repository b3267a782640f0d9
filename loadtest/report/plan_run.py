"""The verb plan-run: what it takes to find a difference, before anything runs."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from loadtest.experiment import arguments, decision, plan, standing
from loadtest.experiment import file as experiments
from loadtest.experiment.file import Experiment
from loadtest.experiment.questions import Family
from loadtest.experiment.run import start_s
from loadtest.experiment.verb import Verb
from loadtest.report import wording
from models.problem import Problem

# How far starts of one server lie apart, on a log scale; docs/measurement.md says what was found here.
SPREADS = (0.05, 0.1, 0.2)
# Where the searches of an experiment that was never probed are centred, requests/s: only slow servers take longer.
ANY_CENTRE = 1000.0


@dataclass(frozen=True)
class Budget:
    """What finds a ratio of ``effect`` in each of the capacities four times in five, where starts lie ``spread`` apart:
    so many starts of each target, and what they take: ``trials_s`` of the budget, and ``seconds`` with starts and
    warm-ups."""

    spread: float
    effect: float
    starts: int
    trials_s: float
    seconds: float


def budget(experiment: Experiment, effect: float, spread: float) -> Budget:
    """The budget of an experiment for an effect (a ratio above 1)."""
    known = _with_rates(experiment)
    asked = sum(1 for one in plan.questions(known) if one.family is Family.CAPACITY)
    error = decision.ERROR * decision.SHARES[0] / max(asked, 1) * decision.LAST_SHARE
    starts = max(plan.FEWEST, decision.starts_for(effect, spread, error))
    blocks = [plan.block(known, number, plan.questions(known)) for number in range(1, min(starts, 4) + 1)]
    trials_s = [standing.cost(known, block) for block in blocks]
    seconds = [math.fsum(start_s(known, start) for start in block) for block in blocks]
    more = starts - len(blocks)
    return Budget(
        spread=spread,
        effect=effect,
        starts=starts,
        trials_s=math.fsum(trials_s) + more * trials_s[-1],
        seconds=math.fsum(seconds) + more * seconds[-1],
    )


def detectable(experiment: Experiment, spread: float) -> float:
    """The ratio of capacities, above 1, that an experiment's own budget finds four times in five."""
    known = _with_rates(experiment)
    asked = sum(1 for one in plan.questions(known) if one.family is Family.CAPACITY)
    error = decision.ERROR * decision.SHARES[0] / max(asked, 1) * decision.LAST_SHARE
    return decision.detectable(len(standing.longest(known)), spread, error)


def _with_rates(experiment: Experiment) -> Experiment:
    """The experiment with rates for everything that a probe would find."""
    throughput = {name: dict.fromkeys(experiment.protocols, ANY_CENTRE) for name in experiment.target_names}
    return plan.resolve(experiment, throughput)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    arguments.add(parser)
    parser.add_argument("--effect", type=float, default=1.1, help="the ratio of capacities that is to be found (1.1)")
    parser.add_argument(
        "--spread", type=float, action="append", help="how far starts lie apart (0.1: 10 %%; default: 5, 10 and 20 %%)"
    )


def _run(options: argparse.Namespace) -> int:
    experiment = experiments.load(options.experiment, arguments.overrides(options))
    spreads: Sequence[float] = options.spread or SPREADS
    if not 1.001 <= options.effect <= 100:
        raise Problem(f"--effect {options.effect:g}: use a ratio from 1.001 to 100, such as 1.1")
    for spread in spreads:
        if not 0.001 <= spread <= 2:
            raise Problem(f"--spread {spread:g}: use a standard deviation on a log scale from 0.001 to 2")
    if len(experiment.targets) < 2 or "capacity" not in experiment.scenarios:
        raise Problem(f"experiment {options.experiment}: it compares no capacities of two targets")
    table = Table(title=f"To find a ratio of {wording.number(options.effect)} between capacities, four times in five")
    for heading in ("starts lie apart", "starts of each", "budget_s", "time", "this budget finds"):
        table.add_column(heading, justify="right", no_wrap=True)
    for spread in spreads:
        found = budget(experiment, options.effect, spread)
        table.add_row(
            wording.share(spread),
            str(found.starts),
            f"{found.trials_s:.0f}",
            f"{found.seconds / 60:.0f} min",
            wording.number(detectable(experiment, spread)),
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(
        f"{experiment.name} has decision.budget_s = {experiment.decision.budget_s:g}, at most "
        f"{len(standing.longest(_with_rates(experiment)))} starts of each target. How far starts lie apart on this "
        "machine: make bench-restarts."
    )
    return 0


VERB = Verb("plan-run", "what it takes to find a difference, before anything runs", _add_arguments, _run, __doc__)
