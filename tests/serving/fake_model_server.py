"""Stands in for tensorflow_model_server in tests of launching: its flags, and uniform probabilities for every image.

With --only=grpc (or rest) it answers over that protocol alone, as the real one does where its REST port is taken.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc

from serving.wire.protobuf import tensorflow_serving_pb2 as messages

CLASSES = 10


class Rest(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["instances"]
        answer = json.dumps({"predictions": [[1 / CLASSES] * CLASSES] * len(rows)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


def predict(encoded: bytes, _: grpc.ServicerContext) -> bytes:
    request = messages.PredictRequest.FromString(encoded)
    count = request.inputs["images"].tensor_shape.dim[0].size
    tensor = messages.TensorProto(
        dtype=messages.DT_FLOAT,
        tensor_shape=messages.TensorShapeProto(dim=[{"size": count}, {"size": CLASSES}]),
        float_val=[1 / CLASSES] * count * CLASSES,
    )
    return messages.PredictResponse(outputs={"probabilities": tensor}).SerializeToString()


def main() -> None:
    flags = dict(argument.removeprefix("--").split("=", 1) for argument in sys.argv[1:] if "=" in argument)
    print("flags:", json.dumps(flags), flush=True)
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "1":
        print("2026-11-23 06:54:08.051833: I tensorflow/core/util/port.cc:153] oneDNN custom operations are on. You")
    print("2026-11-23 06:54:08.293722: I src/tensorflow_serving/model_servers/server.cc:124] Using", flush=True)
    print("threads:", os.environ["OMP_NUM_THREADS"], flush=True)
    if "dies" in flags["model_name"]:
        sys.exit("Failed to start server. Error: no versions of servable")
    handlers = {"Predict": grpc.unary_unary_rpc_method_handler(predict)}
    server = grpc.server(ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("tensorflow.serving.PredictionService", handlers),)
    )
    only = flags.get("only", "")
    if only != "rest":
        server.add_insecure_port(f"127.0.0.1:{flags['port']}")
    if only != "grpc":
        http = HTTPServer(("127.0.0.1", int(flags["rest_api_port"])), Rest)
        threading.Thread(target=http.serve_forever, daemon=True).start()
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main()
