"""A server that answers every request at once with the same bytes: what is left to measure is the load generator.

    python -m loadtest.bench.trivial_server rest|grpc --answer HEX

One process, one thread, epoll, no parsing beyond finding where a request ends. It prints its port and runs until its
stdin closes. Only for benchmarks: it trusts its client.
"""

from __future__ import annotations

import argparse
import os
import select
import socket
import sys
from collections.abc import Callable

from hpack import Encoder, NeverIndexedHeaderTuple

from serving.wire import http2_frames as h2

_Answer = Callable[[bytearray], bytes]


def rest_answer(body: bytes) -> _Answer:
    """A function that takes whole HTTP/1.1 requests off a buffer and returns as many answers with `body`."""
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    answer = head.encode("ascii") + body
    lengths: dict[bytes, int] = {}  # head -> length of head and body: a client sends few different heads

    def take(buffer: bytearray) -> bytes:
        answers = 0
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            request = bytes(buffer[:end])
            size = lengths.get(request)
            if size is None:
                fields = (line.split(b":", 1) for line in request.lower().split(b"\r\n")[1:])
                body_size = next((int(value) for name, value in fields if name == b"content-length"), 0)
                size = lengths[request] = end + 4 + body_size
            if len(buffer) < size:
                break
            del buffer[:size]
            answers += 1
        return answer * answers

    return take


def grpc_answer(message: bytes) -> _Answer:
    """A function that takes whole HTTP/2 frames off a buffer and returns an OK with `message` for each call in them."""

    def block(**fields: str) -> bytes:
        headers = [NeverIndexedHeaderTuple(name.replace("_", "-"), value) for name, value in fields.items()]
        return bytes(Encoder().encode(headers, huffman=False))

    status = [NeverIndexedHeaderTuple(":status", "200"), NeverIndexedHeaderTuple("content-type", "application/grpc")]
    headers = bytes(Encoder().encode(status, huffman=False))
    framed = h2.grpc_message(message)
    trailers = block(grpc_status="0")

    def answer(stream: int) -> bytes:
        return b"".join(
            (
                h2.frame(h2.HEADERS, h2.END_HEADERS, stream, headers),
                h2.frame(h2.DATA, 0, stream, framed),
                h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, stream, trailers),
            )
        )

    def take(buffer: bytearray) -> bytes:
        out = []
        position = received = 0
        if buffer.startswith(b"PRI"):
            if len(buffer) < len(h2.PREFACE):
                return b""
            position = len(h2.PREFACE)
            out.append(h2.settings([(h2.INITIAL_WINDOW_SIZE, h2.LARGEST_WINDOW)]))
            out.append(h2.window_update(0, h2.LARGEST_WINDOW - h2.DEFAULT_WINDOW))
        while len(buffer) - position >= 9:
            high, low, kind, flags, stream = h2.FRAME.unpack_from(buffer, position)
            stop = position + 9 + (high << 16 | low)
            if stop > len(buffer):
                break
            if kind == h2.DATA:
                received += stop - position - 9
                if flags & h2.END_STREAM:
                    out.append(answer(stream))
            elif kind in (h2.SETTINGS, h2.PING) and not flags & h2.ACK:
                out.append(h2.frame(kind, h2.ACK, 0, bytes(buffer[position + 9 : stop]) if kind == h2.PING else b""))
            position = stop
        del buffer[:position]
        if received:
            out.append(h2.window_update(0, received))
        return b"".join(out)

    return take


def serve(listener: socket.socket, take: _Answer) -> None:
    """Answer on all connections until stdin closes."""
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    poll.register(sys.stdin, select.EPOLLIN | select.EPOLLHUP)
    connections: dict[int, tuple[socket.socket, bytearray]] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listener.fileno():
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connections[connection.fileno()] = connection, bytearray()
                poll.register(connection, select.EPOLLIN)
            elif descriptor == sys.stdin.fileno():
                if not os.read(descriptor, 4096):
                    return
            else:
                connection, buffer = connections[descriptor]
                try:
                    data = connection.recv(262_144)
                    buffer += data
                    answers = take(buffer)
                    if answers:
                        connection.sendall(answers)
                except OSError:
                    data = b""
                if not data:
                    poll.unregister(descriptor)
                    del connections[descriptor]
                    connection.close()


def main(arguments: list[str]) -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("protocol", choices=("rest", "grpc"))
    parser.add_argument("--answer", type=bytes.fromhex, required=True, help="body or message of every answer, in hex")
    options = parser.parse_args(arguments)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    serve(listener, {"rest": rest_answer, "grpc": grpc_answer}[options.protocol](options.answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
