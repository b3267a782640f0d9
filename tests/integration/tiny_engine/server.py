"""The server itself: `server.py REST_PORT GRPC_PORT --threads=N MODEL=FILE ...`. Knows nothing of Tandem."""

from __future__ import annotations

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import onnxruntime


def load(path: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options)


def predict(session: onnxruntime.InferenceSession, body: bytes) -> bytes:
    images = np.frombuffer(body, np.uint8, offset=3).reshape(-1, *body[:3])
    (probabilities,) = session.run(None, {"images": images})
    return np.ascontiguousarray(probabilities, "<f4").tobytes()


def main(rest: str, grpc_port: str, threads: str, *models: str) -> None:
    sessions = {
        name: load(path, int(threads.partition("=")[2])) for name, path in (one.split("=", 1) for one in models)
    }
    first = next(iter(sessions.values()))

    class Rest(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # headers and body in one packet

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = predict(sessions[self.path.split("/")[1]], body)
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    handler = grpc.unary_unary_rpc_method_handler(lambda body, _: predict(first, body))
    server = grpc.server(ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tiny.Model", {"Predict": handler}),))
    server.add_insecure_port(f"127.0.0.1:{grpc_port}")
    server.start()
    http = ThreadingHTTPServer(("127.0.0.1", int(rest)), Rest)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    print("serving", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
