"""Requests without batching: which thread computes them, and that nobody waits for a long one."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.engines.embedded_tfserving.direct import MAX_KNOWN, Direct
from serving.engines.embedded_tfserving.flags import Flags
from serving.engines.embedded_tfserving.servable import Servable
from serving.engines.embedded_tfserving.status import ServingError
from serving.engines.embedded_tfserving.workers import Workers
from serving.wire.grpc_status import Code

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def cnn(models_folder: Path) -> Servable:
    return Servable("cnn", 1, models_folder / "cnn" / "1", Flags())


@pytest.fixture(scope="module")
def slow(models_folder: Path) -> Servable:
    return Servable("slow", 1, models_folder / "slow" / "1", Flags())


class Threads:
    """Notes on which thread the servable runs; it then takes `seconds` by the clock that `Direct` reads."""

    def __init__(self, servable: Servable, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self.seen: list[bool] = []
        self.seconds = seconds
        run, now = servable.run, 0.0

        def noted(*arguments: Any) -> list[np.ndarray]:
            nonlocal now
            self.seen.append(threading.current_thread() is threading.main_thread())
            now += self.seconds
            return run(*arguments)

        monkeypatch.setattr(servable, "run", noted)
        monkeypatch.setattr("serving.engines.embedded_tfserving.direct.time.perf_counter", lambda: now)


def tell(ended: asyncio.Future[Any], result: Any, error: ServingError | None) -> None:
    ended.set_result(error or result)


def ask(servable: Servable, direct_on: int, inputs: list[list[np.ndarray]]) -> list[Any]:
    """Answers or errors of one request after the other."""

    async def work() -> list[Any]:
        loop = asyncio.get_running_loop()
        direct = Direct(servable, Workers(loop, 1, 1), direct_on)
        signature = servable.signature("")
        assert signature is not None
        answers = []
        for arrays in inputs:
            ended: asyncio.Future[Any] = loop.create_future()
            direct.submit(signature, arrays, partial(tell, ended))
            answers.append(await ended)
        return answers

    return asyncio.run(work())


def test_on_one_cpu_a_call_known_to_be_short_needs_no_other_thread(cnn, monkeypatch):
    on_the_loop = Threads(cnn, monkeypatch, 0.001).seen
    answers = ask(cnn, 1, [[IMAGES[:1]], [IMAGES[:1]], [IMAGES], [IMAGES]])
    assert on_the_loop == [False, True, False, True]  # the first of each shape tells how long it takes
    np.testing.assert_allclose(answers[2][1][0], answers[1][1][0], atol=1e-5)


def test_on_several_cpus_requests_are_computed_beside_the_loop(cnn, monkeypatch):
    on_the_loop = Threads(cnn, monkeypatch, 0.001).seen
    ask(cnn, 2, [[IMAGES]] * 3)
    assert on_the_loop == [False] * 3


def test_a_call_that_takes_long_leaves_the_loop_free(cnn, monkeypatch):
    on_the_loop = Threads(cnn, monkeypatch, 0.02).seen
    ask(cnn, 1, [[IMAGES]] * 3)
    assert on_the_loop == [False] * 3


def test_a_graph_with_a_loop_never_holds_up_the_server(slow, monkeypatch):
    on_the_loop = Threads(slow, monkeypatch, 0.0).seen
    ask(slow, 1, [[np.array([1], np.float32)]] * 3)
    assert on_the_loop == [False] * 3


def test_an_error_is_told_as_from_a_worker(cnn, monkeypatch):
    Threads(cnn, monkeypatch, 0.0)
    wrong = np.zeros((1, 16, 16, 3), np.uint8)  # the graph's reshape refuses it
    ask_twice = ask(cnn, 1, [[IMAGES[:1]], [wrong], [wrong]])
    assert [error.code for error in ask_twice[1:]] == [Code.INVALID_ARGUMENT] * 2
    assert all(isinstance(error, ServingError) for error in ask_twice[1:])


def test_clients_cannot_make_it_remember_shapes_without_bound(cnn):
    async def work() -> int:
        direct = Direct(cnn, Workers(asyncio.get_running_loop(), 1, 1), 1)
        direct.took_s = {(number,): 0.0 for number in range(MAX_KNOWN)}
        signature = cnn.signature("")
        assert signature is not None
        ended: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        direct.submit(signature, [IMAGES], partial(tell, ended))
        await ended
        return len(direct.took_s)

    assert asyncio.run(work()) == MAX_KNOWN
