"""An address of its own for a server that listens on every address of this machine, so that two may have one port.

    python -m loadtest.bench.forwarder HOST:PORT=HOST:PORT ...

Bytes, ends and resets pass from either side to the other. As soon as the server takes no connection any more, neither
does the forwarder: a connection of its own, on which it says nothing, tells it when the server is gone. In a process of
its own, beside the clients that are measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from collections.abc import Sequence

CHUNK = 65_536
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: whatever is left is dropped, and the other side told so


async def forward(listening: tuple[str, int], server: tuple[str, int]) -> None:
    """Wait for the ``server`` to listen, then forward connections until it does not any more, and theirs have ended."""
    while not (watched := await _connected(server)):
        await asyncio.sleep(0.05)
    under_way: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way.add(task)
        try:
            await _passed_on(reader, writer, server)
        finally:
            under_way.discard(task)

    listener = await asyncio.start_server(accept, *listening)
    while watched:
        reader, writer = watched
        with contextlib.suppress(ConnectionError):
            while await reader.read(CHUNK):
                pass
        writer.close()
        watched = await _connected(server)  # it may only have had enough of a client that says nothing
    listener.close()
    await asyncio.gather(*under_way, return_exceptions=True)


async def _connected(server: tuple[str, int]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    try:
        return await asyncio.open_connection(*server)
    except OSError:
        return None


async def _passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, server: tuple[str, int]) -> None:
    beyond = await _connected(server)
    if beyond is None:
        _reset(writer)
        return
    await asyncio.gather(_pumped(reader, beyond[1]), _pumped(beyond[0], writer))
    for one in (writer, beyond[1]):
        one.close()


async def _pumped(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what is read, up to the end, or the reset."""
    try:
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()
    except OSError:
        _reset(writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _main(pairs: Sequence[str]) -> None:
    addresses = [[_address(one) for one in pair.split("=")] for pair in pairs]
    await asyncio.gather(*(forward(listening, server) for listening, server in addresses))


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
