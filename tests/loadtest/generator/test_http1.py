"""REST requests against a real server that behaves well or badly."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.generator.connection import Places
from loadtest.generator.http1 import HttpClient
from models.problem import Problem
from tests.loadtest.generator.small_servers import Load, small_server

DUE = np.arange(40) / 200


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("ok", "ok"),
        ("chunked", "ok"),
        ("last", "ok"),
        ("503", "http_503"),
        ("garbage", "bad_response"),
        ("close", "connection"),
    ],
)
def test_every_request_ends_as_the_server_made_it_end(mode, kind):
    with small_server("rest", mode) as (where, _):
        assert Load(where, "rest", DUE).kinds() == {kind: 40}


def test_a_server_that_never_answers_gives_time_outs_and_the_trial_ends():
    with small_server("rest", "silent") as (where, _):
        load = Load(where, "rest", DUE, timeout_s=0.5)
    assert load.kinds() == {"timeout": 40}
    assert load.latency.min() >= 0.5


def test_a_server_that_dies_gives_connection_errors_for_the_rest():
    with small_server("rest", "die:20") as (where, _):
        load = Load(where, "rest", np.arange(100) / 200)
    kinds = load.kinds()
    assert kinds["ok"] == 20
    assert kinds == {"ok": 20, "connection": 80}


def test_answers_are_kept_whole():
    with small_server("rest", "chunked") as (where, _):
        load = Load(where, "rest", DUE, keep=True)
    assert set(load.recording.bodies.values()) == {b'{"predictions": [' + b"[0.1" + b", 0.1" * 9 + b"]]}"}


def test_latency_counts_from_the_due_time_and_slow_answers_do_not_delay_sends():
    with small_server("rest", "delay:0.3") as (where, _):
        load = Load(where, "rest", DUE)
    assert load.kinds() == {"ok": 40}
    assert load.latency.min() >= 0.3
    assert load.latency == pytest.approx(load.done - load.due)
    # A closed loop over the four open connections would wait for its first answers before the fifth request.
    assert load.sent.max() < load.done.min()


def test_arrivals_beyond_the_bound_are_dropped_and_counted():
    with small_server("rest", "delay:0.5") as (where, _):
        load = Load(where, "rest", DUE, max_in_flight=10)
    assert load.kinds() == {"ok": 10, "dropped": 30}
    assert np.count_nonzero(load.sent) == 10


def test_no_server_is_a_problem_that_names_the_address():
    client = HttpClient("127.0.0.1:1", lambda *ended: None, lambda: None)
    with pytest.raises(Problem, match=r"127\.0\.0\.1:1.*is the server running"):
        client.open(2)


@pytest.mark.parametrize("address", ["localhost", "localhost:http", "no-such-host.invalid:80"])
def test_an_address_that_cannot_be_used_is_named(address):
    with pytest.raises(Problem, match=address):
        Places(address)
