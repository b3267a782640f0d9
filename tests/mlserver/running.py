"""MLServer, a server of the Open Inference Protocol that was not written here, in a virtual environment of its own."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from serving.ports import LOOPBACK, choose
from tests.components import require

PROGRAM = Path(__file__).parents[2] / ".venv-mlserver" / "bin" / "mlserver"
MODELS = Path(__file__).with_name("models")
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class MlServer:
    """ "host:port" of its APIs; it holds the models of `MODELS`: `brightness` and `weighted` (version 1), and `echo`
    (version v2)."""

    rest: str
    grpc: str


@contextmanager
def mlserver() -> Iterator[MlServer]:
    """A running server, ready; it is gone afterwards."""
    require("mlserver")
    rest, grpc, metrics = choose([(0, "MLServer's REST API"), (0, "its gRPC API"), (0, "its metrics")])
    ports = {"MLSERVER_HTTP_PORT": rest, "MLSERVER_GRPC_PORT": grpc, "MLSERVER_METRICS_PORT": metrics}
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}, "PYTHONPATH": str(MODELS)}
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([PROGRAM, "start", MODELS], env=environment, stdout=log, stderr=log, cwd="/")
        try:
            _wait(process, f"http://{LOOPBACK}:{rest}/v2/health/ready", log)
            yield MlServer(f"{LOOPBACK}:{rest}", f"{LOOPBACK}:{grpc}")
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            if process.poll() is not None or time.monotonic() > deadline:
                log.seek(0)
                raise AssertionError(f"MLServer does not get ready:\n{log.read().decode()[-3000:]}") from None
            time.sleep(0.1)
