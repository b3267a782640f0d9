"""Trials as the generator runs them in its own process: closed loops, capacity searches, repeats of spoiled ones."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from loadtest.experiment import events, records, staircase
from loadtest.experiment.events import Second, Spoiled, Tried
from loadtest.experiment.phases import ClosedLoopPhase, OpenLoopPhase, SearchPhase, WarmUpPhase
from loadtest.experiment.records import (
    BoundTooLow,
    Latency,
    Requests,
    SentLate,
    Slip,
    SpoiledAttempt,
    TrialRecord,
)
from loadtest.experiment.slip import spoiled
from loadtest.experiment.staircase import Try
from tests.loadtest.generator.small_servers import generator, small_server, write_plan

pytestmark = pytest.mark.slow

TRIAL = OpenLoopPhase(folder=Path(), seed=1, id="trial", protocol="rest", rate=150, duration_s=1.5, lead_in_s=0.3)


def run(plan):
    with generator(plan) as process:
        out, log = process.communicate(timeout=90)
    assert process.returncode == 0, log
    return [events.decode(line) for line in out.splitlines()]


def read_trial(folder: Path) -> TrialRecord:
    return records.read_trial(folder / "results" / "trial" / "trial.json")


@pytest.mark.parametrize(("scenario", "concurrency", "rate"), [("single-stream", 1, 20), ("offline", 8, 160)])
def test_a_closed_loop_keeps_so_many_requests_in_flight_and_checks_the_answers(tmp_path, scenario, concurrency, rate):
    phase = ClosedLoopPhase(
        id="trial",
        folder=Path(),
        protocol="rest",
        seed=1,
        scenario=scenario,
        concurrency=concurrency,
        duration_s=2.0,
        lead_in_s=0.5,
        check_share=0.5,
    )
    with small_server("rest", "delay:0.05") as (where, _):
        run(write_plan(tmp_path, where, [phase]))
    trial = read_trial(tmp_path)
    assert (trial.scenario, trial.offered_rate, trial.concurrency) == (scenario, 0.0, concurrency)
    assert 0.5 * 2 * rate < trial.requests.ok <= 2 * rate  # each answer takes 50 ms and a little
    assert trial.requests.ok == trial.requests.scheduled
    assert (trial.in_flight_max or 0) <= concurrency
    assert trial.wrong == 0 < trial.checked
    assert (trial.latency_ms.p50 or 0) >= 50
    assert trial.schedule_slip_ms is not None
    assert trial.schedule_slip_ms.max == 0  # a closed loop has no schedule


def search(folder: Path, trial: OpenLoopPhase, **values: Any) -> SearchPhase:
    results = folder / "results"
    return SearchPhase(
        id="search",
        folder=results / "search",
        trials=results / "trials",
        trial=trial,
        p99_ms=150.0,
        error_ratio=0.001,
        **values,
    )


@pytest.mark.exhaustive
def test_a_search_finds_the_capacity_of_a_real_server(tmp_path):
    trial = replace(
        TRIAL, id="search", rate=900, scenario="capacity", duration_s=1.0, retries=1, limit_ms=150.0, repetition=2
    )
    phase = search(tmp_path, trial, most=5, precision=0.1)
    with small_server("rest", "serial:0.001") as (where, _):  # at most 1000/s, less what the event loop takes
        found_events = run(write_plan(tmp_path, where, [phase]))
    found = records.read_search(tmp_path / "results" / "search" / "search.json")
    assert (found.centre, found.repetition) == (900.0, 2)
    # Where others use the machine, too, the server may do less, and the generator may send late.
    if found.tries:
        assert found.rate is not None
        assert found.sd is not None
        assert 100 < found.rate < 1200
        assert found.sd <= 0.1 or len(found.tries) == 5 or found.steps[-1].spoiled
    assert len(found.tries) >= 3 or any(step.spoiled for step in found.steps)
    tried = [event for event in found_events if isinstance(event, Tried)]
    assert [(step.rate, step.why_not) for step in found.steps] == [(event.rate, event.why_not) for event in tried]
    assert [(one.rate, one.met) for one in found.tries] == [(s.rate, s.met) for s in found.steps if not s.spoiled]
    for step in found.steps:
        saved = records.read_trial(tmp_path / "results" / "trials" / step.trial / "trial.json")
        assert (saved.offered_rate, saved.scenario, saved.repetition) == (step.rate, "capacity", 2)
        assert saved.requests.sent >= 459 or not step.met  # fewer prove nothing
        assert step.met == (step.why_not is None)
        assert step.spoiled == isinstance(step.why_not, SentLate | BoundTooLow)
        assert not step.met or (saved.latency_ms.p99 or 0) <= 150


def test_a_search_that_was_cut_off_goes_on_from_its_trials(tmp_path):
    trials = tmp_path / "results" / "trials"
    rates: list[float] = []
    tries: list[Try] = []
    for number in (1, 2):
        rates.append(staircase.following(tries, 1000.0))
        tries.append(Try(rates[-1], number == 1))
        (trials / f"search-{number}").mkdir(parents=True)
        saved = TrialRecord(
            target="pytorch",
            protocol="rest",
            offered_rate=rates[-1],
            duration_s=1.0,
            requests=Requests(sent=9),
            latency_ms=Latency(p50=1.0, p99=2.0 if number == 1 else 200.0),
            schedule_slip_ms=Slip(p99=0.1),
        )
        (trials / f"search-{number}" / "trial.json").write_text(records.encode(saved))
    trial = OpenLoopPhase(id="search", protocol="rest", folder=Path("x"), seed=1, rate=1000, duration_s=1.0)
    phase = search(tmp_path, trial, most=3, precision=0.001)
    with small_server("rest", "ok") as (where, _):
        run(write_plan(tmp_path, where, [phase]))
    found = records.read_search(tmp_path / "results" / "search" / "search.json")
    # The two are counted and not made again; only the third is new.
    assert [step.rate for step in found.steps[:3]] == [*rates, staircase.following(tries, 1000.0)]
    assert [records.read_trial(trials / f"search-{number}" / "trial.json").requests.sent for number in (1, 2)] == [9, 9]
    assert found.steps[2].spoiled or found.tries == (*tries, Try(found.steps[2].rate, True))


def test_a_trial_that_the_generator_spoils_is_repeated_and_both_are_kept(tmp_path):
    with small_server("rest", "ok") as (where, _):
        plan = write_plan(tmp_path, where, [replace(TRIAL, retries=3)])
        with generator(plan) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if isinstance(events.decode(line), Second):  # the generator itself is stopped, not the server
                    os.kill(process.pid, signal.SIGSTOP)
                    time.sleep(0.3)
                    os.kill(process.pid, signal.SIGCONT)
                    break
            out, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    said = [events.decode(line) for line in out.splitlines()]
    assert [event.id for event in said if isinstance(event, Spoiled)][:1] == ["trial"]
    trial = read_trial(tmp_path)
    aside = records.read_trial(tmp_path / "spoiled" / "trial-1" / "trial.json")
    assert spoiled(aside)
    assert aside.schedule_slip_ms is not None
    assert (aside.schedule_slip_ms.max or 0) > 250
    assert trial.spoiled[0] == SpoiledAttempt(folder="trial-1", schedule_slip_ms=aside.schedule_slip_ms)
    assert trial.seed == aside.seed  # the same arrivals again
    assert trial.requests.scheduled == aside.requests.scheduled


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_trial_says_that_its_requests_left_as_asked_and_how_many_answers_were_late(tmp_path, protocol):
    phase = replace(TRIAL, protocol=protocol, rate=400, limit_ms=0.001)
    with small_server(protocol, "ok") as (where, _):
        run(write_plan(tmp_path, where, [phase]))
    trial = read_trial(tmp_path)
    assert trial.arrivals_check is not None
    assert trial.arrivals_check.ok or spoiled(trial)  # where others use the machine, too
    assert trial.arrivals_check.gaps == trial.requests.sent - 1
    assert (trial.slo_p99_ms, trial.late) == (0.001, trial.requests.ok)


def test_a_generator_that_is_asked_for_too_much_says_so(tmp_path):
    """Real saturation: no process of Python's sends so many."""
    phase = replace(TRIAL, rate=30_000, duration_s=0.5, max_in_flight=65_536, timeout_s=2.0, lead_in_s=0)
    with small_server("rest", "ok") as (where, _):
        run(write_plan(tmp_path, where, [phase]))
    assert spoiled(read_trial(tmp_path))


def test_an_unsteady_warm_up_is_repeated_and_written_down(tmp_path):
    warm_up = WarmUpPhase(
        id="warm",
        folder=Path(),
        protocol="rest",
        seed=1,
        concurrency=4,
        window_s=0.2,
        min_s=0.2,
        max_s=1.6,
        tolerance=0.001,
        retries=1,
    )
    with small_server("rest", "tiring:0.001") as (where, _):
        run(write_plan(tmp_path, where, [warm_up]))
    found = records.read_warm_up(tmp_path / "results" / "warm" / "warm-up.json")
    assert not found.steady
    (first,) = found.unsteady_attempts or ()
    assert first.throughput > found.throughput
