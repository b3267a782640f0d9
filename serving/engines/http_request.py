"""The request that a user describes for a server of no known protocol: a body with placeholders, and where in the
answer its values are."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import numpy as np
import orjson

from serving.target import HttpRequest
from serving.wire import json_pointer

METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
JSON, BYTES = "application/json", "application/octet-stream"
_PLACEHOLDER = re.compile(rb"\$(?:(\$)|(\w+)|\{(\w+)\})")
_PATH = re.compile(r"/[!-~]*")


def check(request: HttpRequest) -> None:
    """ValueError that starts with the key at fault."""
    if request.method not in METHODS:
        raise ValueError(f"method = {request.method!r}: use one of {', '.join(METHODS)}")
    if not _PATH.fullmatch(request.path):
        raise ValueError(f"path = {request.path!r}: start it with '/', and percent-encode what is no ASCII or a space")
    try:
        json_pointer.parse(request.answer)
    except ValueError as error:
        raise ValueError(f"answer = {error}") from None
    filled = Template(request).fill(np.zeros((1, 1), np.uint8))
    if filled and content_type(request) == JSON:
        try:
            orjson.loads(filled)
        except orjson.JSONDecodeError as error:
            raise ValueError(f"body = {request.body!r}: no JSON once its placeholders are filled ({error})") from None


def content_type(request: HttpRequest) -> str:
    """Of the request's body, what the user says, else by what it holds; empty where there is none."""
    template = Template(request)
    if template.empty:
        return ""
    return request.content_type or (BYTES if "raw" in template.names else JSON)


class Template:
    """A request's body: text in which placeholders stand for the samples.

    $images         their numbers, or strings, as JSON: a list for each; of several inputs, an object for each
    $image          those of the one sample
    $images_base64  a JSON list of strings: each sample's bytes in base64
    $image_base64   the one sample's bytes in base64, without quotation marks
    $raw            their bytes, as they are
    $$              a dollar sign
    """

    def __init__(self, request: HttpRequest) -> None:
        """Without a body it is `$raw`, or nothing for a GET or DELETE. ValueError for an unknown placeholder."""
        sends = request.method not in ("DELETE", "GET")
        pieces = _PLACEHOLDER.split((request.body or ("$raw" if sends else "")).encode())
        self._pieces: list[bytes | Fill] = []
        self.names: set[str] = set()
        for text, dollar, plain, braced in zip(*(pieces[start::4] for start in range(4)), strict=False):
            self._pieces += [text, *([dollar] if dollar else [self._filled((plain or braced).decode())])]
        self._pieces.append(pieces[-1])
        self.empty = not any(self._pieces)
        self.single = not self.names & {"images", "images_base64"}

    def _filled(self, name: str) -> Fill:
        if name not in _FILLS:
            known = ", ".join(f"${one}" for one in _FILLS)
            raise ValueError(f"body: ${name} is no placeholder: use one of {known}, or $$ for a dollar sign")
        self.names.add(name)
        return _FILLS[name]

    def fill(self, samples: np.ndarray) -> bytes:
        """The body for ``samples`` [N, …]; ValueError where it cannot hold them."""
        return b"".join(one if isinstance(one, bytes) else one(samples) for one in self._pieces)


Fill = Callable[[np.ndarray], bytes]


def _json(samples: np.ndarray) -> bytes:
    if samples.dtype.names:  # an object of its inputs for each sample
        columns = {name: orjson.loads(_json(samples[name])) for name in samples.dtype.names}
        return orjson.dumps([{name: values[row] for name, values in columns.items()} for row in range(len(samples))])
    if samples.dtype.kind in "OS":
        try:
            return orjson.dumps(_texts(samples.tolist()))
        except UnicodeDecodeError:
            raise ValueError(
                "body: samples that are no UTF-8 text need $images_base64, $image_base64 or $raw"
            ) from None
    if samples.dtype.kind == "f" and not np.isfinite(samples).all():
        raise ValueError("body: JSON has no NaN and no infinity")
    return orjson.dumps(np.ascontiguousarray(samples), option=orjson.OPT_SERIALIZE_NUMPY)


def _texts(values: object) -> object:
    if isinstance(values, list):
        return [_texts(one) for one in values]
    assert isinstance(values, bytes)
    return values.decode("utf-8")


def _one(samples: np.ndarray) -> np.ndarray:
    if len(samples) != 1:
        raise ValueError(f"body: $image and $image_base64 are one sample, not {len(samples)}: use a batch of 1")
    return samples[:1]


def _bytes(sample: np.ndarray) -> bytes:
    """Of one string or encoded image, else of the numbers in their order."""
    if sample.dtype.names:
        raise ValueError(f"body: samples of several inputs ({', '.join(sample.dtype.names)}) need $images or $image")
    if sample.dtype.kind not in "OS":
        return sample.tobytes()
    if sample.size != 1:
        raise ValueError(f"body: one string or encoded image is sent as bytes, not {sample.size}")
    return bytes(sample.item())


def _base64(sample: np.ndarray) -> str:
    return base64.b64encode(_bytes(sample)).decode("ascii")


_FILLS: dict[str, Fill] = {
    "images": _json,
    "image": lambda samples: _json(_one(samples))[1:-1],
    "images_base64": lambda samples: orjson.dumps(
        [_base64(samples[place : place + 1]) for place in range(len(samples))]
    ),
    "image_base64": lambda samples: _base64(_one(samples)).encode("ascii"),
    "raw": _bytes,
}


def values(body: bytes, pointer: str) -> np.ndarray:
    """What an answer says: numbers, or bytes as objects, in the shape that they have there. ValueError that says what
    is there instead."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ValueError(f"the answer is no JSON: {body[:200]!r}") from None
    found = json_pointer.find(document, pointer)
    where = pointer or "the answer"
    try:
        array = np.array(found)
    except ValueError:
        raise ValueError(f"{where}: lists of different lengths") from None
    if array.dtype.kind == "U":
        return _encoded(array)
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{where}: {str(found)[:100]} is neither numbers nor strings")
    return array


def _encoded(array: np.ndarray) -> np.ndarray:
    found = np.empty(array.size, object)
    found[:] = [one.encode("utf-8", "surrogatepass") for one in array.ravel().tolist()]
    return found.reshape(array.shape)


def rows(found: np.ndarray, *, single: bool) -> np.ndarray:
    """As [N, values]; ``single``: all of it answers one sample."""
    if single or not found.ndim:
        found = found.reshape(1, -1)
    else:
        found = found.reshape(len(found), -1) if found.size else found.reshape(len(found), 0)
    return found.astype("S") if found.dtype.kind == "O" else found.astype(np.float32)
