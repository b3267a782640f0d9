"""Samples as rows of JSON numbers, and predictions as such: the one REST body that several servers take."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np
import orjson

CONTENT_TYPE = "application/json"


def encode(samples: np.ndarray) -> bytes:
    """``{"instances": [...]}`` of numbers [N, …], or of bytes [N, …], each of them ``{"b64": …}``; of a structured
    array [N], objects with a value for each field."""
    if samples.dtype.names is None:
        return _dumped({"instances": _plain(samples)})
    return encode_rows({name: np.ascontiguousarray(samples[name]) for name in samples.dtype.names})


def encode_rows(inputs: Mapping[str, np.ndarray]) -> bytes:
    """The same of each input's values [N, …]."""
    return _dumped({"instances": rows(inputs)})


def encode_columns(inputs: Mapping[str, np.ndarray]) -> bytes:
    """``{"inputs": {...}}`` of each input's values as they are, so that those need no batch."""
    return _dumped({"inputs": {name: _plain(values) for name, values in inputs.items()}})


def rows(inputs: Mapping[str, np.ndarray]) -> list[dict[str, object]]:
    """An object with each input's value for each sample, for `orjson` with its option for NumPy."""
    count = len(next(iter(inputs.values())))
    return [{name: _plain(values[row]) for name, values in inputs.items()} for row in range(count)]


def _dumped(document: object) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)


def _plain(values: np.ndarray | bytes) -> object:
    if isinstance(values, bytes):  # one of an array of objects
        return _objects(values)
    if values.dtype.kind in "OS":
        return _objects(values.tolist())
    return np.ascontiguousarray(values) if values.ndim else values[()]


def _objects(values: object) -> object:
    if isinstance(values, list):
        return [_objects(one) for one in values]
    assert isinstance(values, bytes)
    return {"b64": base64.b64encode(values).decode("ascii")}


def decode(body: bytes, classes: int, output: str = "") -> np.ndarray:
    """float32 [N, classes] of ``{"predictions": [...]}`` or, where columns were sent, ``{"outputs": …}``, with 0
    classes [N, any]; where there are several outputs, of the one called ``output``. ValueError where it is none."""
    try:
        document = orjson.loads(body)
        found = document["predictions"] if "predictions" in document else document["outputs"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"the answer has no predictions: {body[:200]!r}") from None
    values = _numbers(found, output, body)
    if not classes and values.ndim and values.size:
        return values.reshape(len(values), -1)
    if not classes and values.size:  # one number for one sample, of a model without a batch
        return values.reshape(1, 1)
    if values.ndim != 2 or not len(values) or values.shape[1] != classes:
        raise ValueError(f"predictions are {values.shape}, not (N, {classes})")
    return values


def _numbers(found: Any, output: str, body: bytes) -> np.ndarray:
    """Of the output, where they are by name: in each row, or as columns."""
    named = found if isinstance(found, dict) else found[0] if isinstance(found, list) and found else None
    try:
        if output and isinstance(named, dict):
            if output not in named:
                raise ValueError(f"the answer has the outputs {', '.join(sorted(named))}, not {output!r}")
            found = found[output] if isinstance(found, dict) else [row[output] for row in found]
    except (KeyError, TypeError):
        raise ValueError(f"the answer has no predictions: {body[:200]!r}") from None
    try:
        return np.asarray(found, dtype=np.float32)
    except (ValueError, TypeError):
        raise ValueError(f"the answer has no predictions: {body[:200]!r}") from None
