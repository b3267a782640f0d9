"""The open loop keeps its schedule whatever the server does, and says so when it does not."""

from __future__ import annotations

import ctypes
import os
import signal
import time

import gevent
import numpy as np
import pytest
from gevent import get_hub

from loadtest.generator.arrivals import schedule
from loadtest.generator.timer import SpinningTimer, clock, precise_timer
from tests.loadtest.generator.small_servers import Load, small_server

pytestmark = pytest.mark.slow

PAUSE_S = 0.8


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_a_pause_of_the_server_shows_in_every_request_that_was_due_meanwhile(protocol):
    paused: list[float] = []
    resumed: list[float] = []

    def pause(loop):
        now = clock() - loop.started
        if now > 0.5 and not paused:
            os.kill(process.pid, signal.SIGSTOP)
            paused.append(now)
        elif paused and not resumed and now > paused[0] + PAUSE_S:
            os.kill(process.pid, signal.SIGCONT)
            resumed.append(now)

    with small_server(protocol, "ok") as (where, process):
        load = Load(where, protocol, np.arange(400) / 200, tick=pause)
    assert load.kinds() == {"ok": 400}
    due = load.due - load.started
    meanwhile = (due > paused[0] + 0.05) & (due < resumed[0] - 0.05)
    assert np.count_nonzero(meanwhile) > 100
    # A request due t after the pause began waits for the rest of the pause: never less.
    assert np.all(load.latency[meanwhile] >= resumed[0] - due[meanwhile] - 0.005)
    # The first of them waited for all of it, and then for its turn in the backlog.
    assert PAUSE_S - 0.02 < load.latency.max() < PAUSE_S + 1.0
    # The schedule went on: half of these requests were sent while the server stood still.
    assert np.median(load.sent[meanwhile] - load.due[meanwhile]) < 0.02


def test_slip_is_the_delay_of_the_generator_itself():
    def block(loop):
        if loop.recording.offered > 50 and not blocked:
            began = clock()
            time.sleep(0.2)  # not gevent's: nothing else runs in this process meanwhile
            blocked.append((began, clock()))

    blocked: list[tuple[float, float]] = []
    with small_server("rest", "ok") as (where, _):
        load = Load(where, "rest", np.arange(400) / 200, tick=block)
    slip = load.sent - load.due
    began, ended = blocked[0]
    meanwhile = (load.due > began) & (load.due < ended)
    assert np.count_nonzero(meanwhile) > 30
    assert np.all(slip[meanwhile] >= ended - load.due[meanwhile])
    assert np.median(slip) < 0.02
    late = slip > 0.1
    assert np.all(load.latency[late] >= slip[late])


def test_every_request_is_sent_once_and_in_order():
    due = schedule("poisson", 500, 1.0, 3)
    with small_server("rest", "ok") as (where, _):
        load = Load(where, "rest", due)
    assert load.kinds() == {"ok": len(due)}
    assert np.allclose(load.due - load.started, due)
    assert np.all(np.diff(load.sent) >= 0)
    assert np.all(load.sent >= load.due)
    assert np.all(load.done > load.sent)
    assert 0 < load.busy < 1


@pytest.mark.parametrize("make", [precise_timer, SpinningTimer])
def test_a_timer_calls_back_at_its_time_and_not_before(make):
    lateness = []
    for _ in range(5):  # another program may hold up any one of them
        times: list[float] = []

        def due():
            times.append(clock())  # noqa: B023 (called in this round only)
            watch.close()  # noqa: B023

        watch = make(get_hub().loop, due)
        when = clock() + 0.0205
        watch.set(clock() + 5)
        watch.set(when)
        while not times:
            gevent.sleep(0.005)
        lateness.append(times[0] - when)
        watch.close()
        watch.close()
    assert 0 <= min(lateness) < 0.005


def test_a_platform_without_timerfd_gets_the_spinning_timer(monkeypatch):
    def refuse(*_, **__):
        raise AttributeError("timerfd_create")

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert isinstance(precise_timer(get_hub().loop, lambda: None), SpinningTimer)


def test_a_failure_while_sending_ends_the_trial_instead_of_hanging():
    with small_server("rest", "ok") as (where, _), pytest.raises(IndexError):
        Load(where, "rest", np.arange(10) / 100, choice=7)


HANG_S = 2.0


def test_two_seconds_in_which_the_server_hangs_show_in_p99_and_max_exactly_as_scheduled_time_accounting_predicts():
    """A server process that is stopped for 2 s in a trial of 5 s at 100/s.

    Each request due in the hang waits for the rest of it: of N in all, those beyond the 99th percentile are the first
    1 % of N of them, so p99 is the hang less the time that these took to arrive, and the maximum is all of it.
    """
    rate, seconds = 100.0, 5.0
    due = (np.arange(int(rate * seconds)) + 0.5) / rate
    paused: list[float] = []
    resumed: list[float] = []

    def hang(loop):
        now = clock() - loop.started
        if now > 1.0 and not paused:
            os.kill(process.pid, signal.SIGSTOP)
            paused.append(clock() - loop.started)
        elif paused and not resumed and now > paused[0] + HANG_S:
            os.kill(process.pid, signal.SIGCONT)
            resumed.append(clock() - loop.started)

    with small_server("rest", "ok") as (where, process):
        load = Load(where, "rest", due, tick=hang)
    assert load.kinds() == {"ok": len(due)}
    waits = np.maximum(resumed[0] - due[(due > paused[0]) & (due < resumed[0])], 0)
    assert len(waits) == pytest.approx(rate * (resumed[0] - paused[0]), abs=2)
    expected = np.concatenate([waits, np.zeros(len(due) - len(waits))])
    found = np.percentile(load.latency, [99, 100], method="inverted_cdf")
    predicted = np.percentile(expected, [99, 100], method="inverted_cdf")
    assert predicted == pytest.approx([HANG_S - 0.01 * len(due) / rate, HANG_S], abs=0.15)
    # Later than predicted only by what the backlog of 200 requests takes to be answered; never earlier.
    assert np.all(found > predicted - 0.02)
    assert np.all(found < predicted + 0.5)
    # A closed loop with one connection, which waits before it sends the next, would have seen one slow request.
    assert np.count_nonzero(load.latency > 0.5) > 100
