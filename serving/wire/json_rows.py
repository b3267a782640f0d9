"""Images as rows of JSON numbers, and probabilities as such: the one REST body that several servers take."""

from __future__ import annotations

import numpy as np
import orjson

CONTENT_TYPE = "application/json"


def encode(images: np.ndarray) -> bytes:
    """``{"instances": [...]}`` of uint8 images [N, H, W, C]."""
    return orjson.dumps({"instances": np.ascontiguousarray(images)}, option=orjson.OPT_SERIALIZE_NUMPY)


def decode(body: bytes, classes: int) -> np.ndarray:
    """float32 probabilities [N, classes] of ``{"predictions": [...]}``; ValueError where it is none."""
    try:
        rows = orjson.loads(body)["predictions"]
        values = np.asarray(rows, dtype=np.float32)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"the answer has no predictions: {body[:200]!r}") from None
    if values.ndim != 2 or not len(values) or values.shape[1] != classes:
        raise ValueError(f"predictions are {values.shape}, not (N, {classes})")
    return values
