"""Deadlines, cancellation, the concurrency limit, CORS and answers while a long request runs, as the real server was
recorded (misc.jsonl, drain.jsonl)."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import text_format
from tensorflow_serving.apis import get_model_status_pb2, model_service_pb2_grpc, predict_pb2

from tests.serving.engines.embedded_tfserving.embedded import Embedded, predict_request, running

pytestmark = pytest.mark.slow

RECORDINGS = Path(__file__).resolve().parent / "recordings"
MAX_THREADS = 8  # the recordings' server had 2 CPUs, and so this default
MODELS = ("cnn", "misc", "slow")
IMAGE = {"images": np.zeros((1, 32, 32, 3), np.uint8)}


def recorded(file: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (RECORDINGS / file).read_text().splitlines()]


@pytest.fixture(scope="module")
def server(models_folder: Path, tmp_path_factory) -> Iterator[Embedded]:
    """Three models, with the flags of the recordings."""
    folder = tmp_path_factory.mktemp("limits")
    config = folder / "models.txt"
    models = "".join(f'config {{ name: "{name}" base_path: "{models_folder / name}" }} ' for name in MODELS)
    config.write_text(f"model_config_list {{ {models} }}")
    flags = [f"--model_config_file={config}", f"--grpc_max_threads={MAX_THREADS}", "--rest_api_enable_cors_support"]
    # More inter-op threads than long requests: they share TensorFlow's pool, as in the real server.
    flags += ["--enable_serialization_as_tensor_content", "--tensorflow_inter_op_parallelism=16"]
    with running(folder, *flags) as server:
        yield server


@pytest.fixture(scope="module")
def second(server: Embedded) -> float:
    """The input that keeps the slow model busy for about a second."""
    started = time.perf_counter()
    server.predict("slow", {"x": np.array([300], np.float32)})
    return 300 / (time.perf_counter() - started)


def slow(server: Embedded, amount: float) -> Any:
    """A call of the slow model under way."""
    return server.prediction.Predict.future(predict_request("slow", {"x": np.array([amount], np.float32)}), timeout=60)


def outcome(call: Any) -> str:
    """As the recordings write it."""
    try:
        call.result()
    except grpc.RpcError as error:
        assert isinstance(error, grpc.Call)
        return f"{error.code().name}: {error.details()}"
    return "OK"


CONCURRENCY = [line for line in recorded("misc.jsonl") if line["name"].startswith("grpc_concurrency_")]


@pytest.mark.parametrize("line", CONCURRENCY, ids=lambda line: line["name"])
def test_calls_beyond_the_limit_are_refused_at_once(server: Embedded, second: float, line: dict[str, Any]):
    calls = [slow(server, second / 4) for _ in range(sum(line["counts"].values()))]
    assert Counter(map(outcome, calls)) == line["counts"]


@pytest.mark.parametrize("count", [8, 16, 40])
def test_rest_has_no_such_limit(server: Embedded, second: float, count: int):
    with ThreadPoolExecutor(count) as pool:
        body = {"instances": [second / 20]}
        answers = [pool.submit(server.http, "POST", "/v1/models/slow:predict", body) for _ in range(count)]
        assert Counter(answer.result()[0] for answer in answers) == {200: count}


def test_a_call_past_its_deadline_is_given_up_and_frees_its_place(server: Embedded, second: float):
    started = time.monotonic()
    with pytest.raises(grpc.RpcError) as refused:
        server.predict("slow", {"x": np.array([4 * second], np.float32)}, timeout=0.3)
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - started < 2
    assert Counter(outcome(call) for call in [slow(server, 1) for _ in range(MAX_THREADS - 1)]) == {"OK": 7}


def test_a_cancelled_call_frees_its_place(server: Embedded, second: float):
    calls = [slow(server, second) for _ in range(MAX_THREADS - 1)]
    for call in calls:
        assert call.cancel()
    deadline = time.monotonic() + 10
    while "OK" not in (last := outcome(slow(server, 1))):  # the cancellations are on their way
        assert last == "RESOURCE_EXHAUSTED: Server Threadpool Exhausted"
        assert time.monotonic() < deadline


def test_a_client_that_disconnects_harms_nobody(server: Embedded, second: float):
    body = json.dumps({"instances": [second]}).encode()
    head = f"POST /v1/models/slow:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", server.rest_port)) as connection:
            connection.sendall(head + body)
    assert server.http("POST", "/v1/models/slow:predict", {"instances": [1.0]})[0] == 200


CORS = [line for line in recorded("misc.jsonl") if line["name"] == "cors_on"]


@pytest.mark.parametrize("line", CORS, ids=lambda line: f"{line['method']} {line['path']} {line['headers']}")
def test_cors_headers_are_the_recorded_ones(server: Embedded, line: dict[str, Any]):
    connection = http.client.HTTPConnection("127.0.0.1", server.rest_port, timeout=30)
    try:
        connection.request(line["method"], line["path"], headers=line["headers"])
        response = connection.getresponse()
        body = response.read().decode()
    finally:
        connection.close()
    names = ("Content-Type", "Content-Length")
    wanted = {name: value for name, value in line["response_headers"] if name in names or name.startswith("Access")}
    if "body" not in line:
        wanted.pop("Content-Length")  # of a body that was not recorded
    assert response.status == line["status"]
    assert {name: response.getheader(name) for name in wanted} == wanted
    assert body == line.get("body", body)


def test_tensor_content_on_request(server: Embedded):
    [line] = [line for line in recorded("misc.jsonl") if line["name"] == "enable_serialization_as_tensor_content"]
    wanted = text_format.Parse(line["response"], predict_pb2.PredictResponse())
    assert server.predict("misc", {"x": np.array([[1, 2]], np.float32)}) == wanted


def probe(server: Embedded, name: str) -> Any:
    """What drain.jsonl records of a probe."""
    protocol, what, model = name.split()
    if protocol == "rest":
        status, body = server.http("GET", f"/v1/models/{model}" + ("/metadata" if what == "metadata" else ""))
        return [status, body.decode()] if what == "status" else status
    if what == "status":
        stub = model_service_pb2_grpc.ModelServiceStub(server.channel)
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        return " ".join(str(stub.GetModelStatus(request, timeout=10)).split())
    return " ".join(str(server.predict(model, IMAGE, timeout=10).model_spec).split())


PROBES = [line for line in recorded("drain.jsonl") if line.get("tag") == "v1 busy, before reload"]


# The real server's REST status waits for one of its threads: 2.3 s behind twelve long requests (misc.jsonl).
@pytest.mark.parametrize(
    ("long_requests", "probes"), [(1, PROBES), (12, [p for p in PROBES if "predict" not in p["probe"]])]
)
def test_probes_are_answered_at_once_while_long_requests_run(
    server: Embedded, second: float, long_requests: int, probes: list[dict[str, Any]]
):
    body = {"instances": [2 * second / min(long_requests, 3)]}
    with ThreadPoolExecutor(long_requests) as pool:
        busy = [pool.submit(server.http, "POST", "/v1/models/slow:predict", body) for _ in range(long_requests)]
        started = time.monotonic()
        answers = {line["probe"]: probe(server, line["probe"]) for line in probes}
        took = time.monotonic() - started
        assert not any(one.done() for one in busy)
        assert {one.result()[0] for one in busy} == {200}
    assert took < 2
    assert answers == {line["probe"]: line["result"] for line in probes}
