"""TorchServe's requests and answers: JSON rows, raw bytes, and ``Predictions`` over gRPC."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from models.encoding import Encoding
from serving.engines import http_request
from serving.engines.engine import Call
from serving.target import Target
from serving.wire import json_rows
from serving.wire.protobuf import torchserve_pb2 as messages

GRPC_METHOD = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
INPUT, ENCODED_INPUT = "data", "image"  # as Tandem's handler tells them apart


def call(target: Target, protocol: str) -> Call:
    """See `Engine.call`."""
    asked, classes = target.pinned_version, target.classes
    path = f"/predictions/{quote(target.model, safe='')}" + (f"/{quote(asked, safe='')}" if asked else "")
    if protocol == "grpc":
        return Call(GRPC_METHOD, "", partial(_message, target), partial(_answer, classes))
    if target.encoding is not Encoding.NONE:
        return Call(path, target.encoding.content_type, _raw, partial(json_rows.decode, classes=classes))
    if protocol == "rest-binary":
        return Call(path, "application/octet-stream", _raw, partial(_probabilities, classes))
    decode = partial(json_rows.decode, classes=classes) if classes else _theirs
    return Call(path, json_rows.CONTENT_TYPE, json_rows.encode, decode)


def _raw(samples: np.ndarray) -> bytes:
    if samples.dtype.names:
        raise ValueError(f"TorchServe takes several inputs ({', '.join(samples.dtype.names)}) as JSON alone: use rest")
    if samples.dtype.kind not in "OS":
        return samples.tobytes()
    if samples.size != 1:
        raise ValueError(f"TorchServe takes one encoded image or string a request, not {samples.size}")
    return bytes(samples.item())


def _message(target: Target, samples: np.ndarray) -> bytes:
    name = INPUT if target.encoding is Encoding.NONE else ENCODED_INPUT
    request = messages.PredictionsRequest(
        model_name=target.model, model_version=target.pinned_version, input={name: _raw(samples)}
    )
    return request.SerializeToString(deterministic=True)


def _answer(classes: int, message: bytes) -> np.ndarray:
    try:
        answer = messages.PredictionResponse.FromString(message)
    except DecodeError as error:
        raise ValueError(f"the answer is no TorchServe prediction message: {error}") from None
    return _probabilities(classes, answer.prediction)


def _probabilities(classes: int, body: bytes) -> np.ndarray:
    if not classes:
        return _theirs(body)
    if not body or len(body) % (4 * classes):
        raise ValueError(f"the answer is no float32 (N, {classes}): {body[:200]!r}")
    return np.frombuffer(body, dtype="<f4").reshape(-1, classes)


def _theirs(body: bytes) -> np.ndarray:
    """[N, values] of what any handler answers: rows of ``predictions``; numbers, or rows of them; objects such as
    TorchServe's image classifier gives, class to probability, by their names in order. ValueError for anything else."""
    try:
        document = orjson.loads(body)
    except ValueError:
        raise ValueError(f"the answer is no JSON: {body[:200]!r}") from None
    if isinstance(document, dict) and "predictions" in document:
        return json_rows.decode(body, 0)
    found = http_request.values(orjson.dumps(_in_order(document)), "")
    return http_request.rows(found, single=found.ndim < 2)


def _in_order(value: object) -> object:
    """Objects as lists of their values, whatever order those came in."""
    if isinstance(value, dict):
        return [_in_order(value[name]) for name in sorted(value)]
    return [_in_order(one) for one in value] if isinstance(value, list) else value
