"""A plan is read and checked before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadtest.experiment import phases
from loadtest.experiment.arrival_shape import Shape
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, Plan, SearchPhase, Traffic, WarmUpPhase
from loadtest.experiment.settings import Generator
from models.problem import Problem
from tests.loadtest.generator.small_servers import target

WHERE = target("127.0.0.1:1")
WARM_UP = {"kind": "warm-up", "id": "w", "folder": "r/w", "protocol": "grpc", "seed": 3}
TRIAL = {"kind": "open-loop", "id": "t", "folder": "r/t", "protocol": "rest", "seed": 4, "rate": 10, "duration_s": 2}

SEARCH = {
    "kind": "search",
    "id": "s",
    "folder": "r/s",
    "trials": "r/t",
    "trial": TRIAL,
    "p99_ms": 50,
    "error_ratio": 0,
    "most": 8,
    "precision": 0.06,
}


def write(folder: Path, *listed: dict[str, Any], **values: Any) -> Path:
    path = folder / "plan.json"
    plan = {"target": WHERE.to_dict(), "reference": "reference.npz", "phases": listed, **values}
    path.write_text(json.dumps(plan))
    return path


def test_a_plan_is_read_with_its_defaults(tmp_path):
    plan = phases.load(write(tmp_path, WARM_UP, {**TRIAL, "max_in_flight": 7}, cores=[1], exporter_port=9646))
    warm_up, trial = plan.phases
    assert isinstance(warm_up, WarmUpPhase)
    assert isinstance(trial, OpenLoopPhase)
    assert (warm_up.concurrency, trial.max_in_flight, trial.arrival) == (32, 7, "poisson")
    assert (plan.cores, plan.exporter_port, plan.payloads) == ((1,), 9646, 256)
    assert plan.target == WHERE
    assert plan.traffic == (Traffic(WHERE, Path("reference.npz")),)


OPENED = OpenLoopPhase(
    id="t", folder=Path("run/trials/t"), protocol="rest", seed=1, rate=5.0, duration_s=1.0, arrivals=Shape(steps=2)
)
EVERY = (
    WarmUpPhase(id="w", folder=Path("run/w"), protocol="grpc", seed=1, settle_s=3.0),
    OPENED,
    ClosedLoopPhase(
        id="c", folder=Path("run/c"), protocol="grpc", seed=1, scenario="offline", duration_s=1.0, concurrency=2
    ),
    SearchPhase(
        id="s",
        folder=Path("run/searches/s"),
        trials=Path("run/trials"),
        trial=OPENED,
        p99_ms=50.0,
        error_ratio=0.0,
        most=8,
        precision=0.06,
    ),
)


def test_every_phase_is_read_as_it_was_written(tmp_path):
    mix = (Traffic(WHERE, Path("a.npz"), 0.7), Traffic(WHERE, Path("b.npz"), 0.3))
    plan = Plan(target=WHERE, reference=Path("a.npz"), phases=EVERY, mix=mix, payloads=3, cores=(1, 2))
    plan.write(tmp_path / "plan.json")
    assert phases.load(tmp_path / "plan.json") == plan


def test_a_job_moves_to_another_machine_and_back():
    job = LoadJob(
        target=WHERE, reference=Path("a.npz"), phases=EVERY, folder=Path("run/generator/g"), generator=Generator()
    )
    there = phases.decode(phases.encode(job.moved(Path("run"), Path())), LoadJob).moved(Path(), Path("/there"))
    assert there.folder == Path("/there/generator/g")
    search = there.phases[3]
    assert isinstance(search, SearchPhase)
    assert (search.folder, search.trials) == (Path("/there/searches/s"), Path("/there/trials"))
    assert search.trial.folder == Path("/there/trials/t")
    assert there.moved(Path("/there"), Path("run")) == job
    with pytest.raises(ValueError, match="elsewhere"):
        job.moved(Path("elsewhere"), Path())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "soak"}, r"Invalid value 'soak' - at `\$\.phases\[1\]\.kind`"),
        ({"rates": 10}, r"Object contains unknown field `rates` - at `\$\.phases\[1\]`"),
        ({"rate": 0}, r"Expected `float` > 0\.0 - at `\$\.phases\[1\]\.rate`"),
        ({"max_in_flight": 0}, r"Expected `int` >= 1 - at `\$\.phases\[1\]\.max_in_flight`"),
        ({"timeout_s": "10"}, r"Expected `float`, got `str` - at `\$\.phases\[1\]\.timeout_s`"),
        ({"folder": 1}, r"Expected a path, got 1 - at `\$\.phases\[1\]\.folder`"),
        ({"protocol": "soap"}, r"protocol = 'soap'.*grpc, rest, rest-binary - at `\$\.phases\[1\]`"),
        ({"arrival": "uniform"}, r"arrival = 'uniform'.*poisson.* - at `\$\.phases\[1\]`"),
        ({"arrivals": {"steps": 0}}, r"arrivals\.steps = 0: use steps from 1"),
        ({**SEARCH, "most": 0}, r"Expected `int` >= 1 - at `\$\.phases\[1\]\.most`"),
        ({**SEARCH, "precision": 0}, r"Expected `float` > 0\.0 - at `\$\.phases\[1\]\.precision`"),
        ({**SEARCH, "budget_s": 26}, r"Object contains unknown field `budget_s` - at `\$\.phases\[1\]`"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, change, message):
    named = change if change.get("kind") == "search" else {**TRIAL, **change}
    with pytest.raises(Problem, match=rf"plan\.json: {message}"):
        phases.load(write(tmp_path, WARM_UP, named))


def test_a_missing_key_is_named(tmp_path):
    with pytest.raises(Problem, match=r"missing required field `rate` - at `\$\.phases\[0\]`"):
        phases.load(write(tmp_path, {key: value for key, value in TRIAL.items() if key != "rate"}))
    (tmp_path / "empty.json").write_text("{}")
    with pytest.raises(Problem, match=r"empty\.json: .*missing required field `target`"):
        phases.load(tmp_path / "empty.json")


def test_a_file_that_is_no_plan_is_named(tmp_path):
    with pytest.raises(Problem, match=r"nothing\.json: cannot read"):
        phases.load(tmp_path / "nothing.json")
    (tmp_path / "text.json").write_text("rate = 10")
    with pytest.raises(Problem, match=r"text\.json: not a plan"):
        phases.load(tmp_path / "text.json")


def test_a_search_of_a_fast_server_lasts_as_its_trials_do():
    fast = msgspec.structs.replace(OPENED, rate=4000.0, duration_s=2.5)
    searches = [
        SearchPhase(
            id="s",
            folder=Path("s"),
            trials=Path("t"),
            trial=fast,
            p99_ms=50.0,
            error_ratio=0.0,
            most=most,
            precision=0.06,
        )
        for most in (8, 1)
    ]
    assert [one.expected_s for one in searches] == [4 * 3.5, 3.5]


def test_how_long_a_phase_takes():
    warm_up, opened, closed, search = EVERY
    assert warm_up.expected_s == 2.0 + 3.0
    assert opened.expected_s == 2.0
    assert opened.longest_s == 2.0 + 10.0 + 30.0
    assert closed.longest_s == 2.0 + 10.0 + 30.0
    # At 5/s no trial of 30 s proves p99, and none lasts longer; half of the eight are spared by the precision.
    assert search.expected_s == 4 * (1.0 + 30.0)
    assert search.longest_s == 2 * 8 * (opened.longest_s + 30.0)  # each once more where the generator spoiled it
    assert warm_up.longest_s == (20.0 + 30) + 2 * 3.0 + 30
