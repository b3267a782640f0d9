"""The protocol's REST API: paths, and bodies of requests and answers, with and without the binary-data extension."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
import orjson

from serving.wire.open_inference import datatypes
from serving.wire.open_inference.records import Answer, ModelMetadata, NamedTensor, ServerMetadata, TensorMetadata

CONTENT_TYPE = "application/json"
BINARY_CONTENT_TYPE = "application/octet-stream"
JSON_LENGTH = "Inference-Header-Content-Length"
"""The header that says where the JSON ends and the binary data begin."""
BINARY_EXTENSION = "binary_tensor_data"
"""Among a server's extensions, where it says so."""
SERVER = "/v2"
SERVER_LIVE = "/v2/health/live"
SERVER_READY = "/v2/health/ready"


def model_path(model: str, version: str = "") -> str:
    """Of a model's metadata; ``version``: empty lets the server choose."""
    part = f"/versions/{quote(version, safe='')}" if version else ""
    return f"{SERVER}/models/{quote(model, safe='')}{part}"


def infer_path(model: str, version: str = "") -> str:
    """Of a model's predictions."""
    return f"{model_path(model, version)}/infer"


def ready_path(model: str, version: str = "") -> str:
    """Of a model's readiness."""
    return f"{model_path(model, version)}/ready"


def encode(inputs: Sequence[NamedTensor], outputs: Sequence[str] = (), id: str = "") -> bytes:
    """An inference request as JSON; ``outputs``: those that are wanted (none: all); ``id``: comes back in the answer.
    ValueError for values that JSON cannot carry."""
    wanted = [{"name": name} for name in outputs]
    tensors = [{**_described(one), "data": _listed(one, f"inputs[{place}].data")} for place, one in enumerate(inputs)]
    return _json(id, inputs=tensors, outputs=wanted)


def _listed(tensor: NamedTensor, where: str) -> Any:
    values = tensor.values.ravel()
    if tensor.datatype == datatypes.BYTES:
        try:
            return [one.decode("utf-8") for one in values.tolist()]
        except UnicodeDecodeError:
            raise ValueError(f"{where}: bytes that are no UTF-8 text cannot be sent as JSON: use rest-binary") from None
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError(f"{where}: JSON has no NaN and no infinity: use rest-binary")
    return np.ascontiguousarray(values)


def encode_binary(inputs: Sequence[NamedTensor], outputs: Sequence[str] = (), id: str = "") -> tuple[bytes, int]:
    """An inference request with the values after the JSON, which asks for the same of the answer: the body, and the
    length of its JSON (see `JSON_LENGTH`)."""
    contents = [datatypes.to_raw(one.values, one.datatype) for one in inputs]
    tensors = [
        {**_described(one), "parameters": {"binary_data_size": len(content)}}
        for one, content in zip(inputs, contents, strict=True)
    ]
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    parameters = {} if wanted else {"parameters": {"binary_data_output": True}}
    head = _json(id, inputs=tensors, outputs=wanted, **parameters)
    return b"".join([head, *contents]), len(head)


def _described(tensor: NamedTensor) -> dict[str, object]:
    return {"name": tensor.name, "shape": list(tensor.values.shape), "datatype": tensor.datatype}


def _json(id: str, **values: object) -> bytes:
    present = {"id": id, **values}
    return orjson.dumps({key: value for key, value in present.items() if value}, option=orjson.OPT_SERIALIZE_NUMPY)


def json_length(body: bytes) -> int:
    """Where the JSON of a body ends that may have binary data behind it; ValueError where it starts with none."""
    try:
        return json.JSONDecoder().raw_decode(body.decode("latin-1"))[1]
    except (ValueError, RecursionError):
        raise ValueError(f"the body does not start with JSON: {body[:200]!r}") from None


def decode(body: bytes, length: int | None = None) -> Answer:
    """An inference response; ``length``: of its JSON as its header says, else it is found. ValueError that names the
    field at fault, or says what the server says where it is an error object."""
    answer, binary = _parsed(body, length)
    given = _list(answer, "outputs", "")
    if given is None:
        raise ValueError("outputs: missing")
    outputs = []
    for place, one in enumerate(given):
        tensor, binary = _output(one, f"outputs[{place}]", binary)
        outputs.append(tensor)
    if binary:
        raise ValueError(f"outputs: {len(binary)} bytes of binary data belong to none of them")
    return Answer(
        _text(answer, "model_name", ""), _text(answer, "model_version", ""), _text(answer, "id", ""), tuple(outputs)
    )


def _parsed(body: bytes, length: int | None) -> tuple[dict[str, Any], memoryview]:
    """The JSON object, and what follows it."""
    if length is None:
        try:
            return _object(orjson.loads(body)), memoryview(b"")
        except orjson.JSONDecodeError:
            length = json_length(body)
    elif not 0 < length <= len(body):
        raise ValueError(f"{JSON_LENGTH}: {length}, of a body of {len(body)} bytes")
    return _object(_loaded(body[:length])), memoryview(body)[length:]


def _loaded(content: bytes) -> Any:
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError as error:
        try:
            return json.loads(content)  # with NaN and Infinity, which JSON lacks and some servers write
        except (ValueError, RecursionError):
            raise ValueError(f"the answer is no JSON ({error}): {content[:200]!r}") from None


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ValueError(f"the answer is no JSON object: {str(answer)[:200]}")
    if "error" in answer:
        raise ValueError(f"the server says: {str(answer['error'])[:500]}")
    return answer


def _output(given: Any, where: str, binary: memoryview) -> tuple[NamedTensor, memoryview]:
    """The tensor, and the binary data behind its own."""
    described = _tensor(given, where, least=0)
    parameters = given.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise ValueError(f"{where}.parameters: {str(parameters)[:50]} is no object")
    size, data = parameters.get("binary_data_size"), given.get("data")
    name, datatype, shape = described.name, described.datatype, described.shape
    if size is None:
        if not isinstance(data, list):
            raise ValueError(f"{where}.data: {'missing' if data is None else f'{str(data)[:50]} is no list'}")
        return NamedTensor(name, datatype, datatypes.from_values(data, datatype, shape, f"{where}.data")), binary
    if data is not None:
        raise ValueError(f"{where}.data: given, though its binary_data_size is, too")
    if type(size) is not int or not 0 <= size <= len(binary):
        raise ValueError(f"{where}.parameters.binary_data_size: {size!r}, of {len(binary)} bytes that are left")
    values = datatypes.from_raw(binary[:size], datatype, shape, f"{where}.parameters.binary_data_size")
    return NamedTensor(name, datatype, values), binary[size:]


def _tensor(given: Any, where: str, least: int) -> TensorMetadata:
    """Name, datatype and shape of a tensor; ``least``: that a size may be."""
    if not isinstance(given, dict):
        raise ValueError(f"{where}: {str(given)[:50]} is no object")
    name = _text(given, "name", f"{where}.", missing=False)
    datatype = datatypes.known(_text(given, "datatype", f"{where}.", missing=False), f"{where}.datatype").name
    shape = _list(given, "shape", f"{where}.")
    if shape is None:
        raise ValueError(f"{where}.shape: missing")
    for size in shape:
        if type(size) is not int or size < least:
            raise ValueError(f"{where}.shape: {str(size)[:50]} is no size")
    return TensorMetadata(name, datatype, tuple(shape))


def read_server(body: bytes) -> ServerMetadata:
    """Of a server metadata response; ValueError like `decode`."""
    answer, _ = _parsed(body, len(body))
    name, version = (_text(answer, key, "", missing=False) for key in ("name", "version"))
    return ServerMetadata(name, version, _texts(answer, "extensions"))


def read_model(body: bytes) -> ModelMetadata:
    """Of a model metadata response; ValueError like `decode`."""
    answer, _ = _parsed(body, len(body))
    inputs, outputs = (
        tuple(_tensor(one, f"{part}[{place}]", -1) for place, one in enumerate(_list(answer, part, "") or []))
        for part in ("inputs", "outputs")
    )
    name = _text(answer, "name", "", missing=False)
    return ModelMetadata(name, _texts(answer, "versions"), _text(answer, "platform", ""), inputs, outputs)


def read_ready(body: bytes) -> bool:
    """Of the body of an answer with status 200 to a question for life or readiness: servers may leave it empty."""
    if not body.strip():
        return True
    answer, _ = _parsed(body, len(body))
    return all(answer.get(key, True) is True for key in ("live", "ready"))


def _text(given: dict[str, Any], key: str, where: str, *, missing: bool = True) -> str:
    """The text under ``key``; ``missing``: it may be, and is empty then."""
    value = given.get(key)
    if value is None and missing:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{where}{key}: {'missing' if value is None else f'{str(value)[:50]} is no string'}")
    return value


def _list(given: dict[str, Any], key: str, where: str) -> list[Any] | None:
    value = given.get(key)
    if value is not None and not isinstance(value, list):
        raise ValueError(f"{where}{key}: {str(value)[:50]} is no list")
    return value


def _texts(given: dict[str, Any], key: str) -> tuple[str, ...]:
    values = _list(given, key, "") or []
    for place, value in enumerate(values):
        if not isinstance(value, str):
            raise ValueError(f"{key}[{place}]: {str(value)[:50]} is no string")
    return tuple(values)
