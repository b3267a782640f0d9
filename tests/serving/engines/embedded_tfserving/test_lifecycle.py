"""Starting, long requests, time-outs, malformed HTTP, and the drain after SIGTERM."""

from __future__ import annotations

import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from serving.__main__ import main as serving_verb
from serving.engines.embedded_tfserving.main import main
from tests.serving.engines.embedded_tfserving.embedded import Embedded, running

pytestmark = pytest.mark.slow

SECONDS_OF_WORK = 3.0


def test_the_version_names_the_engine_also_through_the_verb(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "embedded-tfserving: 0.1.0"
    assert serving_verb(["embedded-tfserving", "--version"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "embedded-tfserving: 0.1.0"


@pytest.fixture
def slow_server(models_folder: Path, tmp_path: Path):
    file = tmp_path / "models.txt"
    models = "".join(f'config {{ name: "{name}" base_path: "{models_folder / name}" }} ' for name in ("cnn", "slow"))
    file.write_text(f"model_config_list {{ {models} }}")
    # More inter-op threads than long requests: they share TensorFlow's pool, as in the real server.
    flags = [f"--model_config_file={file}", "--rest_api_timeout_in_ms=1000", "--tensorflow_inter_op_parallelism=4"]
    with running(tmp_path, *flags) as server:
        yield server


def work(server: Embedded, seconds: float) -> float:
    """The input that keeps the slow model busy for about so long."""
    started = time.perf_counter()
    server.predict("slow", {"x": np.array([300], np.float32)})
    return 300 * seconds / (time.perf_counter() - started)


def test_a_long_request_holds_nothing_up_and_is_finished_by_the_drain(slow_server: Embedded):
    server = slow_server
    amount = work(server, SECONDS_OF_WORK)
    image = np.zeros((1, 32, 32, 3), np.uint8)

    with ThreadPoolExecutor(8) as pool:
        # While a long request computes, others are answered; a REST request past its time-out gets 504.
        long = pool.submit(server.predict, "slow", {"x": np.array([amount], np.float32)})
        late = pool.submit(server.http, "POST", "/v1/models/slow:predict", {"instances": [amount]})
        assert server.predict("cnn", {"images": image}).outputs["probabilities"].float_val
        assert server.http("GET", "/v1/models/cnn")[0] == 200
        assert not long.done()
        status, body = late.result(60)
        assert (status, json.loads(body)) == (504, {"error": "Timed out waiting for notification"})
        assert long.result(60).outputs["y"].float_val

        # SIGTERM: what is under way is answered, nothing new is taken, the exit status is 0.
        last = pool.submit(server.predict, "slow", {"x": np.array([amount / 2], np.float32)})
        time.sleep(0.3)  # the request is sent, and nothing outside shows when it has arrived
        assert not last.done()
        assert server.terminate() == 0
        assert last.result(10).outputs["y"].float_val
    for port in (server.port, server.rest_port):
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=5)
    assert "stopped" in server.log.read_text()


def raw(server: Embedded, data: bytes) -> bytes:
    """Everything the server sends back until it closes or says nothing for a second."""
    with socket.create_connection(("127.0.0.1", server.rest_port), timeout=1) as connection:
        connection.sendall(data)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except TimeoutError:
            pass
        return received


@pytest.mark.parametrize("data", [b"\x00\x01\x02 nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"POST\r\n\r\n"])
def test_malformed_http_gets_400(batching_server: Embedded, data: bytes):
    assert raw(batching_server, data).startswith(b"HTTP/1.1 400 ")


def test_pipelined_requests_are_answered_in_order(batching_server: Embedded):
    paths = [b"/v1/models/cnn", b"/v1/models/nope", b"/v1/models/cnn/versions/2", b"/v2"]
    answers = raw(batching_server, b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n" for path in paths))
    assert [part[:3] for part in answers.split(b"HTTP/1.1 ")[1:]] == [b"200", b"404", b"200", b"404"]


def test_the_health_service_says_serving(batching_server: Embedded):
    check = batching_server.channel.unary_unary("/grpc.health.v1.Health/Check")
    assert check(b"", timeout=10) == b"\x08\x01"
    assert (
        check(b"\x0a\x24tensorflow.serving.PredictionService"[:2] + b"tensorflow.serving.PredictionService")
        == b"\x08\x01"
    )
