"""What TensorFlow Serving says of a model: the inputs and outputs of the signature that its predictions use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from google.protobuf.message import DecodeError

from serving.engines.engine import Description, Question, Tensor
from serving.engines.tensorflow_serving import calls, tensor_types
from serving.target import Target
from serving.wire.protobuf import tensorflow_serving_pb2 as messages

GRPC_METHOD = "/tensorflow.serving.PredictionService/GetModelMetadata"
SIGNATURE = "serving_default"
_FIELD = "signature_def"


def question(target: Target, protocol: str) -> Question:
    """See `Engine.metadata`."""
    if protocol != "grpc":
        return Question(f"{calls.path(target)}/metadata", None, read_json)
    request = messages.GetModelMetadataRequest(model_spec=calls.model(target), metadata_field=[_FIELD])
    return Question(GRPC_METHOD, request.SerializeToString(deterministic=True), read_message)


def read_message(message: bytes) -> Description:
    """Of a GetModelMetadataResponse. ValueError."""
    try:
        answer = messages.GetModelMetadataResponse.FromString(message)
        signatures = messages.SignatureDefMap.FromString(answer.metadata[_FIELD].value).signature_def
    except DecodeError as error:
        raise ValueError(f"the answer is no TensorFlow Serving metadata message: {error}") from None
    if SIGNATURE not in signatures:
        raise ValueError(f"the model has the signatures {', '.join(sorted(signatures)) or 'none'}, not {SIGNATURE}")
    found = signatures[SIGNATURE]
    version = answer.model_spec.version.value
    return Description(
        inputs=_told(found.inputs), outputs=_told(found.outputs), versions=(str(version),) if version else ()
    )


def _told(tensors: Mapping[str, messages.TensorInfo]) -> tuple[Tensor, ...]:
    return tuple(
        _tensor(name, tensor_types.BY_NUMBER.get(one.dtype), [dim.size for dim in one.tensor_shape.dim])
        for name, one in sorted(tensors.items())
    )


def _tensor(name: str, known: tensor_types.TensorType | None, shape: list[int]) -> Tensor:
    if known is None:
        raise ValueError(f"{SIGNATURE}.{name}.dtype: not a type that requests and answers can carry")
    return Tensor(name, known.datatype, tuple(shape))


def read_json(body: bytes) -> Description:
    """Of the body of /v1/models/…/metadata. ValueError."""
    try:
        answer = orjson.loads(body)
        signatures = answer["metadata"][_FIELD][_FIELD]
        version = str(answer["model_spec"]["version"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"the answer is no TensorFlow Serving metadata: {body[:200]!r}") from None
    if SIGNATURE not in signatures:
        raise ValueError(f"the model has the signatures {', '.join(sorted(signatures)) or 'none'}, not {SIGNATURE}")
    try:
        inputs, outputs = (_listed(signatures[SIGNATURE][part]) for part in ("inputs", "outputs"))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"metadata.{_FIELD}.{SIGNATURE}: {error}") from None
    return Description(inputs=inputs, outputs=outputs, versions=(version,) if version else ())


def _listed(tensors: dict[str, Any]) -> tuple[Tensor, ...]:
    return tuple(
        _tensor(
            name,
            tensor_types.BY_NAME.get(one["dtype"]),
            [int(dim["size"]) for dim in one["tensor_shape"].get("dim", [])],
        )
        for name, one in sorted(tensors.items())
    )
