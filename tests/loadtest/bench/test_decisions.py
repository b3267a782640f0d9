"""A run's decisions on simulated servers: what the default design must reach, in fewer runs than `make bench-decisions`
makes, and so by as much as chance allows."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest

from loadtest.analysis.records import Outcome, Verdict
from loadtest.bench import decisions, known_capacity
from loadtest.bench.decisions import CASES, Row, simulate
from loadtest.bench.synthetic_servers import Runs, Searches, World, experiment
from loadtest.experiment.questions import Family, Metric


def within_chance(row: Row) -> bool:
    """Whether a figure is within its bounds by three standard errors of what a bound allows; of a run's questions each
    counts for a run, because they share its starts."""

    def error(bound: float) -> float:
        return 3 * math.sqrt(bound * (1 - bound) / row.runs)

    return (row.least is None or row.share >= row.least - error(row.least)) and (
        row.most is None or row.share <= row.most + error(row.most)
    )


@pytest.mark.exhaustive
@pytest.mark.beside
def test_the_default_and_the_thorough_design_reach_what_they_must():
    rows = list(simulate(400, 1, CASES))
    assert [row for row in rows if not within_chance(row)] == []
    named = {(row.case, row.spread[0]): row.share for row in rows if row.figure == "named"}
    assert named["capacity 2", 0.1] > named["capacity 2", 0.3] > named["capacity 1.3", 0.3]
    assert all(row.share > row.before for row in rows if row.before is not None and row.figure.endswith("named"))


@pytest.fixture(scope="module")
def runs() -> Runs:
    return Runs(experiment(), Searches(experiment().capacity))


def test_a_twofold_capacity_is_decided_and_equal_ones_are_not(runs):
    draw = np.random.default_rng(4)
    twofold = World({"grpc": 2.0, "rest": 0.5}, spreads=(0.1, 0.1))
    named = []
    for run in runs.outcomes(twofold, 300, draw):
        winners = {one.question.protocol: one.winner for one in run if one.question.metric is Metric.CAPACITY}
        named.append(winners == {"grpc": "pytorch", "rest": "tensorflow"})
        for one in run:
            if one.question.metric is Metric.CAPACITY:
                assert not one.is_wrong
    assert np.mean(named) >= 0.98  # a few runs in a thousand meet starts that lie too far apart
    equal = list(runs.outcomes(World(spreads=(0.1, 0.1)), 60, draw))
    assert sum(any(one.is_wrong for one in run) for run in equal) <= 9
    assert not any(one.is_right for run in equal for one in run)
    covered = [one.is_covered for run in equal for one in run]
    assert 0.9 < np.mean(covered) < 1


def test_a_lower_p99_wins_and_is_found_at_the_main_rate(runs):
    slower_first = World({}, {"grpc": 2.0, "rest": 2.0}, spreads=(0.05, 0.05))
    found = [
        one
        for run in runs.outcomes(slower_first, 20, np.random.default_rng(5))
        for one in run
        if one.question.family is Family.LATENCY
    ]
    assert {one.winner for one in found} == {"tensorflow"}
    assert all(one.is_right for one in found)


def test_a_run_ends_within_its_budget_and_sooner_where_all_is_decided(runs):
    draw = np.random.default_rng(6)
    far = World({"grpc": 4.0, "rest": 4.0}, {"grpc": 0.2, "rest": 0.2}, spreads=(0.05, 0.05))
    near = World({"grpc": 1.05, "rest": 1.05}, spreads=(0.05, 0.05))
    ended = {
        name: [max(one.seconds or math.inf for one in run) for run in runs.outcomes(world, count, draw)]
        for name, world, count in (("far", far, 300), ("near", near, 30))
    }
    decided = [seconds for seconds in ended["far"] if seconds < math.inf]
    assert len(decided) >= 0.98 * 300
    assert np.mean(decided) < 230
    assert min(ended["near"]) == math.inf


def test_the_same_seed_draws_the_same_runs(runs):
    one, other = (
        [[(each.winner, each.starts) for each in run] for run in runs.outcomes(World(), 5, np.random.default_rng(7))]
        for _ in range(2)
    )
    assert one == other


def test_the_table_says_what_must_be_and_what_was_and_its_status_what_is_missed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(decisions, "CASES", (CASES[0],))
    out, table = tmp_path / "rows.json", tmp_path / "rows.md"
    assert decisions.VERB.main(["--runs", "20", "--json", str(out), "--markdown", str(table)]) in (0, 1)
    rows = json.loads(out.read_text())
    assert [row["spread"] for row in rows] == [[0.05, 0.05], [0.1, 0.1], [0.2, 0.2], [0.3, 0.3]]
    assert rows[0]["runs"] == 10
    assert rows[0]["values"] == 20
    assert (rows[0]["least"], rows[0]["before"]) == (0.99, 0.55)
    assert re.search(r"capacity 2 .* 5 % .* named .* 0.55 .* ≥ 0.99", capsys.readouterr().out)
    assert table.read_text().count("\n") == 6

    row = Row("case", (0.1, 0.1), "named", 0.94, 100, 200, 0.95, None, None, None, None)
    monkeypatch.setattr(decisions, "simulate", lambda *_, **__: iter([row]))
    assert decisions.VERB.main(["--runs", "20"]) == 1
    assert "missed: case, 10 %: named in 0.940 of 200" in capsys.readouterr().out


def test_a_shorter_budget_makes_fewer_starts_and_names_fewer():
    def row(budget_s):
        return next(simulate(40, 13, [replace(CASES[0], spreads=((0.1, 0.1),))], budget_s=budget_s))

    short, usual = row(200), row(None)
    assert short.starts < usual.starts
    assert short.share < usual.share == 1


def test_impossible_numbers_of_runs_are_refused(capsys):
    assert decisions.VERB.main(["--runs", "0"]) == 1
    assert "--runs 0: use 10 to 1000000" in capsys.readouterr().err


def verdict(ratio: float, ci95: tuple[float, float], winner: str | None) -> Verdict:
    return Verdict(
        family=Family.CAPACITY,
        protocol="grpc",
        metric=Metric.CAPACITY,
        compared=(known_capacity.QUICK, known_capacity.SLOW),
        outcome=Outcome.WINNER if winner else Outcome.NO_DIFFERENCE_SHOWN,
        winner=winner,
        ratio=ratio,
        ci95=ci95,
    )


@pytest.mark.parametrize(
    ("found", "ratio", "is_found"),
    [
        (verdict(1.9, (1.8, 2.0), "quick"), 2.0, True),
        (verdict(1.7, (1.6, 1.83), "quick"), 2.0, True),  # what lies between two batches is the same for both
        (verdict(1.6, (1.5, 1.7), "quick"), 2.0, False),
        (verdict(1.9, (0.9, 4.0), None), 2.0, False),
        (verdict(0.5, (0.4, 2.2), "slow"), 2.0, False),
        (verdict(1.1, (0.9, 1.3), None), 1.0, True),
        (verdict(1.1, (1.05, 1.15), "quick"), 1.0, False),
    ],
)
def test_known_capacities_are_found_to_a_tenth_and_equal_ones_name_no_winner(found, ratio, is_found):
    assert known_capacity.is_found(found, ratio) == is_found


def test_impossible_ratios_are_refused(capsys):
    assert decisions.VERB.main(["--real", "--ratio", "0.5"]) == 1
    assert "--ratio 0.5: use 1 to 8" in capsys.readouterr().err
