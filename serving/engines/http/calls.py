"""The user's own request, filled with samples, and the part of its answer that counts."""

from __future__ import annotations

from functools import partial

import numpy as np

from serving.engines import http_request
from serving.engines.engine import Call
from serving.target import HttpRequest, Target


def call(target: Target) -> Call:
    """See `Engine.call`. ValueError where the request cannot be (see `http_request.check`)."""
    request = target.request or HttpRequest()
    template = http_request.Template(request)
    return Call(
        path=request.path,
        content_type=http_request.content_type(request),
        encode=template.fill,
        decode=partial(_answer, request.answer, template.single, target.classes),
        method=request.method,
    )


def _answer(pointer: str, single: bool, classes: int, body: bytes) -> np.ndarray:
    found = http_request.rows(http_request.values(body, pointer), single=single)
    if classes and found.shape[1] != classes:
        raise ValueError(f"{pointer or 'the answer'}: {found.shape[1]} values a sample, not {classes}")
    return found
