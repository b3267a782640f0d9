"""A plan is read and checked before anything is loaded."""

from __future__ import annotations

import json

import pytest

from loadtest.experiment import phases
from loadtest.experiment.phases import OpenLoopPhase, WarmUpPhase
from models.problem import Problem
from tests.loadtest.generator.small_servers import target

WARM_UP = {"kind": "warm-up", "id": "w", "folder": "r/w", "protocol": "grpc", "seed": 3}
TRIAL = {"kind": "open-loop", "id": "t", "folder": "r/t", "protocol": "rest", "seed": 4, "rate": 10, "duration_s": 2}


def write(folder, *listed, **values):
    path = folder / "plan.json"
    plan = {"target": target("127.0.0.1:1").to_dict(), "reference": "reference.npz", "phases": listed, **values}
    path.write_text(json.dumps(plan))
    return path


def test_a_plan_is_read_with_its_defaults(tmp_path):
    plan = phases.load(write(tmp_path, WARM_UP, {**TRIAL, "max_in_flight": 7}, cores=[1], exporter_port=9646))
    warm_up, trial = plan.phases
    assert isinstance(warm_up, WarmUpPhase)
    assert isinstance(trial, OpenLoopPhase)
    assert (warm_up.concurrency, trial.max_in_flight, trial.arrival) == (32, 7, "poisson")
    assert (plan.cores, plan.exporter_port, plan.payloads) == ([1], 9646, 256)
    assert plan.target == target("127.0.0.1:1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "soak"}, r"phases\[1\]\.kind = 'soak'"),
        ({"rates": 10}, r"phases\[1\]\.rates: unknown key"),
        ({"rate": 0}, r"phases\[1\]\.rate = 0: use a number above 0"),
        ({"timeout_s": "10"}, r"phases\[1\]\.timeout_s = '10'"),
        ({"protocol": "soap"}, r"phases\[1\]\.protocol = 'soap'.*grpc, rest, rest-binary"),
        ({"arrival": "uniform"}, r"phases\[1\]\.arrival = 'uniform'.*poisson"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, change, message):
    with pytest.raises(Problem, match=rf"plan\.json: {message}"):
        phases.load(write(tmp_path, WARM_UP, {**TRIAL, **change}))


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(Problem, match=r"phases\[0\]\.rate: missing"):
        phases.load(write(tmp_path, {key: value for key, value in TRIAL.items() if key != "rate"}))
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(Problem, match="key 'target' is missing"):
        phases.load(tmp_path / "empty.json")


def test_a_file_that_is_no_plan_is_named(tmp_path):
    with pytest.raises(Problem, match=r"nothing\.json: cannot read"):
        phases.load(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("rate = 10")
    with pytest.raises(Problem, match=r"text\.json: not a plan"):
        phases.load(tmp_path / "text.json")
