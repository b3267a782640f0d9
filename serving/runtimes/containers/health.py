"""The images' health check: whether the model answers, and the container is not on its way out.

    python -m serving.runtimes.containers.health ENGINE

Exit status 0: ready; 1: not. Runs every few seconds beside a server that is measured, so it imports next to nothing.
"""

from __future__ import annotations

import json
import socket
import sys
from typing import Any

from serving.runtimes.containers import layout, servers

TIMEOUT_S = 2.0


def main(engine: str) -> int:
    """Ask the server of ``engine`` for the model's state; prints what is missing."""
    if layout.DRAINING.exists():
        print("draining")
        return 1
    model = json.loads(layout.MANIFEST.read_text())["model"]
    readiness = servers.named(engine).readiness
    try:
        states = readiness.states(get(readiness.port, readiness.path.format(model=model)))
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        print(f"no answer: {error}")
        return 1
    print(", ".join(states))
    return 0 if readiness.ready(states) else 1


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
