"""Requests that are wrong in many ways, from a seeded source: the same seed gives the same requests."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import hpack
from tensorflow_serving.apis import get_model_metadata_pb2, get_model_status_pb2, predict_pb2

from serving.wire import http2_frames as http2
from serving.wire.http2_frames import PREFACE, SETTING, frame, settings

PREDICT = "/tensorflow.serving.PredictionService/Predict"
METADATA = "/tensorflow.serving.PredictionService/GetModelMetadata"
STATUS = "/tensorflow.serving.ModelService/GetModelStatus"
CLASSIFY = "/tensorflow.serving.PredictionService/Classify"
METHODS = (PREDICT, METADATA, STATUS, CLASSIFY)

GOOD_BODIES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("misc", {"instances": [[1.0, 2.0], [3.0, 4.0]]}),
    ("misc", {"inputs": [[1.0, 2.0]]}),
    ("misc", {"signature_name": "bytes", "instances": ["hi", {"b64": "aGk="}, "ünïcode"]}),
    ("misc", {"signature_name": "two", "instances": [{"a": 1.0, "b": 2.0}, {"a": 3, "b": 4}]}),
    ("misc", {"signature_name": "two", "inputs": {"a": [1.0, 2.0], "b": [2.0, 3.0]}}),
    ("misc", {"signature_name": "scalar", "inputs": 1.0}),
    ("misc", {"signature_name": "ints", "inputs": {"i": [1, 2], "q": [True, False], "l": [3, 4]}}),
)
IMAGES = {"instances": [[[[0, 127, 255]] * 32] * 32]}
ODD_NUMBERS: tuple[str, ...] = (
    "1e308",
    "1e309",
    "-1e400",
    "NaN",
    "Infinity",
    "-Infinity",
    "9" * 25,
    "9" * 5000,
    "0." + "1" * 400,
    "1e-999",
)
ODD_NUMBERS += (
    "-0",
    "00",
    "1.",
    ".5",
    "1e",
    "0x10",
    "+1",
    "18446744073709551616",
    "-9223372036854775809",
    "256",
    "-1",
    "1.0",
)
ODD_TEXTS = (
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\\ud800",
    b"\\u12",
    b"\\x",
    b"\x00",
    b"\xef\xbb\xbf",
)
ODD_SIZES = (0, 1, 2, 3, 5, 32, 255, 2**16, 2**31 - 1, 2**31, 2**40, 2**62, 2**63 - 1, -1, -(2**63))


def mutated(random: Random, data: bytes, most: int = 4) -> bytes:
    """`data` with up to `most` random changes: bytes set, put in, taken out, doubled, or the end cut off."""
    changed = bytearray(data)
    for _ in range(random.randint(1, most)):
        at = random.randint(0, len(changed))
        length = random.choice((1, 1, 1, 2, 8, 64))
        match random.randrange(6):
            case 0:
                changed[at : at + 1] = random.randbytes(1)
            case 1:
                changed[at:at] = random.randbytes(length)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = changed[at : at + length] * random.randint(1, 4)
            case 4:
                changed[at:at] = random.choice(ODD_TEXTS)
            case _:
                if random.random() < 0.3:
                    del changed[at:]
    return bytes(changed)


# REST


def rest_body(random: Random) -> tuple[str, bytes, dict[str, str]]:
    """A model's name, a body that is (nearly always) wrong, and more headers."""
    kind = random.randrange(8)
    model, good = random.choice(GOOD_BODIES)
    headers: dict[str, str] = {}
    if kind == 0 and random.random() < 0.3:
        model, good = "cnn", IMAGES
    if kind <= 1:
        body = mutated(random, json.dumps(good, ensure_ascii=random.random() < 0.5).encode())
    elif kind == 2:
        body = _with_value(random, good, random.choice(ODD_NUMBERS).encode())
    elif kind == 3:
        body = _with_value(random, good, _deep(random))
    elif kind == 4:
        body = json.dumps({**good, random.choice(("instances", "inputs", "signature_name")): _tree(random, 4)}).encode()
    elif kind == 5:
        body = json.dumps(_tree(random, 5)).encode()
    elif kind == 6:
        body = _with_value(random, good, b'"' + random.choice(ODD_TEXTS) + b'"')
    else:
        headers = {"Content-Encoding": "gzip"}
        packed = gzip.compress(json.dumps(good).encode())
        body = mutated(random, packed) if random.random() < 0.7 else gzip.compress(bytes(10**6))
    return model, body, headers


def _deep(random: Random) -> bytes:
    """Lists or objects in each other, up to far too many, perhaps not closed."""
    depth = random.choice((3, 33, 65, 120, 199, 300, 900, 1100, 20_000))
    opening, closing = random.choice(((b"[", b"]"), (b'{"b64":', b"}"), (b'[{"a":', b"}]")))
    leaf = random.choice((b"1", b"1.5", b'"x"', b"null", b"", b"true"))
    return opening * depth + leaf + closing * random.choice((depth, depth, depth, depth - 1, 0))


def _with_value(random: Random, good: dict[str, Any], value: bytes) -> bytes:
    """The JSON of a good request with one of its leaves replaced."""
    text = json.dumps(good).encode()
    digits = [at for at, char in enumerate(text) if chr(char).isdigit()]
    if not digits:
        return b'{"instances": [' + value + b"]}"
    at = random.choice(digits)
    end = at + 1
    while text[end : end + 1].isdigit() or text[end : end + 1] == b".":
        end += 1
    return text[:at] + value + text[end:]


def _tree(random: Random, depth: int) -> Any:
    leaves: list[Any] = [
        None,
        True,
        False,
        0,
        -1,
        255,
        1.5,
        2**63,
        2**64,
        2**70,
        "",
        "x",
        "é",
        {},
        [],
        {"b64": "?"},
        {"b64": 1},
        "NaN",
    ]
    if depth == 0 or random.random() < 0.3:
        return random.choice(leaves)
    size = random.randint(0, 4)
    if random.random() < 0.5:
        return [_tree(random, depth - 1) for _ in range(size)]
    names = ("instances", "inputs", "signature_name", "b64", "a", "b", "x", "é")
    return {random.choice(names): _tree(random, depth - 1) for _ in range(size)}


def rest_stream(random: Random) -> bytes:
    """Bytes for a connection of their own: heads that are wrong, lengths that lie, requests followed by rubbish."""
    model, body, _ = rest_body(random)
    whole = _odd_request(random, model, body if len(body) <= 2000 else b"{}")
    match random.randrange(5):
        case 0:
            return mutated(random, whole, 8)
        case 1:
            return whole[: random.randint(0, len(whole))]
        case 2:
            return whole * random.choice((2, 5, 100)) + random.randbytes(random.choice((1, 100)))
        case 3:
            return random.randbytes(random.choice((1, 10, 1000)))
        case _:
            return whole


def _odd_request(random: Random, model: str, body: bytes) -> bytes:
    method = random.choice(("POST", "POST", "GET", "OPTIONS", "HEAD", "PUT", "BREW", "CONNECT"))
    target = random.choice((f"/v1/models/{model}:predict", f"/v1/models/{model}", "/v1/models/nope/metadata", "/", "*"))
    if random.random() < 0.1:
        target = "/v1/models/" + "/%00é:" * random.choice((1, 100, 20_000))
    if random.random() < 0.1:
        target = f"/v1/models/cnn/versions/{'9' * random.choice((1, 19, 400))}"
    version = "HTTP/1.1" if random.random() < 0.9 else random.choice(("HTTP/1.0", "HTTP/9.9", "HTTP", ""))
    length: Any = len(body)
    if random.random() < 0.2:
        lies = (
            length + 1,
            length - 1,
            -1,
            0,
            10**9,
            2**64,
            "1e3",
            "",
            "9" * 400,
            "0x10",
            f"0\r\nContent-Length: {length}",
        )
        length = random.choice(lies)
    more = [
        f"X-{number}: {'y' * random.choice((1, 100, 5000))}" for number in range(random.choice((0, 0, 0, 0, 1, 300)))
    ]
    if random.random() < 0.2:
        more += [
            random.choice(("Upgrade: h2c\r\nConnection: Upgrade", "Expect: 100-continue", "Content-Encoding: gzip"))
        ]
    if random.random() < 0.1:
        more += ["Transfer-Encoding: chunked"]
        chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        body = random.choice((b"", chunks, b"zz\r\n", b"ffffffffffffffff\r\nx", body))
    lines = [f"{method} {target} {version}", "Host: x", *more, f"Content-Length: {length}"]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


# gRPC


def grpc_call(random: Random) -> tuple[str, bytes]:
    """A method and a serialized request that is wrong in what it says or in its bytes."""
    builders: dict[str, Callable[[Random], Any]] = {PREDICT: _predict, METADATA: _metadata, STATUS: _status}
    method = random.choice((PREDICT, PREDICT, PREDICT, METADATA, STATUS))
    message = builders[method](random).SerializeToString()
    if random.random() < 0.3:
        message = mutated(random, message, 2)
    if random.random() < 0.05:
        method = random.choice(METHODS)  # perhaps another method's request
    if random.random() < 0.02:
        message = random.randbytes(random.choice((0, 1, 100, 10_000)))
    return method, message


def _spec(random: Random, spec: Any) -> None:
    spec.name = random.choice(("misc",) * 9 + ("cnn", "cnn", "nope", "", "x" * 1000))
    if random.random() < 0.1:
        spec.version.value = random.choice((1, 1, 2, 0, -1, 2**63 - 1))
    if random.random() < 0.05:
        spec.version_label = random.choice(("stable", "", "nope"))
    if random.random() < 0.7:
        spec.signature_name = random.choice(("serving_default", "bytes", "two", "scalar", "ints", "nope"))


def _predict(random: Random) -> Any:
    request = predict_pb2.PredictRequest()
    _spec(random, request.model_spec)
    inputs = {
        "serving_default": ["x"],
        "bytes": ["text_bytes"],
        "two": ["a", "b"],
        "scalar": ["s"],
        "ints": ["i", "q", "l"],
    }
    names = inputs.get(request.model_spec.signature_name or "serving_default", ["x"])
    if request.model_spec.name == "cnn":
        names = ["images"]
    for name in [*names, *random.choice(([], [], [], ["more"]))]:
        _tensor(random, request.inputs[name], {"text_bytes": 7, "i": 3, "q": 10, "l": 9, "images": 4}.get(name, 1))
    if random.random() < 0.1:
        request.output_filter.extend(random.choices(("y", "sum", "nope", "", "y"), k=random.randint(1, 3)))
    return request


def _tensor(random: Random, tensor: Any, right: int) -> None:
    tensor.dtype = right if random.random() < 0.8 else random.choice((*range(30), 101, 2**31 - 1))
    rank = random.choice((0, 1, 1, 1, 2, 2, 2, 4, 33, 70, 300))
    sizes = [1] * rank if rank > 4 and random.random() < 0.7 else random.choices(ODD_SIZES, k=rank)
    if rank <= 4 and random.random() < 0.6:
        sizes = [random.randint(0, 3) for _ in range(rank)]
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    tensor.tensor_shape.unknown_rank = random.random() < 0.03
    count = math.prod(sizes)
    if random.random() < 0.5:
        size = {1: 4, 3: 4, 9: 8}.get(tensor.dtype, 1) * count
        tensor.tensor_content = random.randbytes(size if 0 <= size < 2**16 and random.random() < 0.8 else 13)
    for field, values in _VALUES.items():
        if random.random() < 0.15:
            getattr(tensor, field).extend(random.choices(values, k=random.choice((1, 2, 6, 100))))


_VALUES: dict[str, Sequence[Any]] = {
    "float_val": (0.0, 1.5, math.nan, math.inf, -1e38),
    "double_val": (0.0, math.nan, 1e300),
    "int_val": (0, 1, 255, 256, -1, 2**31 - 1, -(2**31)),
    "int64_val": (0, -1, 2**63 - 1, -(2**63)),
    "bool_val": (True, False),
    "string_val": (b"", b"x", b"\xff\x00", b"y" * 1000),
    "half_val": (0, 1, 65535, 65536, -1),
    "uint32_val": (0, 2**32 - 1),
    "uint64_val": (0, 2**64 - 1),
    "scomplex_val": (1.0,),
}


def _metadata(random: Random) -> Any:
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    _spec(random, request.model_spec)
    request.metadata_field.extend(random.choices(("signature_def", "nope", ""), k=random.randint(0, 3)))
    return request


def _status(random: Random) -> Any:
    request = get_model_status_pb2.GetModelStatusRequest()
    if random.random() < 0.9:
        _spec(random, request.model_spec)
    return request


# HTTP/2


def http2_stream(random: Random) -> bytes:
    """A client's bytes on a connection of their own, with frames that break HTTP/2's or gRPC's rules."""
    if random.random() < 0.05:
        return mutated(random, PREFACE) + _call_frames(random, 1)
    parts = [
        PREFACE,
        settings([(http2.INITIAL_WINDOW_SIZE, random.choice((0, 10, 65_535, 2**31 - 1)))]),
    ]
    for number in range(random.randint(1, 6)):
        parts.append(_call_frames(random, 2 * number + 1) if random.random() < 0.5 else _odd_frame(random))
    whole = b"".join(parts)
    if random.random() < 0.4:
        whole = PREFACE + mutated(random, whole[len(PREFACE) :], 6)
    return whole


def _call_frames(random: Random, stream: int) -> bytes:
    method, message = grpc_call(random)
    headers = [(":method", "POST"), (":scheme", "http"), (":path", method), ("content-type", "application/grpc")]
    headers += random.choice(([], [("grpc-encoding", "gzip")], [("grpc-timeout", "1n")], [("x" * 300, "y" * 5000)]))
    if random.random() < 0.2:
        random.shuffle(headers)
        headers = headers[: random.randint(0, len(headers))]
    block = hpack.Encoder().encode(headers, huffman=random.random() < 0.5)
    if random.random() < 0.2:
        block = mutated(random, block)
    size = len(message) if random.random() < 0.8 else random.choice((0, len(message) + 1, 2**32 - 1))
    body = bytes([random.choice((0, 0, 0, 1, 7))]) + size.to_bytes(4, "big") + message
    flags = random.choice((http2.END_STREAM, http2.END_STREAM, 0, http2.END_STREAM | http2.PADDED))
    return frame(http2.HEADERS, http2.END_HEADERS, stream, block) + frame(http2.DATA, flags, stream, body)


def _odd_frame(random: Random) -> bytes:
    kind = random.choice((*range(10), 10, 255))
    payload = random.choice(
        (b"", bytes(4), bytes(5), bytes(6), bytes(8), b"\xff" * 4, b"\xff" * 6, random.randbytes(30))
    )
    if kind == http2.SETTINGS and random.random() < 0.7:
        value = random.choice((0, 1, 16_383, 16_384, 2**24, 2**31 - 1, 2**31, 2**32 - 1))
        payload = SETTING.pack(random.randint(0, 8), value)
    whole = frame(kind, random.choice((0, 1, 4, 5, 8, 32, 255)), random.choice((0, 1, 1, 2, 3, 5, 2**31 - 1)), payload)
    if random.random() < 0.1:
        whole = random.choice((b"\x00\x00\x05", b"\xff\xff\xff", b"\x10\x00\x01", b"\x10\x00\x00")) + whole[3:]
    return whole
