"""What makes a measurement invalid, from a real generator and real servers to the verdict: never a winner.

Two servers that differ by 20 ms are told apart; then the faster one's measurement is spoiled, each time in another way.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest.analysis import summary
from loadtest.analysis.records import SentLate, UnsteadyWarmUp, WhyInvalid, WrongAnswers
from loadtest.experiment.phases import OpenLoopPhase, Phase, WarmUpPhase
from loadtest.experiment.questions import Metric
from tests.loadtest.generator.small_servers import generator, small_server, write_plan
from tests.loadtest.runs.build import write_run

pytestmark = pytest.mark.slow

RATE = 300.0  # 1,200 requests in both repetitions: a p99 of fewer than 1,000 is not compared
WARM_UP = WarmUpPhase(
    id="w",
    folder=Path(),
    protocol="rest",
    seed=1,
    concurrency=4,
    window_s=0.2,
    min_s=0.4,
    max_s=3.0,
    tolerance=0.5,
)
TRIAL = OpenLoopPhase(
    id="t",
    folder=Path(),
    protocol="rest",
    seed=1,
    rate=RATE,
    duration_s=2.0,
    lead_in_s=0.2,
    check_share=0.5,
)

# Called with the generator's process while its first trial runs.
Disturb = Callable[["subprocess.Popen[str]"], None]


def measure(run: Path, stack: str, mode: str, disturb: Disturb | None = None, **warm_up: Any) -> None:
    """Two repetitions against a small server, saved as a run saves them."""
    work = run / "generator" / stack
    work.mkdir(parents=True)
    with small_server("rest", mode) as (where, _):
        warm = msgspec.structs.replace(WARM_UP, id=f"{stack}-rest", folder=run / "warm-ups" / stack, **warm_up)
        phases: list[Phase] = [warm]
        for number in (1, 2):
            name = f"{stack}-{number}"
            place = run / "trials" / name
            phases.append(
                msgspec.structs.replace(TRIAL, id=name, folder=place, seed=number, repetition=number, warm_up=stack)
            )
        with generator(write_plan(work, replace(where, name=stack), phases)) as process:
            assert process.stdout is not None
            for line in process.stdout:
                event = json.loads(line)
                if disturb and (event["event"], event["id"]) == ("second", f"{stack}-1"):
                    disturb(process)
                    disturb = None
            _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log


@contextmanager
def comparison(folder: Path, slower: Path) -> Iterator[Path]:
    """A run with the slower server's trials in it, proven to serve the same model as the other."""
    run = write_run(folder / "run", {}, rates={"rest": [RATE]}, asked=["pytorch", "tensorflow"])
    for part in ("trials", "warm-ups"):
        for path in (slower / part).iterdir():
            (run / part).mkdir(exist_ok=True)
            (run / part / path.name).symlink_to(path)
    figures = {"max_abs_diff": 0.0, "top1_agreement": 1.0, "samples": 64}
    wire = {"tolerance": 1e-4, "targets": {stack: {"rest": figures} for stack in ("pytorch", "tensorflow")}}
    (run / "wire-parity.json").write_text(json.dumps(wire))
    yield run


@pytest.fixture(scope="module")
def slower(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("slower")
    measure(folder, "tensorflow", "delay:0.2")
    return folder


def stutter(process: subprocess.Popen[str]) -> None:
    """Take the CPU away from the generator every now and then, as a saturated machine does."""
    for _ in range(4):
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(0.08)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.02)


CASES: dict[str, tuple[str, Disturb | None, dict[str, Any], type[WhyInvalid]]] = {
    "a saturated generator": ("ok", stutter, {}, SentLate),
    "a server that answers wrongly": ("wrong", None, {}, WrongAnswers),
    "an unsteady warm-up": ("ok", None, {"tolerance": 1e-9, "max_s": 0.9}, UnsteadyWarmUp),
}


def test_two_servers_that_differ_are_told_apart(tmp_path, slower):
    with comparison(tmp_path, slower) as run:
        # Not "ok": by how much p99s of a fraction of a millisecond differ from start to start, two starts cannot tell.
        measure(run, "pytorch", "delay:0.02")
        figures = summary.build(run)
    latency = next(verdict for verdict in figures.verdicts if verdict.metric is Metric.P99)
    if all(item.valid for item in figures.measurements):  # where the machine lets the generator keep its schedule
        assert latency.winner == "pytorch"
    assert latency.winner != "tensorflow"


@pytest.mark.parametrize("case", CASES)
def test_a_spoiled_measurement_is_invalid_and_never_wins(tmp_path, slower, case):
    mode, disturb, warm_up, reason = CASES[case]
    with comparison(tmp_path, slower) as run:
        measure(run, "pytorch", mode, disturb, **warm_up)
        figures = summary.build(run)
    spoiled = next(item for item in figures.measurements if item.target == "pytorch")
    assert not spoiled.valid
    assert any(isinstance(fault.reason, reason) for fault in spoiled.why_not_valid)
    assert {verdict.winner for verdict in figures.verdicts} == {None}
    # A generator that sent late costs the start that it spoiled: if that is the first alone, the other stands the rate.
    late = {number for fault in spoiled.why_not_valid for number in fault.repetitions}
    standing = RATE if reason is SentLate and late == {1} else None
    assert next(item for item in figures.capacity if item.target == "pytorch").max_rate == standing
