"""A small real gRPC server (grpcio): `python small_grpc_server.py MODE [ARG=VALUE ...]`. Prints its port.

ok, wrong, unavailable, exhausted (status from the application), delay:SECONDS, echo (the request as answer); further
arguments are channel arguments such as grpc.max_concurrent_streams=2.
"""

from __future__ import annotations

import sys
import time
from concurrent import futures

import grpc
import numpy as np

mode, _, value = sys.argv[1].partition(":")
options = [(name, int(number)) for name, _, number in (argument.partition("=") for argument in sys.argv[2:])]


def prediction(first: float) -> bytes:
    values = np.full(10, (1 - first) / 9, dtype="<f4")
    values[0] = first
    return b"\x0a" + bytes([values.nbytes]) + values.tobytes()


def predict(request: bytes, context: grpc.ServicerContext) -> bytes:
    if mode == "unavailable":
        context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
    if mode == "exhausted":
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue is full: " + "x" * 200)
    if mode == "delay":
        time.sleep(float(value))
    return request if mode == "echo" else prediction(0.9 if mode == "wrong" else 0.1)


class Everything(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(predict)


limits = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
server = grpc.server(futures.ThreadPoolExecutor(16), handlers=[Everything()], options=limits + options)
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
server.wait_for_termination()
