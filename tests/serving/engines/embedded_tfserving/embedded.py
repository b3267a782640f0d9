"""Starts the embedded server for a test and stops it, whatever happens."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

ROOT = Path(__file__).resolve().parents[4]
START_S = 90


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Embedded:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, rest_port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.rest_port = rest_port
        self.log = log
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")
        self.prediction = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def http(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """Status and body of one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.rest_port, timeout=60)
        try:
            data = json.dumps(body).encode() if isinstance(body, dict) else body
            connection.request(method, path, data, headers or {})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def predict(self, model: str, arrays: dict[str, np.ndarray], timeout: float = 60, **spec: Any) -> Any:
        """A PredictResponse; raises grpc.RpcError."""
        return self.prediction.Predict(predict_request(model, arrays, **spec), timeout=timeout)

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


TYPES = {"uint8": 4, "float32": 1, "int32": 3, "int64": 9, "float64": 2}


def predict_request(model: str, arrays: dict[str, np.ndarray], signature: str = "") -> Any:
    """A PredictRequest with `tensor_content`."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    request.model_spec.signature_name = signature
    for name, array in arrays.items():
        tensor = request.inputs[name]
        tensor.dtype = TYPES[str(array.dtype)]
        for size in array.shape:
            tensor.tensor_shape.dim.add(size=size)
        tensor.tensor_content = array.tobytes()
    return request


@contextmanager
def running(folder: Path, *flags: str, environment: dict[str, str] | None = None) -> Iterator[Embedded]:
    """A server with these flags, ports and a metrics page added; ready when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    port, rest_port = free_ports(2)
    monitoring = folder / "monitoring.txt"
    monitoring.write_text('prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }\n')
    log = folder / "server.log"
    command = [
        sys.executable,
        "-m",
        "serving.engines.embedded_tfserving",
        f"--port={port}",
        f"--rest_api_port={rest_port}",
    ]
    command += [f"--monitoring_config_file={monitoring}", "--grpc_max_threads=256", *flags]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=output, env={**os.environ, **(environment or {})}
        )
    server = Embedded(process, port, rest_port, log)
    try:
        deadline = time.monotonic() + START_S
        while b"Exporting HTTP/REST API" not in log.read_bytes():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        server.channel.close()
        if process.poll() is None:
            process.kill()
        process.wait()
