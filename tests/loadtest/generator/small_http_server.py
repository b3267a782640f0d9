"""A small real HTTP/1.1 server that behaves well or badly: `python small_http_server.py MODE [PORT]`.
Prints its port.

ok, wrong (another answer), chunked, 503, garbage (not HTTP), close (hangs up unread), last (Connection: close),
silent (never answers), delay:SECONDS, serial:SECONDS (one request after the other, each takes so long), tiring:SECONDS
(serial, each answer takes 0.3 % longer than the last), die:COUNT (the process exits after that many answers)
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

RIGHT = json.dumps({"predictions": [[0.1] * 10]}).encode()
WRONG = json.dumps({"predictions": [[0.9] + [0.1 / 9] * 9]}).encode()

mode, _, value = sys.argv[1].partition(":")
answered: list[bytes] = []
turn = asyncio.Lock()


async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            await reader.readexactly(int(fields[b"content-length"]))
            if mode == "silent":
                continue
            if mode == "close":
                break
            if mode == "delay":
                await asyncio.sleep(float(value))
            if mode in ("serial", "tiring"):
                async with turn:
                    await asyncio.sleep(float(value) * (1.003 ** len(answered) if mode == "tiring" else 1))
            if mode == "die" and len(answered) >= int(value):
                os._exit(1)
            writer.write(answer())
            answered.append(head)
            if mode == "last":
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()


def answer() -> bytes:
    body = WRONG if mode == "wrong" else RIGHT
    if mode == "garbage":
        return b"220 smtp.example.org ESMTP\r\n"
    if mode == "503":
        return b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"
    if mode == "chunked":
        half = len(body) // 2
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:half], body[half:], b""))
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces
    closing = b"Connection: close\r\n" if mode == "last" else b""
    return b"HTTP/1.1 200 OK\r\n%sContent-Length: %d\r\n\r\n%s" % (closing, len(body), body)


async def main() -> None:
    server = await asyncio.start_server(handle, "127.0.0.1", int(sys.argv[2]) if sys.argv[2:] else 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main())
