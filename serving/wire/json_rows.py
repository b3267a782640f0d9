"""Samples as rows of JSON numbers, and predictions as such: the one REST body that several servers take."""

from __future__ import annotations

import base64

import numpy as np
import orjson

CONTENT_TYPE = "application/json"


def encode(samples: np.ndarray) -> bytes:
    """``{"instances": [...]}`` of numbers [N, …], or of bytes [N, …], each of them ``{"b64": …}``."""
    if samples.dtype.kind in "OS":
        return orjson.dumps({"instances": _objects(samples.tolist())})
    return orjson.dumps({"instances": np.ascontiguousarray(samples)}, option=orjson.OPT_SERIALIZE_NUMPY)


def _objects(values: object) -> object:
    if isinstance(values, list):
        return [_objects(one) for one in values]
    assert isinstance(values, bytes)
    return {"b64": base64.b64encode(values).decode("ascii")}


def decode(body: bytes, classes: int, output: str = "") -> np.ndarray:
    """float32 [N, classes] of ``{"predictions": [...]}``, with 0 classes [N, any]; where each row is an object of
    several outputs, of the one called ``output``. ValueError where it is none."""
    try:
        rows = orjson.loads(body)["predictions"]
        if output and rows and isinstance(rows[0], dict):
            rows = [row[output] for row in rows]
        values = np.asarray(rows, dtype=np.float32)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"the answer has no predictions: {body[:200]!r}") from None
    if not classes and values.ndim and values.size:
        return values.reshape(len(values), -1)
    if values.ndim != 2 or not len(values) or values.shape[1] != classes:
        raise ValueError(f"predictions are {values.shape}, not (N, {classes})")
    return values
