"""A server with a known delay against the same without (`make bench-ab`): the delay must be found, and its size.

TorchServe whose handler takes 5 ms longer. With one request at a time (single-stream) nothing waits for another: the
medians must differ by 5 ms, within 10 %. Under open load, at a rate so low that requests seldom meet, the verdict on
p99 must never name the slower server. The size is not taken from there: between such requests the cores fall asleep,
and how long they take to wake up changes by a millisecond from one minute of a shared machine to the next.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from loadtest.analysis.records import Summary
from loadtest.bench import twins
from loadtest.experiment.file import Experiment
from loadtest.experiment.progress import RunProgress
from loadtest.experiment.questions import Metric
from loadtest.experiment.scenarios import Ladder, SingleStream
from loadtest.experiment.settings import WarmUp
from loadtest.experiment.verb import Verb
from loadtest.report import progress_words, wording

TOLERANCE = 0.1
QUICK, DELAYED = "quick", "delayed"


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--delay-ms", type=float, default=5.0, help="what the handler takes longer (5)")
    parser.add_argument("--repetitions", type=int, default=3, help="trials of each server, each with a start (3)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured seconds of each trial (10)")
    parser.add_argument("--rate", type=float, default=40.0, help="requests/s of the open load (40)")
    parser.add_argument("--bundle", type=Path, help="the model's bundle (default: the first under artifacts/)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the result as JSON, too")


def _run(options: argparse.Namespace) -> int:
    """Exit status: 1 where the delay is not found, or not as long as it is."""
    bundle = twins.find_bundle(options.bundle)
    console = Console(highlight=False, soft_wrap=True)
    rates = {"grpc": (options.rate,)}
    repetitions, seconds = options.repetitions, options.seconds
    experiment = Experiment(
        name="ab",
        targets=twins.specs(twins.HANDLED, (QUICK, DELAYED)),
        protocols=("grpc",),
        scenarios=("single-stream", "ladder"),
        single_stream=SingleStream(repetitions=repetitions, duration_s=seconds, lead_in_s=0.5),
        ladder=Ladder(rates=rates, repetitions=repetitions, duration_s=seconds, lead_in_s=0.5),
        warm_up=WarmUp(concurrency=8, window_s=0.5, min_s=2.0, max_s=10.0, tolerance=0.2),
    )
    with (
        tempfile.TemporaryDirectory(prefix="tandem-bench-") as name,
        RunProgress(progress_words.line, console) as progress,
    ):
        sides = {QUICK: bundle, DELAYED: twins.with_delay(bundle, options.delay_ms / 1000, Path(name) / "delayed")}
        summary = twins.compare(experiment, sides, Path(name) / "results", progress)
    found = judge(summary, options.delay_ms)
    console.print(
        f"delay of {options.delay_ms:g} ms found as {wording.milliseconds(found.difference_ms)} "
        f"({found.error:+.1%}); medians {wording.milliseconds(found.p50_ms[0])} and "
        f"{wording.milliseconds(found.p50_ms[1])}; lower p99: "
        f"{'the server without it' if found.winner == QUICK else 'no verdict'}"
    )
    if options.json:
        options.json.write_text(json.dumps(asdict(found), indent=2) + "\n")
    return int(not found.good)


@dataclass(frozen=True)
class Found:
    """A delay as it was found: medians of the two servers and how far they are apart, in milliseconds, the relative
    error of that, and what the verdict on p99 says."""

    delay_ms: float
    p50_ms: tuple[float, float]
    difference_ms: float
    error: float
    winner: str | None
    valid: bool
    good: bool


def judge(summary: Summary, delay_ms: float) -> Found:
    """How far apart the medians are, and whether the delay was found as what it is."""
    alone = [item for item in summary.measurements if item.scenario == "single-stream"]
    medians = {item.target: item.latency_ms.p50 or math.nan for item in alone}
    difference = medians[DELAYED] - medians[QUICK]
    winner = next(verdict.winner for verdict in summary.verdicts if verdict.metric is Metric.P99)
    error = difference / delay_ms - 1
    return Found(
        delay_ms=delay_ms,
        p50_ms=(medians[QUICK], medians[DELAYED]),
        difference_ms=difference,
        error=error,
        winner=winner,
        valid=all(item.valid for item in summary.measurements),
        good=abs(error) <= TOLERANCE and winner != DELAYED,
    )


VERB = Verb("bench-ab", "a server with a known delay against the same without", _add_arguments, _run, __doc__)
