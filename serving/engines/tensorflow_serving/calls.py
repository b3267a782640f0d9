"""TensorFlow Serving's requests and answers: JSON rows, base64 in JSON, and ``Predict`` over gRPC."""

from __future__ import annotations

import base64
import math
from functools import partial

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from serving.engines.engine import Call
from serving.target import Target
from serving.wire import json_rows
from serving.wire.protobuf import tensorflow_serving_pb2 as messages

GRPC_METHOD = "/tensorflow.serving.PredictionService/Predict"
INPUT = "images"
OUTPUT = "probabilities"
BYTES_SIGNATURE = "serving_bytes"


def call(target: Target, protocol: str) -> Call:
    """See `Engine.call`."""
    if protocol == "grpc":
        return Call(GRPC_METHOD, "", partial(_message, target.model), partial(_answer, target.classes))
    return Call(
        path=f"/v1/models/{target.model}:predict",
        content_type=json_rows.CONTENT_TYPE,
        encode=_base64 if protocol == "rest-binary" else json_rows.encode,
        decode=partial(json_rows.decode, classes=target.classes),
    )


def _base64(images: np.ndarray) -> bytes:
    rows = [{"b64": base64.b64encode(image.tobytes()).decode("ascii")} for image in images]
    return orjson.dumps({"signature_name": BYTES_SIGNATURE, "instances": rows})


def _message(model: str, images: np.ndarray) -> bytes:
    tensor = messages.TensorProto(
        dtype=messages.DT_UINT8,
        tensor_shape=messages.TensorShapeProto(dim=[{"size": size} for size in images.shape]),
        tensor_content=images.tobytes(),
    )
    request = messages.PredictRequest(model_spec=messages.ModelSpec(name=model), inputs={INPUT: tensor})
    return request.SerializeToString(deterministic=True)


def _answer(classes: int, message: bytes) -> np.ndarray:
    try:
        answer = messages.PredictResponse.FromString(message)
    except DecodeError as error:
        raise ValueError(f"the answer is no TensorFlow Serving prediction message: {error}") from None
    if OUTPUT not in answer.outputs:
        raise ValueError(f"the answer has outputs {sorted(answer.outputs)}, not {OUTPUT!r}")
    tensor = answer.outputs[OUTPUT]
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if tensor.dtype != messages.DT_FLOAT or len(shape) != 2 or shape[1] != classes:
        raise ValueError(f"{OUTPUT} is type {tensor.dtype} {shape}, not float32 (N, {classes})")
    if tensor.tensor_content:
        values = np.frombuffer(tensor.tensor_content, dtype="<f4") if len(tensor.tensor_content) % 4 == 0 else None
    else:
        values = np.array(tensor.float_val, dtype=np.float32)
    if values is None or values.size != math.prod(shape):
        raise ValueError(f"{OUTPUT} of shape {shape} has the wrong number of values")
    return values.reshape(shape).astype(np.float32, copy=False)
