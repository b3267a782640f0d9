"""The HTTP/2 and gRPC layer alone: flow control, framing, refusals, and bytes that make no sense."""

from __future__ import annotations

import asyncio
import gzip
import time
from typing import Any

import grpc
import hpack
import pytest
from hypothesis import given
from hypothesis import settings as how_often
from hypothesis import strategies as st

from serving.engines.embedded_tfserving.grpc_front_end import Call, GrpcFrontEnd, timeout_s, trailers
from serving.engines.embedded_tfserving.http2 import Http2Connection
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire import http2_frames as http2
from serving.wire.grpc_status import Code
from serving.wire.http2_frames import END_HEADERS, END_STREAM, PREFACE, frame, settings

ECHO, FAIL, NEVER = "/t.T/Echo", "/t.T/Fail", "/t.T/Never"
MESSAGE = 'not "found": ünïcode, 100%\n'


def echo(message: bytes, call: Call) -> None:
    call.reply(message)


def fail(message: bytes, call: Call) -> None:
    raise ServingError(Code.NOT_FOUND, MESSAGE)


def server(max_calls: int = 100) -> GrpcFrontEnd:
    return GrpcFrontEnd({ECHO: echo, FAIL: fail, NEVER: lambda message, call: None}, max_calls)


class Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = bytearray()
        self.closed = False

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def frames(self) -> list[tuple[int, int, int, bytes]]:
        """(type, flags, stream, payload) of what was written since the last call."""
        data, found = bytes(self.written), []
        self.written.clear()
        while data:
            length = int.from_bytes(data[:3], "big")
            found.append((data[3], data[4], int.from_bytes(data[5:9], "big"), data[9 : 9 + length]))
            data = data[9 + length :]
        return found


def request(stream: int, path: str, message: bytes, encoder: hpack.Encoder, **extra: str) -> bytes:
    headers = [(":method", "POST"), (":scheme", "http"), (":path", path), ("content-type", "application/grpc")]
    block = encoder.encode(headers + [(name.replace("_", "-"), value) for name, value in extra.items()])
    flag = bytes([1 if "grpc_encoding" in extra else 0])
    body = flag + len(message).to_bytes(4, "big") + message
    return frame(http2.HEADERS, END_HEADERS, stream, block) + frame(http2.DATA, END_STREAM, stream, body)


def exchange(
    *chunks: bytes, serve: GrpcFrontEnd | None = None, patience_s: float = 0
) -> list[list[tuple[int, int, int, bytes]]]:
    """Feed chunks to a new connection after the preface; the frames written after each, for the last within a time."""

    async def go() -> list[list[tuple[int, int, int, bytes]]]:
        connection = (serve or server()).protocol()
        transport = Transport()
        connection.connection_made(transport)
        transport.frames()
        answers = []
        for chunk in (PREFACE, *chunks):
            connection.data_received(chunk)
            await asyncio.sleep(0)
            answers.append(transport.frames())
        deadline = time.monotonic() + patience_s
        while not answers[-1] and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            answers[-1] = transport.frames()
        connection.connection_lost(None)
        return answers[1:]

    return asyncio.run(go())


def test_the_official_client_gets_answers_errors_and_large_messages():
    async def go() -> None:
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(server().protocol, "127.0.0.1", 0)
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
        async with grpc.aio.insecure_channel(address, options=options) as channel:
            for size in (0, 1, 100_000, 20_000_000):
                message = bytes(range(256)) * (size // 256) + bytes(size % 256)
                assert await channel.unary_unary(ECHO)(message) == message
            answers = await asyncio.gather(*[channel.unary_unary(ECHO)(b"%d" % n) for n in range(300)])
            assert answers == [b"%d" % number for number in range(300)]
            packed = channel.unary_unary(ECHO)(b"x" * 1000, compression=grpc.Compression.Gzip)
            assert await packed == b"x" * 1000
            for path, code, details in ((FAIL, "NOT_FOUND", MESSAGE), ("/t.T/Nope", "UNIMPLEMENTED", "")):
                try:
                    await channel.unary_unary(path)(b"")
                except grpc.aio.AioRpcError as error:
                    assert (error.code().name, error.details()) == (code, details)
        listener.close()

    asyncio.run(go())


def test_an_answer_waits_for_the_clients_windows():
    encoder = hpack.Encoder()
    small = settings([(http2.INITIAL_WINDOW_SIZE, 10)])
    first, second, third = exchange(
        small + request(1, ECHO, b"y" * 20, encoder),
        frame(http2.WINDOW_UPDATE, 0, 1, (10).to_bytes(4, "big")),
        frame(http2.WINDOW_UPDATE, 0, 1, (100).to_bytes(4, "big")),
    )
    sent = [[payload for kind, _, _, payload in frames if kind == http2.DATA] for frames in (first, second, third)]
    assert [len(b"".join(parts)) for parts in sent] == [10, 10, 5]
    assert b"".join(part for parts in sent for part in parts) == b"\x00\x00\x00\x00\x14" + b"y" * 20
    assert third[-1][0] == http2.HEADERS
    assert third[-1][1] & END_STREAM


def test_pings_are_answered_and_settings_acknowledged():
    (frames,) = exchange(frame(http2.SETTINGS, 0, 0) + frame(http2.PING, 0, 0, b"12345678"))
    assert frames == [(http2.SETTINGS, 1, 0, b""), (http2.PING, 1, 0, b"12345678")]


def test_header_blocks_in_pieces_with_padding_and_priority():
    block = hpack.Encoder().encode([(":path", ECHO), ("content-type", "application/grpc")])
    head = b"\x02" + bytes(5) + block[:5] + bytes(2)
    chunks = frame(http2.HEADERS, http2.PADDED | http2.PRIORITISED, 1, head)
    chunks += frame(http2.CONTINUATION, END_HEADERS, 1, block[5:])
    chunks += frame(http2.DATA, END_STREAM | http2.PADDED, 1, b"\x03" + b"\x00\x00\x00\x00\x02hi" + bytes(3))
    for split in (1, 7, len(chunks)):
        parts = [chunks[start : start + split] for start in range(0, len(chunks), split)]
        data = [payload for frames in exchange(*parts) for kind, _, _, payload in frames if kind == http2.DATA]
        assert data == [b"\x00\x00\x00\x00\x02hi"]


def test_repeated_headers_are_understood_while_the_dynamic_table_moves():
    encoder = hpack.Encoder()
    calls = b"".join(
        request(2 * n + 1, ECHO if n % 3 else "/t.T/Nope", b"%d" % n, encoder, x_number=str(n // 4)) for n in range(40)
    )
    (frames,) = exchange(calls)
    answered = {stream: payload[5:] for kind, _, stream, payload in frames if kind == http2.DATA}
    assert answered == {2 * n + 1: b"%d" % n for n in range(40) if n % 3}


def test_more_calls_than_threads_are_refused():
    encoder = hpack.Encoder()
    (frames,) = exchange(b"".join(request(2 * n + 1, NEVER, b"", encoder) for n in range(5)), serve=server(3))
    refused = [stream for kind, _, stream, payload in frames if kind == http2.HEADERS and b"Exhausted" in payload]
    assert refused == [7, 9]


def test_compressed_bombs_are_refused():
    bomb = gzip.compress(bytes(300_000_000), 1)
    lies = bomb[:1_000_000] + (2**27).to_bytes(4, "little")  # cut off, and smaller than it says
    for message, refusal in ((bomb[:900_000] + bomb[-4:], b"larger than max"), (lies, b"decompression: ")):
        (frames,) = exchange(request(1, ECHO, message, hpack.Encoder(), grpc_encoding="gzip"), patience_s=30)
        assert any(kind == http2.HEADERS and refusal in payload for kind, _, _, payload in frames)


@pytest.mark.parametrize("size", [100, 5_000_000])
def test_a_compressed_message_is_whole_or_refused(size):
    packed = gzip.compress(bytes(size))
    for message in (packed[:-1], packed[: len(packed) // 2], packed + b"x", packed + packed, b""):
        (frames,) = exchange(request(1, ECHO, message, hpack.Encoder(), grpc_encoding="gzip"), patience_s=30)
        assert [kind for kind, _, _, _ in frames] == [http2.HEADERS]
        assert b"decompression: " in frames[0][3] or b"larger than max" in frames[0][3]
    (frames,) = exchange(request(1, ECHO, packed, hpack.Encoder(), grpc_encoding="gzip"), patience_s=30)
    assert frames[0][0] == http2.HEADERS


def test_a_long_error_is_cut_where_the_real_server_cuts_it():
    long = trailers(Code.NOT_FOUND, "n" * 1025)
    assert long.endswith(b"n" * 1024 + b"...TRUNCATED")
    assert trailers(Code.NOT_FOUND, "n" * 1024).endswith(b"n" * 1024)


def test_a_draining_connection_refuses_new_streams():
    async def go() -> None:
        serve, encoder = server(), hpack.Encoder()
        connection = serve.protocol()
        transport = Transport()
        connection.connection_made(transport)
        connection.data_received(PREFACE + request(1, NEVER, b"", encoder))
        serve.drain()
        transport.frames()
        connection.data_received(request(3, ECHO, b"", encoder))
        refused = http2.REFUSED_STREAM.to_bytes(4, "big")
        assert (http2.RST_STREAM, 0, 3, refused) in transport.frames()
        assert not transport.closed
        next(iter(serve.calls.values())).reply(b"late")
        await asyncio.sleep(0)
        assert transport.closed

    asyncio.run(go())


def test_a_retired_connection_takes_calls_until_the_client_knows_and_finishes_them():
    async def go() -> None:
        serve, encoder = server(), hpack.Encoder()
        connection = serve.protocol()
        transport = Transport()
        connection.connection_made(transport)
        connection.data_received(PREFACE + request(1, NEVER, b"", encoder))
        transport.frames()
        connection.retire()
        no_stream_is_too_late = (2**31 - 1).to_bytes(4, "big")
        (goaway, ping) = transport.frames()
        assert (goaway[0], goaway[3][:8]) == (http2.GOAWAY, no_stream_is_too_late + bytes(4))
        connection.data_received(request(3, ECHO, b"in time", encoder))
        assert b"\x00\x00\x00\x00\x07in time" in [payload for _, _, _, payload in transport.frames()]
        connection.data_received(frame(http2.PING, http2.ACK, 0, ping[3]) + request(5, ECHO, b"", encoder))
        goaway, refused = transport.frames()
        assert (goaway[0], goaway[3][:4]) == (http2.GOAWAY, (3).to_bytes(4, "big"))
        assert (refused[0], refused[2]) == (http2.RST_STREAM, 5)
        assert not transport.closed
        next(iter(serve.calls.values())).reply(b"late")
        await asyncio.sleep(0)
        assert transport.closed

    asyncio.run(go())


class Ages(GrpcFrontEnd):
    """Notes how old its connections became, in seconds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.born: dict[Http2Connection, float] = {}
        self.ages: list[float] = []

    def opened(self, connection: Http2Connection) -> None:
        super().opened(connection)
        self.born[connection] = asyncio.get_running_loop().time()

    def closed(self, connection: Http2Connection) -> None:
        super().closed(connection)
        self.ages.append(asyncio.get_running_loop().time() - self.born[connection])


def test_connections_grow_no_older_than_they_may_and_no_call_is_lost():
    async def go() -> None:
        serve = Ages({ECHO: echo}, 100, age_s=0.1, grace_s=5)
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(serve.protocol, "127.0.0.1", 0)
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with grpc.aio.insecure_channel(address) as channel:
            deadline = loop.time() + 30
            while len(serve.ages) < 4:
                assert await channel.unary_unary(ECHO)(b"x") == b"x"
                assert loop.time() < deadline
        listener.close()
        assert min(serve.ages) > 0.08
        assert serve.timers.keys() == serve.connections

    asyncio.run(go())


def test_a_call_longer_than_the_grace_ends_with_its_connection():
    async def go() -> None:
        serve = GrpcFrontEnd({NEVER: lambda message, call: None}, 100, age_s=0.05, grace_s=0.05)
        listener = await asyncio.get_running_loop().create_server(serve.protocol, "127.0.0.1", 0)
        address = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await channel.unary_unary(NEVER)(b"", timeout=20)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert serve.calls == serve.timers == {}
        listener.close()

    asyncio.run(go())


FRAMES = st.builds(
    frame, st.integers(0, 11), st.integers(0, 255), st.sampled_from([0, 1, 2, 3, 5, 2**31 - 1]), st.binary(max_size=40)
)


@how_often(max_examples=300)
@given(st.lists(st.binary(max_size=60) | FRAMES, max_size=12))
def test_no_bytes_break_a_connection_or_its_server(chunks):
    serve = server()
    exchange(*chunks, serve=serve)
    (frames,) = exchange(request(1, ECHO, b"still here", hpack.Encoder()), serve=serve)
    assert any(b"still here" in payload for _, _, _, payload in frames)
    assert not serve.calls
    assert not serve.connections


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("2H", 7200), ("3M", 180), ("10S", 10), ("250m", 0.25), ("99999999u", 99.999999), ("1n", 1e-9)],
)
def test_the_deadline_header_is_read_in_all_its_units(header: str, seconds: float):
    assert timeout_s(header) == pytest.approx(seconds)


@given(st.text(max_size=12))
def test_a_malformed_deadline_header_is_a_long_deadline(header: str):
    assert timeout_s(header) >= 0


def test_a_call_past_its_deadline_is_ended_and_frees_its_place():
    async def go() -> None:
        serve, encoder = server(1), hpack.Encoder()
        connection = serve.protocol()
        transport = Transport()
        connection.connection_made(transport)
        connection.data_received(PREFACE + request(1, NEVER, b"", encoder, grpc_timeout="20m"))
        assert len(serve.calls) == 1
        while serve.calls:
            await asyncio.sleep(0.005)
        assert b"Deadline Exceeded" in bytes(transport.written)
        connection.data_received(request(3, ECHO, b"again", encoder))
        assert b"again" in bytes(transport.written)

    asyncio.run(asyncio.wait_for(go(), 10))
