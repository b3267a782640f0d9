"""The images' health check: whether the model answers, and the container is not on its way out.

    python -m serving.runtimes.containers.health torchserve|tensorflow-serving|embedded-tfserving

Exit status 0: ready; 1: not. Runs every few seconds beside a server that is measured, so it imports next to nothing.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from serving.runtimes.containers import layout

TIMEOUT_S = 2.0


def main(engine: str) -> int:
    """Ask the server of ``engine`` for the model's state; prints what is missing."""
    if layout.DRAINING.exists():
        print("draining")
        return 1
    model = json.loads(layout.MANIFEST.read_text())["model"]
    ports = layout.PORTS[engine]
    try:
        if engine == "torchserve":
            answer = get(ports.management, f"/models/{model}")
            states = [worker["status"] for worker in answer[0]["workers"]]
            ready = bool(states) and all(state == "READY" for state in states)
        else:
            answer = get(ports.rest, f"/v1/models/{model}")
            states = [version["state"] for version in answer["model_version_status"]]
            ready = "AVAILABLE" in states
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        print(f"no answer: {error}")
        return 1
    print(", ".join(states))
    return 0 if ready else 1


def get(port: int, path: str) -> Any:
    """The JSON that a GET of ``path`` on loopback yields. OSError or ValueError where it yields none."""
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(request.encode())
        answer = connection.makefile("rb")
        status = answer.readline().decode("latin-1").strip()
        length = None
        while line := answer.readline().strip():
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = answer.read(length)  # TorchServe keeps the connection open, whatever it is asked
    if " 200 " not in status:
        raise ValueError(status)
    return json.loads(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
