"""The client on a name with several addresses, as a headless Service has."""

from __future__ import annotations

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import grpc
import numpy as np

from serving import requests
from serving.client import Client
from serving.wire.protobuf import torchserve_pb2
from tests.serving.targets import target

ANSWER = torchserve_pb2.PredictionResponse(prediction=np.full((1, 10), 0.1, np.float32).tobytes()).SerializeToString()


def replica(number: int, calls: Counter[int]) -> tuple[grpc.Server, int]:
    """A server that counts its calls."""

    def predict(_: bytes, __: grpc.ServicerContext) -> bytes:
        calls[number] += 1
        return ANSWER

    server = grpc.server(ThreadPoolExecutor(2))
    service, method = requests.grpc_method(target("pytorch")).strip("/").split("/")
    handlers = {method: grpc.unary_unary_rpc_method_handler(predict)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


def test_grpc_calls_go_to_every_replica_in_turn():
    calls: Counter[int] = Counter()
    image = np.zeros((1, 32, 32, 3), np.uint8)
    with contextlib.ExitStack() as stack:
        ports = []
        for number in range(3):
            server, port = replica(number, calls)
            stack.callback(server.stop, None)
            ports.append(port)
        address = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
        client = stack.enter_context(Client(replace(target("pytorch"), grpc=address)))
        while len(calls) < 3:  # connections come up one after the other
            client.predict("grpc", image)
        calls.clear()
        for _ in range(30):
            client.predict("grpc", image)
    assert calls == {0: 10, 1: 10, 2: 10}


def test_grpc_goes_past_a_proxy_of_the_environment(monkeypatch):
    """gRPC's own library would use it, even to this machine."""
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    calls: Counter[int] = Counter()
    server, port = replica(0, calls)
    try:
        with Client(replace(target("pytorch"), grpc=f"127.0.0.1:{port}")) as client:
            assert client.predict("grpc", np.zeros((1, 32, 32, 3), np.uint8)).shape == (1, 10)
    finally:
        server.stop(None)
