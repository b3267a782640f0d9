"""The forwarder in front of a server that listens on every address: what its clients see is what the server does."""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving import ports
from serving.runtimes.process.server_process import ServerProcess

ROOT = Path(__file__).resolve().parents[3]
SHOWN = "127.0.0.2"
RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def port() -> int:
    return ports.free(1)[0]


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """It listens, and the test accepts."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        yield listening


@pytest.fixture
def watcher(server, port, tmp_path) -> Iterator[socket.socket]:
    """The forwarder's own connection to the server, made before it takes others."""
    own = server.getsockname()[1]
    command = [sys.executable, "-m", "loadtest.bench.forwarder", f"{SHOWN}:{port}=127.0.0.1:{own}"]
    process = ServerProcess("forwarder", command, tmp_path / "log", folder=ROOT)
    try:
        watching, _ = server.accept()
        with watching:
            process.wait_until(lambda: ports.answers(SHOWN, port), 20)
            server.accept()[0].close()  # that question, passed on
            yield watching
    finally:
        process.stop()


def connected(server: socket.socket, port: int) -> tuple[socket.socket, socket.socket]:
    """(A client, what the server has of it)."""
    client = socket.create_connection((SHOWN, port), 20)
    accepted, _ = server.accept()
    accepted.settimeout(20)
    return client, accepted


def test_bytes_and_ends_pass_either_way(server, port, watcher):
    client, accepted = connected(server, port)
    with client, accepted:
        question, answer = b"q" * 100_000, b"a" * 100_000
        client.sendall(question)
        client.shutdown(socket.SHUT_WR)
        with accepted.makefile("rb") as said:
            assert said.read() == question  # up to its end
        accepted.sendall(answer)
        accepted.close()
        with client.makefile("rb") as said:
            assert said.read() == answer


def test_a_reset_is_a_reset(server, port, watcher):
    client, accepted = connected(server, port)
    with client:
        client.sendall(b"question")
        assert accepted.recv(8) == b"question"
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        accepted.close()
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def test_a_server_that_is_gone_refuses_new_connections_and_ends_the_others(server, port, watcher):
    client, accepted = connected(server, port)
    server.close()
    watcher.close()
    deadline = time.monotonic() + 20
    while ports.answers(SHOWN, port):
        assert time.monotonic() < deadline
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((SHOWN, port), 20)
    with client, accepted:  # one that was under way is finished
        accepted.sendall(b"answer")
        assert client.recv(6) == b"answer"


def test_a_server_that_ends_a_silent_connection_goes_on_being_served(server, port, watcher):
    watcher.close()
    again, _ = server.accept()
    with again:
        client, accepted = connected(server, port)
        with client, accepted:
            accepted.sendall(b"answer")
            assert client.recv(6) == b"answer"
