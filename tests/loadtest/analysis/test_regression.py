"""A gate: what a run that is slower is found by, and that an equal one is not; in simulation, and on run folders."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from loadtest.analysis import regression, saved_run
from loadtest.analysis.records import GateOutcome, GateQuestion, Undecided
from loadtest.analysis.regression import Tolerances, worse
from loadtest.experiment import staircase
from loadtest.experiment.decision import Figure, compare
from loadtest.experiment.questions import Metric
from models.problem import Problem
from tests.loadtest.runs.build import PRECISION, SAME, TORCHSERVE, TRIALS, SimulatedServer, write_run

TOLERANCE = 1.05
APART = 0.02


def write(folder: Path, base_ms: float, seed: int, searches: int = 0, engine: SimulatedServer = TORCHSERVE) -> Path:
    server = replace(engine, base_ms=base_ms, capacity=2700 / base_ms, apart=APART)
    return write_run(
        folder,
        {"pytorch": server},
        rates={"grpc": [200.0]},
        repetitions=6,
        duration_s=3,
        seed=seed,
        searches=searches,
        overload={"grpc": 1100.0},
    )


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "before", 3.0, seed=1, searches=6)


@pytest.fixture(scope="module")
def slower(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "slower", 4.5, seed=2, searches=6)


def gate(run: Path, baseline: Path, tolerance: float = TOLERANCE) -> tuple[GateQuestion, ...]:
    return worse(saved_run.load(run), saved_run.load(baseline), Tolerances(tolerance, tolerance))


def test_a_slower_run_is_worse_in_capacity_and_in_latency(before, slower):
    answers = gate(slower, before)
    assert [(one.target, one.metric, one.offered_rate) for one in answers] == [
        ("pytorch", Metric.CAPACITY, None),
        ("pytorch", Metric.P99, 200.0),
    ]
    for one in answers:
        assert (one.outcome, one.why, one.starts) == (GateOutcome.WORSE, None, 6)
        assert 1.05 < (one.at_least or 0) < (one.ratio or 0) < (one.at_most or 0)
    capacity, latency = answers
    assert (capacity.baseline or 0) > (capacity.this or 0)
    assert capacity.ratio == pytest.approx((capacity.baseline or 0) / (capacity.this or 1))
    assert latency.ratio == pytest.approx((latency.this or 0) / (latency.baseline or 1))
    assert regression.outcome(answers) is GateOutcome.WORSE


def test_a_faster_run_is_no_worse_and_a_generous_tolerance_lets_a_slower_one_pass(before, slower):
    for answers in (gate(before, slower), gate(slower, before, tolerance=3.0)):
        assert {one.outcome for one in answers} == {GateOutcome.NO_WORSE}
        assert regression.outcome(answers) is GateOutcome.NO_WORSE
    for turned, one in zip(gate(before, slower), gate(slower, before), strict=True):
        assert turned.ratio == pytest.approx(1 / (one.ratio or 0))


def test_a_tolerance_within_the_interval_decides_nothing(before, tmp_path):
    again = write(tmp_path / "again", 3.0, seed=9)
    (latency,) = gate(again, before, tolerance=1.5)
    assert latency.outcome is GateOutcome.NO_WORSE
    (latency,) = gate(again, before, tolerance=latency.ratio or 0)
    assert (latency.outcome, latency.why) == (GateOutcome.NOT_DECIDED, Undecided.TOLERANCE_WITHIN)
    assert (latency.at_least or 9) < (latency.ratio or 0) < (latency.at_most or 0)


def edited(run: Path, folder: Path, **values: object) -> Path:
    """A copy of a run in which every trial of the ladder says this."""
    copy = shutil.copytree(run, folder)
    for path in copy.glob("trials/*/trial.json"):
        record = json.loads(path.read_text())
        if record["scenario"] == "ladder":
            path.write_text(json.dumps({**record, **values}))
            (path.parent / "timeline.csv").unlink()  # its counts would be others
    return copy


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"wrong": 1}, Undecided.NO_VALID_RATE),
        ({"errors": {"status 503": 30}}, Undecided.TOO_MANY_ERRORS),
        ({"repetition": 1}, Undecided.TOO_FEW_STARTS),
    ],
)
def test_a_faster_run_that_broke_a_rule_or_fails_requests_does_not_pass(before, slower, tmp_path, values, why):
    *_, latency = gate(edited(before, tmp_path / "run", **values), slower)
    assert (latency.outcome, latency.why) == (GateOutcome.NOT_DECIDED, why)
    # Nor does it pass where it serves another model.
    if why is Undecided.TOO_MANY_ERRORS:
        run = shutil.copytree(before, tmp_path / "other")
        (run / "wire-parity.json").unlink()
        assert {one.why for one in gate(run, slower)} == {Undecided.PARITY_NOT_PROVEN}


def test_errors_or_doubts_do_not_hide_that_a_run_is_worse(before, slower, tmp_path):
    run = edited(slower, tmp_path / "run", errors={"status 503": 30})
    (run / "wire-parity.json").unlink()
    assert {one.outcome for one in gate(run, before)} == {GateOutcome.WORSE}


def test_runs_without_a_rate_in_common_leave_nothing_to_ask(before, tmp_path):
    other = write_run(tmp_path / "run", {"pytorch": SAME}, rates={"grpc": [300.0]}, duration_s=1)
    assert gate(other, before) == ()
    assert regression.outcome(()) is GateOutcome.NOT_DECIDED
    alone = write_run(tmp_path / "alone", {"tensorflow": SAME}, rates={"grpc": [200.0]}, duration_s=1)
    with pytest.raises(Problem, match="no target was measured in both"):
        gate(alone, before)


# Shares of the capacity at which latency is compared, and the standard deviations of the logarithm of a start's figures
# about what that start is like: of a capacity by a search of eight trials, and of p99 by 2.5 s of answers.
SHARES, SEARCHED, P99 = (0.3, 0.6, 0.85), 0.06, 0.05


def simulated(rng: np.random.Generator, starts: int, apart: float, speed: float) -> list[list[Figure]]:
    """The figures of a run whose server is `speed` times as fast and its starts `apart` (SD, over both protocols
    alike): for each of two protocols the capacity and p99 at three rates, which moves as an M/M/1 queue's does: by
    1 / (1 - share) times what the speed moves by."""
    faster = math.log(speed) + rng.normal(0, apart, starts)
    found = []
    for _ in range(2):
        values = [(faster + rng.normal(0, SEARCHED, starts), SEARCHED)]
        values += [(-faster / (1 - share) + rng.normal(0, P99, starts), 0.03) for share in SHARES]
        found += [[Figure(float(one), sd**2) for one in column] for column, sd in values]
    return found


def alarms(starts: int, apart: float, speed: float, runs: int = 400) -> float:
    """The share of gates that say "worse" of a run against a baseline of speed 1."""
    rng = np.random.default_rng([starts, round(apart * 1000), round(speed * 1000)])
    metrics = [Metric.CAPACITY, *[Metric.P99] * len(SHARES)] * 2
    return float(
        np.mean(
            [
                called_worse(simulated(rng, starts, apart, 1.0), simulated(rng, starts, apart, speed), metrics)
                for _ in range(runs)
            ]
        )
    )


def called_worse(before: list[list[Figure]], after: list[list[Figure]], metrics: list[Metric]) -> bool:
    """Whether a gate says "worse", by the figures of both runs' starts for each question."""
    chance = regression.chances(metrics)
    compared = [compare(*pair) for pair in zip(before, after, strict=True)]
    answers = [
        regression.decide(one, metric, TOLERANCE, chance[metric])[0]
        for one, metric in zip(compared, metrics, strict=True)
        if one
    ]
    return GateOutcome.WORSE in answers


@pytest.mark.parametrize("starts", [24, 32])
def test_a_regression_of_a_tenth_is_found_in_nine_of_ten_thorough_runs(starts):
    """Where starts lie 5 % apart."""
    assert alarms(starts, apart=0.05, speed=1 / 1.1) >= 0.9


@pytest.mark.parametrize(
    ("starts", "apart"), [(3, 0.1), (3, 0.3), (4, 0.2), (24, 0.02), (24, 0.05), (32, 0.05), (32, 0.1), (32, 0.2)]
)
def test_an_equal_run_is_called_worse_in_at_most_one_of_a_hundred(starts, apart):
    assert alarms(starts, apart, speed=1.0) <= 0.01


@pytest.mark.parametrize("starts", [(3, 3), (3, 24), (32, 4), (8, 8)])
def test_many_questions_with_nothing_in_common_raise_no_more_false_alarms(starts):
    """Two targets, two protocols, a capacity and four rates each; all starts as far apart as a p99's may be."""
    rng = np.random.default_rng(starts)
    metrics = [Metric.CAPACITY, *[Metric.P99] * 4] * 4
    runs = 1500
    found = 0
    for _ in range(runs):
        sides = [[[Figure(float(x)) for x in rng.normal(0, 0.4, count)] for _ in metrics] for count in starts]
        found += called_worse(sides[0], sides[1], metrics)
    assert found <= 0.01 * runs + 2 * math.sqrt(0.01 * runs)


def searched(rng: np.random.Generator, count: int, apart: float, capacity: float, centre: float) -> list[Figure]:
    """So many starts whose capacities were searched for by the real staircase, with trials that lapse."""
    found = []
    for _ in range(count):
        own = math.log(capacity) + rng.normal(0, apart)
        tries: list[staircase.Try] = []
        while len(tries) < TRIALS and (not tries or staircase.believe(tries, centre).sd > PRECISION):
            rate = staircase.following(tries, centre)
            tries.append(staircase.Try(rate, bool(rng.random() < staircase.meets(math.log(rate), own))))
        belief = staircase.believe(tries, centre)
        found.append(Figure(belief.log_rate, belief.sd**2))
    return found


@pytest.mark.exhaustive
@pytest.mark.beside
@pytest.mark.timeout(1200)
def test_capacities_alone_tell_a_regression_of_a_tenth_and_no_other():
    """Of the first of two servers that stand the same, over both protocols, whose starts lie 5 % apart; each run draws
    its starts from many that were really searched for."""
    rng = np.random.default_rng(13)
    equal, slower = (np.array(searched(rng, 300, 0.05, rate, 700.0)) for rate in (700.0, 700.0 * 0.9))
    metrics = [Metric.CAPACITY] * 4

    def caught(after: np.ndarray, starts: int) -> float:
        seen = []
        for _ in range(1000):
            drawn = rng.integers(0, len(equal), (8, starts))
            before = [[*equal[one]] for one in drawn[:4]]
            now = [[*(after if place < 2 else equal)[one]] for place, one in enumerate(drawn[4:])]
            seen.append(called_worse(before, now, metrics))
        return float(np.mean(seen))

    for starts in (24, 32):
        assert caught(slower, starts) >= 0.9
    for starts in (3, 8, 24, 32):
        assert caught(equal, starts) <= 0.01


def test_bounds_hold_the_true_ratio_as_often_as_they_say():
    rng = np.random.default_rng(7)
    above, below = [], []
    for _ in range(4000):
        one, other = ([Figure(float(x)) for x in mean + rng.normal(0, 0.1, 5)] for mean in (0.0, math.log(1.2)))
        compared = compare(one, other)
        assert compared is not None
        ratio, at_least, at_most = regression.bounds(compared, Metric.P99)
        assert at_least < ratio < at_most
        above.append(at_least > 1.2)
        below.append(at_most < 1.2)
    # At most as often as they say, and hardly less: 4 degrees of freedom stand for the 6 to 8 of five starts each.
    assert 0.03 <= np.mean(above) <= 0.055
    assert 0.03 <= np.mean(below) <= 0.055
