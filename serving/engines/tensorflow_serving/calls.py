"""TensorFlow Serving's requests and answers: JSON rows, base64 in JSON, and ``Predict`` over gRPC."""

from __future__ import annotations

import base64
from functools import partial
from urllib.parse import quote

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from serving.engines import interface
from serving.engines.engine import Call
from serving.engines.tensorflow_serving import tensor_types
from serving.target import Target
from serving.wire import json_rows
from serving.wire.protobuf import tensorflow_serving_pb2 as messages

GRPC_METHOD = "/tensorflow.serving.PredictionService/Predict"
BYTES_SIGNATURE = "serving_bytes"


def call(target: Target, protocol: str) -> Call:
    """See `Engine.call`."""
    output = interface.judged(target) or interface.OUTPUT
    if protocol == "grpc":
        return Call(GRPC_METHOD, "", partial(_message, target), partial(_answer, target, output))
    return Call(
        path=f"{path(target)}:predict",
        content_type=json_rows.CONTENT_TYPE,
        encode=partial(_base64 if protocol == "rest-binary" else _json, target),
        decode=partial(json_rows.decode, classes=target.classes, output=output),
    )


def path(target: Target) -> str:
    """Of the target's model, in the version (a number) or with the label that it asks for, if any."""
    asked = target.pinned_version
    part = f"/{'versions' if asked.isdecimal() else 'labels'}/{quote(asked, safe='')}" if asked else ""
    return f"/v1/models/{quote(target.model, safe='')}{part}"


def model(target: Target) -> messages.ModelSpec:
    """The same for gRPC."""
    asked, name = target.pinned_version, target.model
    if asked.isdecimal():
        return messages.ModelSpec(name=name, version={"value": int(asked)})
    return messages.ModelSpec(name=name, version_label=asked) if asked else messages.ModelSpec(name=name)


def _base64(target: Target, images: np.ndarray) -> bytes:
    if target.inputs:
        raise ValueError(f"rest-binary asks for the signature {BYTES_SIGNATURE}, which only Tandem's own exports have")
    rows = [{"b64": base64.b64encode(image.tobytes()).decode("ascii")} for image in images]
    return orjson.dumps({"signature_name": BYTES_SIGNATURE, "instances": rows})


def _json(target: Target, samples: np.ndarray) -> bytes:
    """Rows, which the server puts together to a batch; or columns, where an input has none."""
    if samples.dtype.names is None:
        return json_rows.encode(samples)
    inputs = {one.name: one.values for one in interface.carried(target, samples)}
    batched = all(values.shape[:1] == samples.shape for values in inputs.values())
    return json_rows.encode_rows(inputs) if batched else json_rows.encode_columns(inputs)


def _message(target: Target, samples: np.ndarray) -> bytes:
    tensors = {one.name: tensor_types.encode(one.values, one.datatype) for one in interface.carried(target, samples)}
    request = messages.PredictRequest(model_spec=model(target), inputs=tensors)
    return request.SerializeToString(deterministic=True)


def _answer(target: Target, output: str, message: bytes) -> np.ndarray:
    try:
        answer = messages.PredictResponse.FromString(message)
    except DecodeError as error:
        raise ValueError(f"the answer is no TensorFlow Serving prediction message: {error}") from None
    if output not in answer.outputs:
        raise ValueError(f"the answer has outputs {sorted(answer.outputs)}, not {output!r}")
    values = interface.rows(target, tensor_types.decode(answer.outputs[output], output))
    if target.classes and values.shape[1] != target.classes:
        raise ValueError(f"{output} is {values.shape}, not (N, {target.classes})")
    return values
