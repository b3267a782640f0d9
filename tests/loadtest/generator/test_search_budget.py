"""A search's budget, to the second: the runner's own decisions, with workers whose server and time are simulated."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.experiment.phases import OpenLoopPhase, Plan, SearchPhase
from loadtest.generator import phase_runner
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.recording import OK
from serving.target import Target

TARGET = Target("pytorch", "torchserve", "0", "process", "convnet", 1, (28, 28, 1), 10, "127.0.0.1:1", "127.0.0.1:2")
SHORT, LONG = 3.0, 5.5  # seconds of a trial on the way and of one that decides on a boundary, lead-in included


class Simulated:
    """Workers whose server takes so many requests/s; each trial takes `drain_s` longer than it should."""

    count = 1

    def __init__(self, capacity: float, drain_s: float = 0.0, late: frozenset[int] = frozenset()) -> None:
        self.capacity, self.drain_s, self.late = capacity, drain_s, late
        self.now = 0.0
        self.loads: list[Any] = []

    @contextmanager
    def at_work(self):
        yield

    def warm_up(self, phase: Any, report: Any) -> None:
        raise NotImplementedError  # workers must offer it; a search never warms up

    def load(self, phase: Any, report: Any) -> tuple[float, Outcomes]:
        self.loads.append(phase)
        self.now += phase.lead_in_s + phase.duration_s + self.drain_s
        due = np.arange(0, phase.duration_s, 0.05)
        sent = due + (0.01 if len(self.loads) in self.late else 0.0)
        done = sent + (0.005 if phase.rate <= self.capacity else 0.2)
        return 0.0, Outcomes(due, sent, done, np.full(len(due), OK, dtype=np.uint8), ())


def search(tmp_path: Path, monkeypatch, workers: Simulated, **values: Any) -> dict[str, Any]:
    monkeypatch.setattr(phase_runner, "clock", lambda: workers.now)
    trial = OpenLoopPhase(
        id="s",
        folder=tmp_path / "x",
        protocol="rest",
        seed=1,
        scenario="capacity",
        rate=200.0,
        duration_s=2.5,
        lead_in_s=0.5,
        retries=2,
    )
    settings: dict[str, Any] = {"growth": 2.0, "precision": 0.05, "repeats": 2, "budget_s": 60.0, **values}
    phase = SearchPhase(
        id="s",
        folder=tmp_path / "searches" / "s",
        trials=tmp_path / "trials",
        trial=trial,
        p99_ms=50.0,
        error_ratio=0.001,
        **settings,
    )
    plan = Plan(target=TARGET, reference=tmp_path / "reference.npz", phases=(phase,))
    phase_runner.Generator(plan, workers, io.StringIO()).run()
    return json.loads((tmp_path / "searches" / "s" / "search.json").read_text())


def test_with_time_enough_it_is_as_narrow_as_was_asked(tmp_path, monkeypatch):
    workers = Simulated(capacity=700.0)
    found = search(tmp_path, monkeypatch, workers)
    assert found["low"] <= 700 < found["high"] <= 1.051 * found["low"]
    assert (found["confirmed"], found["out_of_time"]) == (True, False)
    assert found["seconds"] == workers.now <= 60
    # The boundaries' last trials, and no others, are long ones.
    assert {phase.duration_s for phase in workers.loads[:-3]} == {2.5}
    assert {phase.duration_s for phase in workers.loads[-3:]} == {5.0}


@pytest.mark.parametrize("budget_s", [12.0, 20.0, 24.0, 28.0, 33.0])
@pytest.mark.parametrize("capacity", [70.0, 450.0, 700.0, 1700.0])
def test_no_trial_starts_that_would_end_after_the_budget(tmp_path, monkeypatch, budget_s, capacity):
    workers = Simulated(capacity)
    found = search(tmp_path, monkeypatch, workers, budget_s=budget_s)
    assert found["seconds"] == workers.now <= budget_s
    assert found["low"] is None or found["low"] <= capacity
    assert found["high"] is None or found["high"] > capacity
    assert found["out_of_time"] or found["high"] <= 1.051 * found["low"]
    if budget_s - workers.now >= SHORT:
        assert not found["out_of_time"]


def test_what_is_left_is_spent_on_repeating_a_bracket_that_is_still_wide(tmp_path, monkeypatch):
    found = search(tmp_path, monkeypatch, Simulated(capacity=700.0), budget_s=28.0)
    assert (found["confirmed"], found["out_of_time"]) == (True, True)
    assert found["high"] > 1.051 * found["low"]


def test_a_server_that_answers_late_costs_the_search_its_time(tmp_path, monkeypatch):
    workers = Simulated(capacity=700.0, drain_s=2.0)
    found = search(tmp_path, monkeypatch, workers, budget_s=30.0)
    assert found["out_of_time"]
    assert workers.now <= 30.0 + 2.0  # the last one's drain


def test_a_trial_that_the_generator_spoiled_is_made_again_only_where_there_is_time(tmp_path, monkeypatch):
    # From the second on all are spoiled. The budget holds four: nothing says that 400 met, or that it missed.
    workers = Simulated(capacity=250.0, late=frozenset(range(2, 99)))
    found = search(tmp_path, monkeypatch, workers, budget_s=4 * SHORT + 1)
    assert workers.now <= 4 * SHORT + 1
    assert [one["rate"] for one in found["tries"]] == [200]
    assert (found["low"], found["high"], found["confirmed"]) == (200, None, False)
