"""Warm-up against real servers: ends when steady, at its cap, or with a problem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from loadtest.experiment.phases import WarmUpPhase
from loadtest.generator.closed_loop import ClosedLoop
from loadtest.generator.http1 import HttpClient
from loadtest.generator.live import Reader
from loadtest.generator.timer import clock
from loadtest.generator.warmup import WarmUp
from models.problem import Problem
from tests.loadtest.generator.small_servers import request, small_server

pytestmark = pytest.mark.alone


def run(where, concurrency=8, **values):
    loop = ClosedLoop([request(where, "rest")], concurrency)
    client = HttpClient(where.rest, loop.finish, lambda: None)
    phase = WarmUpPhase(id="w", folder=Path(), protocol="rest", seed=1, concurrency=concurrency, **values)
    try:
        client.open(concurrency)
        return watched(phase, loop, client), loop
    finally:
        client.close()


def watched(phase, loop, client):
    reader, watch = Reader(loop.recording), WarmUp(phase, clock())

    def tick(now):
        watch.take(reader.read(), now)
        return not watch.over

    loop.run(client, phase.timeout_s, phase.window_s / 5, tick)
    return watch.result()


def test_a_steady_server_ends_it_and_its_throughput_is_known():
    with small_server("rest", "delay:0.05") as (where, _):
        values, loop = run(where, window_s=0.25, min_s=1.0, max_s=10.0, tolerance=0.3)
    assert values.steady
    assert not values.reached_cap
    assert 1.0 <= values.seconds < 9
    # 8 callers that each wait a little more than 50 ms; at a window's edge their answers may fall on either side.
    assert 60 < values.throughput <= 160 + 8
    assert values.throughput == pytest.approx(np.mean([w.rate for w in values.windows[-4:]]), rel=0.35)
    assert all(window.p50_ms >= 50 for window in values.windows)
    assert len(loop.recording) - 8 <= values.requests <= len(loop.recording)
    assert values.errors == {}


def test_without_open_load_after_it_it_goes_on_until_enough_was_answered_or_its_cap():
    often = {"window_s": 0.2, "min_s": 0.2, "tolerance": 0.3}
    with small_server("rest", "delay:0.01") as (where, _):
        enough, _ = run(where, **often, max_s=20.0, min_requests=1600)  # at up to 800/s
        capped, _ = run(where, **often, max_s=2.0, min_requests=1_000_000)
        open_load_follows, _ = run(where, **often, max_s=20.0, min_requests=1_000_000, settle_s=5.0)
    assert enough.steady
    assert 1600 <= enough.requests < 3000
    assert (capped.steady, capped.reached_cap) == (True, False)
    assert 2.0 <= capped.seconds < 3.0
    assert open_load_follows.steady
    assert open_load_follows.requests < 100_000


def test_a_slow_server_s_windows_are_as_long_as_its_callers_wait():
    with small_server("rest", "delay:0.6") as (where, _):  # eight answers at once, and then none for 0.6 s
        values, _ = run(where, window_s=0.1, min_s=0.5, max_s=1.0, tolerance=0.2)
    assert values.steady
    assert all(window.rate == pytest.approx(8 / 0.6, rel=0.35) for window in values.windows[1:])
    assert 2.5 < values.seconds < 8  # beyond the cap, as there was no time for windows before it


def test_reaching_the_cap_is_reported():
    with small_server("rest", "ok") as (where, _):
        values, _ = run(where, window_s=0.2, min_s=0.2, max_s=0.5, tolerance=0.3)
    assert values.reached_cap
    assert not values.steady
    assert len(values.windows) == 3
    assert values.throughput > 0


@pytest.mark.parametrize(
    ("mode", "seen"), [("503", r"\d+ × http_503; the first said: busy"), ("close", r"\d+ × connection")]
)
def test_nothing_but_errors_is_a_problem_that_names_them_and_quotes_the_first(mode, seen):
    with small_server("rest", mode) as (where, _), pytest.raises(Problem, match=rf"no successful answer.*: {seen}$"):
        run(where, window_s=0.2, min_s=0.2, max_s=0.8)


def test_a_server_that_refuses_is_not_hammered():
    with small_server("rest", "503") as (where, _):
        loop = ClosedLoop([request(where, "rest")], 4)
        client = HttpClient(where.rest, loop.finish, lambda: None)
        phase = WarmUpPhase(id="w", folder=Path(), protocol="rest", seed=1, concurrency=4, max_s=0.5, min_s=0.1)
        with pytest.raises(Problem):
            watched(phase, loop, client)
        client.close()
    assert len(loop.recording) <= 4 * 0.6 / 0.01


def test_a_silent_server_ends_at_the_cap_with_a_problem():
    with small_server("rest", "silent") as (where, _), pytest.raises(Problem, match="timeout"):
        run(where, window_s=0.2, min_s=0.2, max_s=1.0, timeout_s=0.3)
