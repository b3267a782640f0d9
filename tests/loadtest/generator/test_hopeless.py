"""A trial is given up where, and only where, its p99 cannot be within the limit any more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from loadtest.analysis.saved_run import SavedTrial
from loadtest.experiment import records
from loadtest.experiment.phases import OpenLoopPhase
from loadtest.generator.hopeless import Hopeless
from loadtest.generator.live import Slice
from serving import ports
from tests.loadtest.generator.small_servers import generator, small_server, write_plan

TRIAL = OpenLoopPhase(
    id="trial",
    folder=Path(),
    seed=1,
    protocol="rest",
    rate=400.0,
    duration_s=3.0,
    lead_in_s=0.2,
    limit_ms=50.0,
    hopeless_ms=100.0,
)


def answers(*latency_ms: float, failed: int = 0) -> Slice:
    ended = len(latency_ms) + failed
    return Slice(ended, ended, 0, np.array(latency_ms), np.full(failed, 1.0), {}, np.zeros(ended), 0)


@given(st.lists(st.tuples(st.sampled_from([20.0, 99.0, 101.0, 900.0]), st.integers(0, 40)), max_size=60))
def test_what_is_given_up_misses_the_limit_even_if_all_that_was_to_come_were_in_time(bunches):
    hopeless, over = Hopeless(TRIAL), 0
    for latency_ms, count in bunches:
        gave_up = hopeless.take(answers(*[latency_ms] * count))
        over += count * (latency_ms > 100)
        if gave_up:
            in_lead_in = TRIAL.rate * TRIAL.lead_in_s
            assert over - in_lead_in > 0.01 * TRIAL.rate * TRIAL.duration_s
            break
    else:
        assert over <= 2 * (0.01 * 1200 + 80)  # one that is surely over is given up


def test_failures_count_as_over_and_without_a_limit_nothing_does():
    assert Hopeless(TRIAL).take(answers(failed=400))
    unlimited = OpenLoopPhase(id="t", folder=Path(), seed=1, protocol="rest", rate=400.0, duration_s=3.0)
    assert not Hopeless(unlimited).take(answers(*[9000.0] * 4000, failed=4000))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_an_overloaded_server_gets_no_more_requests_and_the_trial_says_that_it_misses(tmp_path, workers):
    where_from = ["--processes", str(workers), "-u", str(workers), "-r", "2"] if workers > 1 else []
    if workers > 1:
        (port,) = ports.free(1)
        where_from += ["--master-bind-port", str(port), "--master-port", str(port)]
    mild = replace(TRIAL, id="mild", rate=60.0, hopeless_ms=2000.0)
    with (
        small_server("rest", "serial:0.005") as (where, _),
        generator(write_plan(tmp_path, where, [mild, TRIAL]), *where_from) as process,
    ):
        _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    kept = json.loads((tmp_path / "results/mild/trial.json").read_text())
    assert "planned_s" not in kept
    folder = tmp_path / "results/trial"
    trial = records.read_trial(folder / "trial.json")
    assert trial.planned_s == 3.0
    assert trial.duration_s < 2.0  # at 200 answers/s the backlog is 100 ms of work within a fifth of a second
    assert trial.latency_ms.p99 is not None
    assert trial.latency_ms.p99 > 100
    assert trial.requests.sent == trial.requests.scheduled == trial.requests.ok
    assert trial.requests.sent == pytest.approx(400 * trial.duration_s, rel=0.25)
    assert trial.ended_at - trial.started_at == pytest.approx(trial.duration_s, abs=0.002)
    assert int(SavedTrial(folder, trial, None, None).intervals().counts.sum()) == trial.requests.ok
