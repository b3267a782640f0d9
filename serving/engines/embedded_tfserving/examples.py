"""tf.Examples, the input of Classify, Regress and MultiInference: from gRPC's `Input` and from REST's JSON.

Either way they become what the model's parsing ops take: one vector of serialized examples. A context that several
examples share is put in front of each: to a protobuf parser a concatenation is a merge in which what comes last wins
(tensorflow_serving/servables/tensorflow/util.cc and util/json_tensor.cc).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tensorflow.core.example import example_pb2

from serving.engines.embedded_tfserving import json_tensors, rapidjson
from serving.engines.embedded_tfserving.status import ServingError, invalid

REQUEST_KEYS = (b'"signature_name"', b'"context"', b'"examples"')
# The kind of list that a JSON value goes into; null and lists go nowhere.
KINDS: dict[type, str] = {
    bool: "int64_list",
    int: "int64_list",
    float: "float_list",
    str: "bytes_list",
    dict: "bytes_list",
}
FLOAT_MAX = float(np.finfo(np.float32).max)


def serialized(message: Any) -> np.ndarray:
    """The serialized examples of an `Input`, each with the context if there is one; raises `ServingError`."""
    kind = message.WhichOneof("kind")
    sent = getattr(message, kind).examples if kind else ()
    if not sent:
        raise invalid("Input is empty.")
    context = message.example_list_with_context.context.SerializeToString() if kind != "example_list" else b""
    return _vector([context + example.SerializeToString() for example in sent])


def read(body: bytes) -> tuple[str, np.ndarray]:
    """A REST request's signature name (empty for the default) and serialized examples; raises `ServingError`."""
    document, name = json_tensors.parse_request(body, REQUEST_KEYS)
    context = _example(document["context"]) if "context" in document else b""
    if "examples" not in document:
        # So the real server says it of regress, too.
        raise json_tensors.format_error(
            document, "When method is classify, key 'examples' is expected and was not found"
        )
    sent = document["examples"]
    if not isinstance(sent, list):
        raise json_tensors.format_error(document, "Expecting 'examples' value to be an list/array")
    if not sent:
        raise json_tensors.format_error(document, "'examples' value is an empty array")
    return name, _vector([context + _example(value) for value in sent])


def _vector(examples: list[bytes]) -> np.ndarray:
    vector = np.empty(len(examples), object)
    vector[:] = examples
    return vector


def _example(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {rapidjson.type_name(value)}")
    example = example_pb2.Example()
    for name, content in value.items():
        # A name that is no UTF-8 is no feature of any model, but must not make the message refuse it.
        key = name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        feature = example.features.feature[key]
        for element in content if isinstance(content, list) else [content]:
            _add(element, name, feature)
    return example.SerializeToString()


def _add(value: Any, name: str, feature: Any) -> None:
    kind = KINDS.get(type(value))
    if kind is None or (type(value) is dict and not json_tensors.is_base64(value)):
        raise invalid(f"Feature: {name} has element with unexpected JSON type: {rapidjson.type_name(value)}")
    first = feature.WhichOneof("kind") or kind
    if first != kind:
        expected = first.removesuffix("_list")
        raise invalid(f"Unexpected element type in feature: {name} expecting type: {expected}")
    getattr(feature, kind).value.append(_element(value, name))


def _element(value: Any, name: str) -> int | float | bytes:
    if isinstance(value, dict):
        return json_tensors.decode_base64(value)
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, float):
        if math.isfinite(value) and abs(value) > FLOAT_MAX:
            raise _lossy(value)
        return value
    if value >= 2**63:
        raise invalid(f"Feature: {name} has uint64 element. Only int64 is supported.")
    return int(value)


def _lossy(value: float) -> ServingError:
    """The number is printed with six digits where they are enough, or else with all."""
    short = f"{value:.6g}"
    text = short if float(short) == value else f"{value:.17g}"
    return invalid(f"Cannot convert JSON value: {text} to float without loss of precision.")
