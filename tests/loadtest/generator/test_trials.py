"""Trials as the generator runs them in its own process: closed loops, capacity searches, repeats of spoiled ones."""

from __future__ import annotations

import json
import os
import signal
import time

import pytest

from loadtest.experiment.slip import spoiled
from tests.loadtest.generator.small_servers import generator, small_server, write_plan

TRIAL = {"kind": "open-loop", "id": "trial", "protocol": "rest", "rate": 150, "duration_s": 1.5, "lead_in_s": 0.3}


def run(plan):
    with generator(plan) as process:
        out, log = process.communicate(timeout=90)
    assert process.returncode == 0, log
    return [json.loads(line) for line in out.splitlines()]


def read(folder, name):
    return json.loads((folder / "results" / name).read_text())


@pytest.mark.parametrize(("scenario", "concurrency", "rate"), [("single-stream", 1, 20), ("offline", 8, 160)])
def test_a_closed_loop_keeps_so_many_requests_in_flight_and_checks_the_answers(tmp_path, scenario, concurrency, rate):
    phase = {"kind": "closed-loop", "id": "trial", "protocol": "rest", "scenario": scenario, "concurrency": concurrency}
    with small_server("rest", "delay:0.05") as (where, _):
        run(write_plan(tmp_path, where, [{**phase, "duration_s": 2.0, "lead_in_s": 0.5, "check_share": 0.5}]))
    trial = read(tmp_path, "trial/trial.json")
    assert (trial["scenario"], trial["offered_rate"], trial["concurrency"]) == (scenario, 0.0, concurrency)
    assert 0.5 * 2 * rate < trial["requests"]["ok"] <= 2 * rate  # each answer takes 50 ms and a little
    assert trial["requests"]["ok"] == trial["requests"]["scheduled"]
    assert trial["in_flight_max"] <= concurrency
    assert trial["wrong"] == 0 < trial["checked"]
    assert trial["latency_ms"]["p50"] >= 50
    assert trial["schedule_slip_ms"]["max"] == 0  # a closed loop has no schedule


def test_a_search_finds_the_capacity_of_a_real_server_and_repeats_its_boundaries(tmp_path):
    search = {"kind": "search", "id": "search", "trials": str(tmp_path / "results" / "trials"), "p99_ms": 150.0}
    trial = {**TRIAL, "id": "search", "folder": str(tmp_path / "results" / "x"), "seed": 1, "rate": 60}
    trial = {
        **{key: value for key, value in trial.items() if key != "kind"},
        "scenario": "capacity",
        "duration_s": 1.2,
        "retries": 2,
    }
    search |= {"trial": trial, "error_ratio": 0.001, "growth": 1.6, "precision": 0.3, "repeats": 2, "budget_s": 40}
    with small_server("rest", "serial:0.005") as (where, _):  # at most 200/s, less what the event loop takes
        plan = write_plan(tmp_path, where, [])
        values = json.loads(plan.read_text())
        values["phases"] = [{**search, "folder": str(tmp_path / "results" / "search")}]
        plan.write_text(json.dumps(values))
        events = run(plan)
    found = read(tmp_path, "search/search.json")
    # Where others use the machine, too, the server may do less, and the generator may send late.
    assert (found["low"] or 0) < (found["high"] or 400) <= 400
    assert found["confirmed"] or found["out_of_time"] or any(step["spoiled"] for step in found["steps"])
    tried = [event for event in events if event["event"] == "tried"]
    assert [step["rate"] for step in found["steps"]] == [event["rate"] for event in tried]
    assert [one["rate"] for one in found["tries"]] == [step["rate"] for step in found["steps"] if not step["spoiled"]]
    for step in found["steps"]:
        saved = read(tmp_path, f"trials/{step['trial']}/trial.json")
        assert (saved["offered_rate"], saved["scenario"]) == (step["rate"], "capacity")
        assert step["met"] == (step["why_not"] == "")
        assert not step["met"] or saved["latency_ms"]["p99"] <= 150


def test_a_search_that_was_cut_off_goes_on_from_its_trials(tmp_path):
    trials = tmp_path / "results" / "trials"
    ok = {"latency_ms": {"p50": 1.0, "p99": 2.0}, "schedule_slip_ms": {"p99": 0.1}, "errors": {}}
    for number in (1, 2):
        (trials / f"search-{number}").mkdir(parents=True)
        saved = {**ok, "requests": {"sent": 9, "dropped": 0}, "offered_rate": 50.0 * number, "duration_s": 1.0}
        (trials / f"search-{number}" / "trial.json").write_text(json.dumps(saved))
    trial = {"id": "search", "protocol": "rest", "folder": "x", "seed": 1, "rate": 50, "duration_s": 1.0}
    search = {"kind": "search", "id": "search", "trials": str(trials), "trial": trial, "p99_ms": 150.0, "growth": 2.0}
    search |= {"error_ratio": 0.001, "precision": 0.05, "repeats": 1, "budget_s": 3.0, "seed": 1}
    with small_server("rest", "ok") as (where, _):
        plan = write_plan(tmp_path, where, [search])
        values = json.loads(plan.read_text())
        del values["phases"][0]["seed"]
        plan.write_text(json.dumps(values))
        run(plan)
    found = read(tmp_path, "search/search.json")
    # The budget leaves no time for a third trial, but the two are counted.
    assert found["out_of_time"]
    assert [step["rate"] for step in found["steps"]] == [50, 100]
    assert found["low"] == 100


def test_a_trial_that_the_generator_spoils_is_repeated_and_both_are_kept(tmp_path):
    with small_server("rest", "ok") as (where, _):
        plan = write_plan(tmp_path, where, [{**TRIAL, "retries": 3}])
        with generator(plan) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["event"] == "second":  # the generator itself is stopped, not the server
                    os.kill(process.pid, signal.SIGSTOP)
                    time.sleep(0.3)
                    os.kill(process.pid, signal.SIGCONT)
                    break
            out, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    events = [json.loads(line) for line in out.splitlines()]
    assert [event["id"] for event in events if event["event"] == "spoiled"][:1] == ["trial"]
    trial = read(tmp_path, "trial/trial.json")
    aside = json.loads((tmp_path / "spoiled" / "trial-1" / "trial.json").read_text())
    assert spoiled(aside)
    assert aside["schedule_slip_ms"]["max"] > 250
    assert trial["spoiled"][0] == {"folder": "trial-1", "schedule_slip_ms": aside["schedule_slip_ms"]}
    assert trial["seed"] == aside["seed"]  # the same arrivals again
    assert trial["requests"]["scheduled"] == aside["requests"]["scheduled"]


def test_a_generator_that_is_asked_for_too_much_says_so(tmp_path):
    """Real saturation: no process of Python's sends so many."""
    phase = {**TRIAL, "rate": 30_000, "duration_s": 0.5, "max_in_flight": 65_536, "timeout_s": 2.0, "lead_in_s": 0}
    with small_server("rest", "ok") as (where, _):
        run(write_plan(tmp_path, where, [phase]))
    assert spoiled(read(tmp_path, "trial/trial.json"))


def test_an_unsteady_warm_up_is_repeated_and_written_down(tmp_path):
    warm_up = {"kind": "warm-up", "id": "warm", "protocol": "rest", "window_s": 0.2, "min_s": 0.2, "max_s": 1.6}
    with small_server("rest", "tiring:0.001") as (where, _):
        run(write_plan(tmp_path, where, [{**warm_up, "concurrency": 4, "tolerance": 0.001, "retries": 1}]))
    values = read(tmp_path, "warm/warm-up.json")
    assert not values["steady"]
    assert len(values["unsteady_attempts"]) == 1
    assert values["unsteady_attempts"][0]["throughput"] > values["throughput"]
