"""Two real servers whose capacities are known, compared as any others (`make bench-decisions ARGS=--real`).

TorchServe twice, over gRPC, with a handler that takes a known time for each batch: `BATCH` images in `BATCH_S` by the
quick one, and in so many times as long by the slow one. The run must name the quick one and find that ratio; where the
ratio is 1, it must name none.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import msgspec
from rich.console import Console

from loadtest.analysis.records import Outcome, Verdict
from loadtest.bench import twins
from loadtest.experiment.file import Experiment
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.questions import Metric
from loadtest.experiment.settings import Decision, Slo, WarmUp
from loadtest.report import progress_words, wording
from models.problem import Problem
from serving.profile import ServingProfile

QUICK, SLOW = "quick", "slow"
BATCH, BATCH_S = 8, 0.008
# What TorchServe does between two batches is the same for both, so that the ratio is a little smaller than that of the
# batches' times.
TOLERANCE = 0.1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of the bench on real servers."""
    parser.add_argument("--real", action="store_true", help="instead: a run on two real servers of known capacities")
    parser.add_argument("--ratio", type=float, default=2.0, help="of their capacities (2)")
    parser.add_argument("--bundle", type=Path, help="the model's bundle (default: the first under artifacts/)")
    parser.add_argument("--results", type=Path, help="keep the run in this folder")


def bench(options: argparse.Namespace) -> int:
    """Exit status: 1 where the run does not find what is known."""
    if not 1 <= options.ratio <= 8:
        raise Problem(f"--ratio {options.ratio:g}: use 1 to 8")
    bundle = twins.find_bundle(options.bundle)
    console = Console(highlight=False, soft_wrap=True)
    with (
        tempfile.TemporaryDirectory(prefix="tandem-bench-") as name,
        RunProgress(progress_words.line, console) as progress,
    ):
        sides = {
            QUICK: twins.lasting(bundle, BATCH_S, Path(name) / QUICK),
            SLOW: twins.lasting(bundle, BATCH_S * options.ratio, Path(name) / SLOW),
        }
        chosen = experiment(Decision().budget_s if options.budget is None else options.budget, options.seed)
        found = twins.compare(chosen, sides, options.results or Path(name) / "results", progress)
    verdict = next(one for one in found.verdicts if one.metric is Metric.CAPACITY)
    console.print(
        f"capacity ratio of {options.ratio:g} found as {wording.number(verdict.ratio)} "
        f"({wording.interval(verdict.ci95)}) by {verdict.starts} starts of each server; higher: "
        f"{verdict.winner or 'no difference shown'}"
    )
    if options.json:
        options.json.write_text(json.dumps(msgspec.to_builtins(verdict), indent=2) + "\n")
    return int(not is_found(verdict, options.ratio))


def experiment(budget_s: float, seed: int) -> Experiment:
    """A search for both servers' capacities, and nothing else."""
    return Experiment(
        name="known-capacity",
        seed=seed,
        targets=twins.specs(twins.HANDLED, (QUICK, SLOW)),
        protocols=("grpc",),
        scenarios=("capacity",),
        profile=ServingProfile(max_batch_size=BATCH),
        slo=Slo(p99_ms=100.0),
        decision=Decision(budget_s),
        warm_up=WarmUp(min_s=2.0, max_s=12.0, settle_s=0.0, min_requests=2000),
    )


def is_found(verdict: Verdict, ratio: float) -> bool:
    """Whether the run says what is known of the servers, to `TOLERANCE`."""
    if ratio == 1:
        return verdict.outcome is Outcome.NO_DIFFERENCE_SHOWN
    near = verdict.ci95 is not None and verdict.ci95[0] / (1 + TOLERANCE) <= ratio <= verdict.ci95[1] * (1 + TOLERANCE)
    return near and verdict.winner == QUICK
