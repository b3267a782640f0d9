"""TensorFlow Serving's requests and answers: JSON rows, base64 in JSON, and ``Predict`` over gRPC."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from functools import partial
from urllib.parse import quote

import numpy as np
import orjson
from google.protobuf.message import DecodeError

from models.encoding import Encoding
from serving.engines import interface
from serving.engines.engine import Call
from serving.engines.tensorflow_serving import tensor_types
from serving.target import Target
from serving.wire import json_rows
from serving.wire.protobuf import tensorflow_serving_pb2 as messages

GRPC_METHOD = "/tensorflow.serving.PredictionService/Predict"
BYTES_SIGNATURE, ENCODED_SIGNATURE = "serving_bytes", "serving_encoded"


def call(target: Target, protocol: str) -> Call:
    """See `Engine.call`."""
    output = interface.judged(target) or interface.OUTPUT
    if protocol == "grpc":
        return Call(GRPC_METHOD, "", partial(_message, target), partial(_answer, target, output))
    return Call(
        path=f"{path(target)}:predict",
        content_type=json_rows.CONTENT_TYPE,
        encode=_body(target, protocol),
        decode=partial(json_rows.decode, classes=target.classes, output=output),
    )


def _body(target: Target, protocol: str) -> Callable[[np.ndarray], bytes]:
    """How samples become a JSON body."""
    if target.encoding is not Encoding.NONE:
        return partial(_base64, ENCODED_SIGNATURE)
    return partial(_pixels if protocol == "rest-binary" else _json, target)


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


def _pixels(target: Target, images: np.ndarray) -> bytes:
    if target.inputs:
        raise ValueError(f"rest-binary asks for the signature {BYTES_SIGNATURE}, which only Tandem's own exports have")
    return _base64(BYTES_SIGNATURE, [image.tobytes() for image in images])


def _base64(signature: str, pieces: Iterable[bytes]) -> bytes:
    rows = [{"b64": base64.b64encode(piece).decode("ascii")} for piece in pieces]
    return orjson.dumps({"signature_name": signature, "instances": rows})


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
    if target.encoding is not Encoding.NONE:
        request.model_spec.signature_name = ENCODED_SIGNATURE
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
