"""Requests encoded as bytes before the clock starts, and answers decoded: both stacks, three protocols.

Imports neither torch nor tensorflow, so that the load generator may use it.

Protocols
    grpc         TorchServe ``Predictions`` with raw bytes; TF Serving ``Predict`` with ``tensor_content``
    rest         JSON rows: the same body on both stacks
    rest-binary  TorchServe: raw bytes; TF Serving: base64 in JSON, signature ``serving_bytes``
"""

from __future__ import annotations

import base64
import math

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from serving.target import PROTOCOLS, STACKS, Target
from serving.wire.protobuf import tensorflow_serving_pb2 as tf_serving
from serving.wire.protobuf import torchserve_pb2 as torchserve

INPUT = "images"
OUTPUT = "probabilities"
BYTES_INPUT = "image_bytes"
BYTES_SIGNATURE = "serving_bytes"
TORCHSERVE_INPUT = "data"

JSON_TYPE = "application/json"
BINARY_TYPE = "application/octet-stream"


def encode(target: Target, protocol: str, images: np.ndarray) -> bytes:
    """Encode uint8 ``images`` [N, H, W, C] as one request.

    gRPC: the serialized request message, without gRPC's 5-byte prefix. REST: a complete HTTP/1.1 request with
    keep-alive. Raises ValueError for an unknown protocol or images that the target does not take.
    """
    _check(target, protocol)
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1:] != target.input_shape or not len(images):
        raise ValueError(
            f"images are {images.dtype} {images.shape}; {target.model} takes uint8 (N, {target.input_shape})"
        )
    if protocol == "grpc":
        return _grpc_request(target, images)
    body, content_type = _rest_body(target, protocol, images)
    head = (
        f"POST {rest_path(target)} HTTP/1.1\r\n"
        f"Host: {target.rest}\r\n"
        f"Content-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Connection: keep-alive\r\n\r\n"
    )
    return head.encode("ascii") + body


def grpc_method(target: Target) -> str:
    """The full name of the target's unary prediction call."""
    if target.name == "pytorch":
        return "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"
    return "/tensorflow.serving.PredictionService/Predict"


def rest_path(target: Target) -> str:
    """The path of the target's prediction URL."""
    return f"/predictions/{target.model}" if target.name == "pytorch" else f"/v1/models/{target.model}:predict"


def decode(target: Target, protocol: str, body: bytes) -> np.ndarray:
    """Decode an answer (gRPC: the serialized message; REST: the body) to float32 probabilities [N, classes].

    Raises ValueError when the body is not an answer, for example an error message.
    """
    _check(target, protocol)
    if protocol == "grpc":
        return _grpc_answer(target, body)
    if target.name == "pytorch" and protocol == "rest-binary":
        return _from_bytes(body, target.classes)
    return _from_json(body, target.classes)


def _check(target: Target, protocol: str) -> None:
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol {protocol!r}: use one of {', '.join(PROTOCOLS)}")
    if target.name not in STACKS:
        raise ValueError(f"stack {target.name!r}: use one of {', '.join(STACKS)}")


def _grpc_request(target: Target, images: np.ndarray) -> bytes:
    raw = images.tobytes()
    if target.name == "pytorch":
        return torchserve.PredictionsRequest(model_name=target.model, input={TORCHSERVE_INPUT: raw}).SerializeToString(
            deterministic=True
        )
    tensor = tf_serving.TensorProto(
        dtype=tf_serving.DT_UINT8,
        tensor_shape=tf_serving.TensorShapeProto(dim=[{"size": size} for size in images.shape]),
        tensor_content=raw,
    )
    return tf_serving.PredictRequest(
        model_spec=tf_serving.ModelSpec(name=target.model), inputs={INPUT: tensor}
    ).SerializeToString(deterministic=True)


def _rest_body(target: Target, protocol: str, images: np.ndarray) -> tuple[bytes, str]:
    if protocol == "rest":
        contiguous = np.ascontiguousarray(images)
        return orjson.dumps({"instances": contiguous}, option=orjson.OPT_SERIALIZE_NUMPY), JSON_TYPE
    if target.name == "pytorch":
        return images.tobytes(), BINARY_TYPE
    rows = [{"b64": base64.b64encode(image.tobytes()).decode("ascii")} for image in images]
    return orjson.dumps({"signature_name": BYTES_SIGNATURE, "instances": rows}), JSON_TYPE


def _grpc_answer(target: Target, body: bytes) -> np.ndarray:
    try:
        if target.name == "pytorch":
            return _from_bytes(torchserve.PredictionResponse.FromString(body).prediction, target.classes)
        answer = tf_serving.PredictResponse.FromString(body)
    except DecodeError as error:
        raise ValueError(f"the answer is no {target.engine} prediction message: {error}") from None
    if OUTPUT not in answer.outputs:
        raise ValueError(f"the answer has outputs {sorted(answer.outputs)}, not {OUTPUT!r}")
    tensor = answer.outputs[OUTPUT]
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype != tf_serving.DT_FLOAT or len(shape) != 2 or shape[1] != target.classes:
        raise ValueError(f"{OUTPUT} is type {tensor.dtype} {shape}, not float32 (N, {target.classes})")
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype="<f4") if len(tensor.tensor_content) % 4 == 0 else None
    else:
        values = np.array(tensor.float_val, dtype=np.float32)
    if values is None or values.size != math.prod(shape):
        raise ValueError(f"{OUTPUT} of shape {shape} has the wrong number of values")
    return values.reshape(shape).astype(np.float32, copy=False)


def _from_bytes(body: bytes, classes: int) -> np.ndarray:
    if not body or len(body) % (4 * classes):
        raise ValueError(f"the answer is no float32 (N, {classes}): {body[:200]!r}")
    return np.frombuffer(body, dtype="<f4").reshape(-1, classes)


def _from_json(body: bytes, classes: int) -> np.ndarray:
    try:
        rows = orjson.loads(body)["predictions"]
        values = np.asarray(rows, dtype=np.float32)
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"the answer has no predictions: {body[:200]!r}") from None
    if values.ndim != 2 or not len(values) or values.shape[1] != classes:
        raise ValueError(f"predictions are {values.shape}, not (N, {classes})")
    return values
