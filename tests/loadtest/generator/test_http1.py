"""REST requests against a real server that behaves well or badly."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import pytest

from loadtest.experiment import own_errors
from loadtest.experiment.own_errors import Lack
from loadtest.generator.connection import Places
from loadtest.generator.http1 import HttpClient
from loadtest.generator.http2 import GrpcClient
from loadtest.generator.open_loop import OpenLoop
from models.problem import Problem
from tests.loadtest.generator.small_servers import Load, small_server

pytestmark = pytest.mark.alone

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


def test_the_first_answer_that_is_an_error_is_quoted():
    with small_server("rest", "503") as (where, _):
        _, said = Load(where, "rest", DUE).recording.first_error or (-1, "")
    assert said == "busy"
    with small_server("rest", "ok") as (where, _):
        assert Load(where, "rest", DUE).recording.first_error is None


@contextmanager
def files_left(count: int) -> Iterator[None]:
    """No more than so many files can be opened here."""
    gc.collect()  # what earlier tests left open is not to be closed meanwhile
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(int(name) for name in os.listdir("/proc/self/fd")) + 1, hard))
    held: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] + count, hard))
        yield
    finally:
        for number in held:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def starved() -> dict[str, int]:
    """The errors of 60 requests at once where no more than three connections can be opened."""
    begun: list[None] = []
    limit = files_left(3)

    def starve(_: OpenLoop) -> None:
        if not begun:
            begun.append(limit.__enter__())

    with small_server("rest", "delay:1.5") as (where, _):
        try:
            return Load(where, "rest", np.full(60, 0.3), timeout_s=10, tick=starve).kinds()
        finally:
            limit.__exit__(None, None, None)


def test_a_generator_without_file_descriptors_blames_itself():
    # In a process of its own: what other tests have left in this one opens and closes files, too.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        kinds = alone.submit(starved).result(timeout=60)
    assert kinds["own_files"] > 20
    assert "connection" not in kinds
    assert own_errors.lacks(kinds) == {Lack.FILES: kinds["own_files"]}


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_too_few_files_before_the_clock_are_a_problem(protocol):
    with small_server(protocol, "ok") as (where, _), files_left(1):
        client: HttpClient | GrpcClient
        if protocol == "rest":
            client = HttpClient(where.rest, lambda *_: None, lambda: None)
        else:
            client = GrpcClient(where.grpc, "/x/y", lambda *_: None, lambda: None)
        with pytest.raises(Problem, match="Too many open files: this user may open too few files"):
            client.open(64)  # of gRPC: seconds


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
