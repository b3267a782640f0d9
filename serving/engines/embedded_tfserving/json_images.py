"""The REST fast path: rows of uint8 images (or any dense uint8 tensor) without building nested Python lists.

A request whose bytes, without the digits, equal those of a tensor of the signature's shape can only hold whole
numbers in the right nesting. Then the brackets are dropped and the flat list of numbers is read at once, in about a
tenth of the time of parsing nested lists. Whatever does not fit, wrong or merely unusual, goes to the general reader.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import orjson

from serving.engines.embedded_tfserving.signature import Signature

UINT8 = 4
DIGITS = b"0123456789"
START = re.compile(rb'\s*\{\s*(?:"signature_name"\s*:\s*"([A-Za-z0-9_]*)"\s*,\s*)?"instances"\s*:\s*(?=\[)')


@lru_cache(maxsize=64)
def _skeleton(shape: tuple[int, ...]) -> bytes:
    """The punctuation of one dense JSON list of this shape, without white space."""
    inner = _skeleton(shape[1:]) if shape else b""
    return b"[" + b",".join([inner] * shape[0]) + b"]" if shape else b""


def images(body: bytes, find: Callable[[str], Signature]) -> tuple[Signature, np.ndarray] | None:
    """The signature and the input of a request in row format, or None when it is not of this kind.

    `find` gives a signature by name and may raise `ServingError`.
    """
    start = START.match(body)
    end = body.rfind(b"]") + 1
    if start is None or body[end:].strip() != b"}":
        return None
    signature = find((start[1] or b"").decode())
    shape = signature.inputs[0].shape
    if len(signature.inputs) == 1 and signature.inputs[0].dtype == UINT8 and shape and min(shape[1:], default=1) > 0:
        pixels = _pixels(body[start.end() : end], shape[1:])
        if pixels is not None:
            return signature, pixels
    return None


def _pixels(text: bytes, shape: tuple[int, ...]) -> np.ndarray | None:
    """An array of rows of this shape, or None when the text is not exactly that."""
    if b" " in text:  # a search for one byte is much the faster
        text = text.replace(b", ", b",")
    punctuation = text.translate(None, DIGITS)
    rows = (len(punctuation) - 1) // (len(_skeleton(shape)) + 1)
    if rows < 1 or punctuation != _rows_skeleton(rows, shape):
        return None
    try:
        pixels = bytes(orjson.loads(b"[" + text.translate(None, b"[]") + b"]"))
    except ValueError:  # an empty or malformed number, or one that is not 0..255
        return None
    return np.frombuffer(pixels, np.uint8).reshape(rows, *shape) if len(pixels) == rows * math.prod(shape) else None


def _rows_skeleton(rows: int, shape: tuple[int, ...]) -> bytes:
    row = _skeleton(shape)
    return b"[" + (row + b",") * (rows - 1) + row + b"]"
