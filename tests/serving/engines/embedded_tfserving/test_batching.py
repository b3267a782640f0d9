"""Batches are formed, refused and split by TensorFlow's scheduler; messages are the recorded ones."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import grpc
import numpy as np
import pytest

from serving.engines.embedded_tfserving.batching import Batcher
from serving.engines.embedded_tfserving.config import BatchingParameters, BatchingParametersMessage
from serving.engines.embedded_tfserving.flags import Flags
from serving.engines.embedded_tfserving.metrics import Metrics
from serving.engines.embedded_tfserving.servable import Servable
from serving.engines.embedded_tfserving.status import ServingError
from serving.engines.embedded_tfserving.workers import Workers
from serving.wire.grpc_status import Code

pytestmark = pytest.mark.slow

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (200, 32, 32, 3), np.uint8)


def outcome(server, images: np.ndarray) -> tuple[str, str, np.ndarray]:
    """Code, message and probabilities (none on an error)."""
    try:
        response = server.predict("cnn", {"images": images})
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return error.code().name, error.details() or "", np.zeros((0, 0))
    output = response.outputs["probabilities"]
    return "OK", "", np.array(output.float_val).reshape([dim.size for dim in output.tensor_shape.dim])


@pytest.fixture(scope="module")
def expected(batching_server) -> np.ndarray:
    """Probabilities of IMAGES, asked for in small batches."""
    return np.concatenate([outcome(batching_server, IMAGES[start : start + 8])[2] for start in range(0, 200, 8)])


@pytest.mark.parametrize("rows", [1, 31, 32])
def test_a_batch_of_allowed_size_is_answered(batching_server, expected, rows):
    code, _, probabilities = outcome(batching_server, IMAGES[:rows])
    assert code == "OK"
    np.testing.assert_allclose(probabilities, expected[:rows], atol=1e-5)


@pytest.mark.parametrize("rows", [33, 200])
def test_a_request_larger_than_the_largest_batch_is_refused(batching_server, rows):
    message = f"Task size {rows} is larger than maximum input batch size 32"
    assert outcome(batching_server, IMAGES[:rows])[:2] == ("INVALID_ARGUMENT", message)
    status, body = batching_server.http("POST", "/v1/models/cnn:predict", {"instances": IMAGES[:rows].tolist()})
    assert (status, body.decode()) == (400, f'{{\n    "error": "{message}"\n}}')


def test_concurrent_requests_get_their_own_answers(batching_server, expected):
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda number: outcome(batching_server, IMAGES[number : number + 1]), range(200)))
    assert {answer[0] for answer in answers} == {"OK"}
    np.testing.assert_allclose(np.concatenate([answer[2] for answer in answers]), expected, atol=1e-5)


def test_a_bad_request_does_not_fail_its_batch_mates(batching_server, expected):
    def ask(number: int) -> tuple[str, str, np.ndarray]:
        return outcome(batching_server, IMAGES[:1, :16] if number % 8 == 0 else IMAGES[number : number + 1])

    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(ask, range(64)))
    assert Counter(answer[0] for answer in answers) == {"OK": 56, "INVALID_ARGUMENT": 8}
    assert answers[0][1].startswith("Input to reshape is a tensor with 1024 values, but the requested shape requires")
    np.testing.assert_allclose(answers[9][2], expected[9:10], atol=1e-5)


def test_a_full_queue_refuses(batching_server):
    with ThreadPoolExecutor(64) as pool:
        answers = list(pool.map(lambda _: outcome(batching_server, IMAGES[:32])[:2], range(192)))
    codes = Counter(code for code, _ in answers)
    assert codes.keys() == {"OK", "UNAVAILABLE"}
    message = next(text for code, text in answers if code == "UNAVAILABLE")
    assert re.fullmatch(
        r"The batch scheduling queue to which this task was submitted is full; "
        r"currently \d+ batches enqueued and max_enqueued_batches is 4",
        message,
    )
    assert outcome(batching_server, IMAGES[:1])[0] == "OK"


def test_a_lone_request_waits_for_the_timeout_and_an_empty_one_does_not(batching_server):
    times = []
    for _ in range(5):
        started = time.perf_counter()
        outcome(batching_server, IMAGES[:1])
        times.append(time.perf_counter() - started)
    assert min(times) > 0.005
    code, _, probabilities = outcome(batching_server, IMAGES[:0])
    assert code == "OK"
    assert probabilities.shape == (0, 10)


def parameters(**values: int | bool | list[int]) -> BatchingParameters:
    message = BatchingParametersMessage()
    for name, value in values.items():
        if isinstance(value, list):
            getattr(message, name).extend(value)
        else:
            getattr(message, name).value = value
    return BatchingParameters(message)


def run_in_batches(servable: Servable, settings: BatchingParameters, sizes: list[int]) -> tuple[list[Any], Metrics]:
    """Submit requests of these sizes together; each one's error or probabilities, and the metrics."""

    async def go() -> tuple[list[Any], Metrics]:
        loop = asyncio.get_running_loop()
        metrics = Metrics("test")
        batcher = Batcher(servable, settings, Workers(loop, 16, 16), metrics)
        futures: list[asyncio.Future[Any]] = []

        def finish(future: asyncio.Future[Any], outputs: list[np.ndarray] | None, error: ServingError | None) -> None:
            future.set_result(outputs[1] if outputs else error)

        for size in sizes:
            future: asyncio.Future[Any] = loop.create_future()
            futures.append(future)
            batcher.submit(servable.signatures["serving_default"], [IMAGES[:size]], partial(finish, future))
        return await asyncio.wait_for(asyncio.gather(*futures), 60), metrics

    return asyncio.run(go())


@pytest.fixture(scope="module")
def servable(models_folder):
    loaded = Servable("cnn", 1, models_folder / "cnn" / "1", Flags())
    yield loaded
    loaded.close()


def test_batches_are_padded_to_the_allowed_sizes(servable):
    settings = parameters(max_batch_size=32, batch_timeout_micros=20_000, allowed_batch_sizes=[1, 8, 32])
    answers, metrics = run_in_batches(servable, settings, [1, 2, 3])
    assert [len(answer) for answer in answers] == [1, 2, 3]
    np.testing.assert_allclose(answers[2][:2], answers[1], atol=1e-5)
    assert metrics.input_batch_size.of().sum == 6
    assert metrics.processed_batch_size.of().sum == 8
    assert metrics.padding_size.of("8").sum == 2


def test_large_requests_are_split_where_allowed(servable):
    settings = parameters(
        max_batch_size=128,
        batch_timeout_micros=1000,
        max_enqueued_batches=16,
        enable_large_batch_splitting=True,
        max_execution_batch_size=32,
    )
    (answer, refused), metrics = run_in_batches(servable, settings, [100, 129])
    assert answer.shape == (100, 10)
    assert isinstance(refused, ServingError)
    assert refused.message == "Task size 129 is larger than maximum input batch size 128"
    histogram = metrics.processed_batch_size.of()
    assert (sum(histogram.buckets), histogram.sum) == (4, 100)


def test_pieces_of_a_large_request_are_padded_to_the_allowed_sizes(servable):
    settings = parameters(
        max_batch_size=128,
        batch_timeout_micros=1000,
        max_enqueued_batches=16,
        enable_large_batch_splitting=True,
        max_execution_batch_size=32,
        allowed_batch_sizes=[8, 32, 128],
    )
    (answer,), metrics = run_in_batches(servable, settings, [70])
    assert answer.shape == (70, 10)
    histogram = metrics.processed_batch_size.of()
    assert (sum(histogram.buckets), histogram.sum) == (3, 72)  # 32, 32, and 6 as 8


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_batch_size": 0}, "max_batch_size must be positive; was 0"),
        ({"num_batch_threads": 0}, "num_batch_threads must be positive; was 0"),
        (
            {"max_batch_size": 32, "allowed_batch_sizes": [8, 16]},
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 16; expected 32",
        ),
        (
            {"max_batch_size": 32, "allowed_batch_sizes": [32, 8]},
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 8; expected 32",
        ),
        (
            {
                "max_batch_size": 32,
                "enable_large_batch_splitting": True,
                "max_execution_batch_size": 16,
                "allowed_batch_sizes": [4, 16],
            },
            "Last entry in allowed_batch_sizes must match max_batch_size; last entry was 16; expected 32",
        ),
    ],
)
def test_impossible_parameters_are_refused(values, message):
    with pytest.raises(ServingError) as refused:
        parameters(**values).check()
    assert (refused.value.code, refused.value.message) == (Code.INVALID_ARGUMENT, message)
