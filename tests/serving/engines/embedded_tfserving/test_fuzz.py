"""20,000 malformed requests against one running server: each is answered or its connection closed, good ones are still
answered rightly, and none of them is a fault that the server did not expect (HTTP 500, a traceback in its log)."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import grpc
import numpy as np
import pytest

from tests.serving.engines.embedded_tfserving import malformed
from tests.serving.engines.embedded_tfserving.embedded import Embedded, predict_request, running

SEED = 20_000
ROUNDS = 40
# Of each round; a good request of each kind follows it.
EACH_ROUND = {"REST body": 190, "REST stream": 110, "gRPC call": 150, "HTTP/2 stream": 50}
AT_ONCE = 24
HANGS_S = 10.0
# An incomplete request is rightly waited for: after this long the client says that nothing more comes.
PATIENCE_S = 0.05

MODELS = """
model_config_list {{
  config {{ name: "cnn" base_path: "{folder}/cnn" model_platform: "tensorflow" }}
  config {{ name: "misc" base_path: "{folder}/misc" model_platform: "tensorflow" }}
}}
"""
BATCHING = "max_batch_size { value: 32 } batch_timeout_micros { value: 1000 } max_enqueued_batches { value: 1000 }"
OUR_FAULT = re.compile(r"^[A-Za-z]+(Error|Exception|Interrupt|Warning)\b")

Case = tuple[str, bytes, Callable[[], Awaitable[str | None]]]


@pytest.fixture
def server(models_folder: Path, tmp_path: Path) -> Iterator[Embedded]:
    """Two models, batched."""
    config, batching = tmp_path / "models.txt", tmp_path / "batching.txt"
    config.write_text(MODELS.format(folder=models_folder))
    batching.write_text(BATCHING)
    flags = (f"--model_config_file={config}", "--enable_batching", f"--batching_parameters_file={batching}")
    with running(tmp_path, *flags) as server:
        yield server


class Client:
    """Sends malformed requests; each `send` says what is wrong with the answer, or None."""

    def __init__(self, server: Embedded, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel
        self.outcomes: Counter[str] = Counter()

    def case(self, kind: str, random: Random) -> Case:
        """The next malformed request of a kind: (kind, its bytes, what sends it)."""
        if kind == "gRPC call":
            method, message = malformed.grpc_call(random)
            return method, message, lambda: self.grpc_call(method, message)
        if kind == "HTTP/2 stream":
            data = malformed.http2_stream(random)
            patience = random.choice((0.0, PATIENCE_S))
            return kind, data, lambda: self.stream(self.server.port, data, kind, patience)
        if kind == "REST stream":
            data = malformed.rest_stream(random)
            return kind, data, lambda: self.stream(self.server.rest_port, data, kind, PATIENCE_S)
        model, body, headers = malformed.rest_body(random)
        lines = [f"POST /v1/models/{model}:predict HTTP/1.1", "Host: x", "Connection: close"]
        lines += [f"{name}: {value}" for name, value in {**headers, "Content-Length": str(len(body))}.items()]
        data = ("\r\n".join(lines) + "\r\n\r\n").encode() + body
        return kind, data, lambda: self.stream(self.server.rest_port, data, kind, HANGS_S)

    async def grpc_call(self, method: str, message: bytes) -> str | None:
        """A status other than those that mean a fault of the server's."""
        try:
            await self.channel.unary_unary(method)(message, timeout=HANGS_S)
        except grpc.aio.AioRpcError as error:
            self.outcomes[f"gRPC {error.code().name}"] += 1
            if error.code().name in ("DEADLINE_EXCEEDED", "UNAVAILABLE", "UNKNOWN") or OUR_FAULT.match(
                error.details() or ""
            ):
                return f"{error.code().name} {error.details()}"
        else:
            self.outcomes["gRPC OK"] += 1
        return None

    async def stream(self, port: int, data: bytes, kind: str, patience_s: float) -> str | None:
        """The server answers or closes within `patience_s`, or closes when the client has ended; and never with 500."""
        answer = b""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            ended = False
            if patience_s:
                answer, ended = await _read(reader, patience_s)
            if not ended:
                if kind == "REST body":
                    return f"neither answered nor closed within {patience_s} s"
                writer.write_eof()
                more, ended = await _read(reader, HANGS_S)
                answer += more
                if not ended:
                    return f"not closed within {HANGS_S} s of the client's end"
        except OSError:  # closed with bytes unread
            self.outcomes[f"{kind}: reset"] += 1
            return None
        finally:
            writer.close()
        statuses = re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", answer) if kind.startswith("REST") else []
        self.outcomes.update([f"{kind}: {status.decode()}" for status in statuses[:1]] or [f"{kind}: closed"])
        if kind == "REST body" and not statuses:
            return "closed without an answer"
        return "status 500" if b"500" in statuses else None


async def _read(reader: asyncio.StreamReader, seconds: float) -> tuple[bytes, bool]:
    """What comes until the end or for so long; whether the end came."""
    received = b""
    try:
        async with asyncio.timeout(seconds):
            while part := await reader.read(65_536):
                received += part
    except TimeoutError:
        return received, False
    return received, True


async def _all(cases: list[Case]) -> list[str]:
    """Send the cases, `AT_ONCE` at a time; what is wrong with their answers."""
    faults = []
    waiting = iter(cases)

    async def worker() -> None:
        for kind, data, send in waiting:
            if fault := await send():
                faults.append(f"{kind}: {fault}, after {data[:600]!r}")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(AT_ONCE):
            tasks.create_task(worker())
    return faults


def good_requests_are_answered(server: Embedded) -> None:
    """Over both protocols, rightly and soon."""
    answer = server.predict("misc", {"x": np.array([[1, 2]], np.float32)}, timeout=HANGS_S)
    assert list(answer.outputs["y"].float_val) == [2, 4]
    assert server.http("POST", "/v1/models/misc:predict", {"instances": [[1.5, 2]]})[1].split() == [
        b'{"predictions":[[3.0,4.0]]}'
    ]
    image = predict_request("cnn", {"images": np.zeros((1, 32, 32, 3), np.uint8)})
    probabilities = server.prediction.Predict(image, timeout=HANGS_S).outputs["probabilities"].float_val
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.exhaustive
def test_twenty_thousand_malformed_requests_neither_stop_the_server_nor_hang(server: Embedded, capsys):
    random = Random(SEED)
    began = time.monotonic()
    sent = 0

    async def go() -> tuple[Counter[str], list[str]]:
        nonlocal sent
        faults: list[str] = []
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            client = Client(server, channel)
            for _ in range(ROUNDS):
                cases = [client.case(kind, random) for kind, count in EACH_ROUND.items() for _ in range(count)]
                random.shuffle(cases)
                faults += await _all(cases)
                sent += len(cases)
                assert server.process.poll() is None, server.log.read_text()[-3000:]
                await asyncio.to_thread(good_requests_are_answered, server)
            return client.outcomes, faults

    outcomes, faults = asyncio.run(go())
    with capsys.disabled():
        print(f"\n{sent} malformed requests in {time.monotonic() - began:.0f} s, {len(faults)} faults:")
        print("; ".join(f"{count} x {outcome}" for outcome, count in sorted(outcomes.items())))
    assert sent == 20_000
    log = server.log.read_text()
    assert not faults, "\n".join(faults[:20]) + "\n" + log[-5000:]
    assert "Traceback" not in log, log[log.index("Traceback") :][:5000]
    assert server.terminate() == 0
