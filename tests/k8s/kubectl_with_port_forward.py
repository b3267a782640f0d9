#!/usr/bin/env python3
"""The real kubectl, but for port-forward and exec, which the stand-in of the API server cannot do: those are done here.

TANDEM_TEST_KUBECTL names the real one, TANDEM_TEST_FORWARD a JSON file:
{"deployment/torchserve": {"7070": "127.0.0.1:40001", ...}, ...}. While deployment-torchserve.cut is beside it, that one
loses its connection as the real one does when its pod goes.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from pathlib import Path

REAL = os.environ["TANDEM_TEST_KUBECTL"]


def pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def relay(listener: socket.socket, address: str) -> None:
    host, port = address.rsplit(":", 1)
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection((host, int(port)))
        except OSError:
            near.close()
            continue
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()


def port_forward(arguments: list[str]) -> None:
    mapping_file = Path(os.environ["TANDEM_TEST_FORWARD"])
    mapping = json.loads(mapping_file.read_text())
    position = next(index for index, word in enumerate(arguments) if "/" in word and not word.startswith("-"))
    ports = mapping[arguments[position]]
    for pair in arguments[position + 1 :]:
        local, remote = pair.split(":")
        listener = socket.create_server(("127.0.0.1", int(local)))
        threading.Thread(target=relay, args=(listener, ports[remote]), daemon=True).start()
        print(f"Forwarding from 127.0.0.1:{local} -> {remote}", flush=True)
    cut = mapping_file.with_name(f"{arguments[position].replace('/', '-')}.cut")
    while not cut.exists():
        time.sleep(0.05)
    cut.unlink()
    print("error: lost connection to pod", file=sys.stderr, flush=True)
    os._exit(1)


def execute() -> None:
    """In a pod: its container's cpu.stat, as TANDEM_TEST_CPU_STAT says; without that the user may not."""
    said = os.environ.get("TANDEM_TEST_CPU_STAT")
    if said is None:
        sys.exit('Error from server (Forbidden): pods "x" is forbidden: User "dev" cannot create resource "pods/exec"')
    sys.stdout.write(Path(said).read_text())
    sys.exit(0)


if __name__ == "__main__":
    if "exec" in sys.argv:
        execute()
    if "port-forward" in sys.argv:
        port_forward(sys.argv[1:])
    os.execv(REAL, [REAL, *sys.argv[1:]])
