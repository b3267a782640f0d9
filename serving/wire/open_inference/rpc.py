"""The protocol's gRPC service: methods, and messages of requests and answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from serving.wire.open_inference import datatypes
from serving.wire.open_inference.records import Answer, ModelMetadata, NamedTensor, ServerMetadata, TensorMetadata
from serving.wire.protobuf import open_inference_pb2 as messages

SERVICE = "/inference.GRPCInferenceService/"
MODEL_INFER = f"{SERVICE}ModelInfer"
MODEL_METADATA = f"{SERVICE}ModelMetadata"
MODEL_READY = f"{SERVICE}ModelReady"
SERVER_METADATA = f"{SERVICE}ServerMetadata"
SERVER_LIVE = f"{SERVICE}ServerLive"
SERVER_READY = f"{SERVICE}ServerReady"
Kind = TypeVar("Kind", bound=Message)
NO_FIELDS = b""
"""The message of the questions for a server as a whole."""


def encode(
    model: str, inputs: Sequence[NamedTensor], outputs: Sequence[str] = (), *, version: str = "", id: str = ""
) -> bytes:
    """A ModelInferRequest with raw contents; ``outputs``: those that are wanted (none: all); ``version``: empty lets
    the server choose; ``id``: comes back in the answer."""
    request = messages.ModelInferRequest(
        model_name=model,
        model_version=version,
        id=id,
        inputs=[{"name": one.name, "datatype": one.datatype, "shape": one.values.shape} for one in inputs],
        outputs=[{"name": name} for name in outputs],
        raw_input_contents=[datatypes.to_raw(one.values, one.datatype) for one in inputs],
    )
    return request.SerializeToString(deterministic=True)


def decode(message: bytes) -> Answer:
    """A ModelInferResponse, its contents raw or by type. ValueError that names the field at fault."""
    answer = _parsed(messages.ModelInferResponse, message)
    raw = answer.raw_output_contents
    if raw and len(raw) != len(answer.outputs):
        raise ValueError(f"raw_output_contents: {len(raw)}, of {len(answer.outputs)} outputs")
    outputs = tuple(
        _output(one, f"outputs[{place}]", raw[place] if raw else None, f"raw_output_contents[{place}]")
        for place, one in enumerate(answer.outputs)
    )
    return Answer(answer.model_name, answer.model_version, answer.id, outputs)


def _output(
    given: messages.ModelInferResponse.InferOutputTensor, where: str, raw: bytes | None, raw_where: str
) -> NamedTensor:
    datatype = datatypes.known(given.datatype, f"{where}.datatype")
    shape = _shape(given.shape, where, 0)
    if raw is None:
        return NamedTensor(given.name, datatype.name, _by_type(given.contents, datatype, shape, where))
    if given.HasField("contents") and given.contents.ListFields():
        raise ValueError(f"{where}.contents: given, though raw_output_contents are, too")
    return NamedTensor(given.name, datatype.name, datatypes.from_raw(raw, datatype.name, shape, raw_where))


def _by_type(
    contents: messages.InferTensorContents, datatype: datatypes.Datatype, shape: Sequence[int], where: str
) -> np.ndarray:
    if not datatype.contents:
        raise ValueError(f"raw_output_contents: missing, and {where} is {datatype.name}, which is only sent raw")
    values = list(getattr(contents, datatype.contents))
    return datatypes.from_values(values, datatype.name, shape, f"{where}.contents.{datatype.contents}")


def _shape(given: Iterable[int], where: str, least: int) -> tuple[int, ...]:
    shape = tuple(given)
    for size in shape:
        if size < least:
            raise ValueError(f"{where}.shape: {size} is no size")
    return shape


def about_model(model: str, version: str = "") -> bytes:
    """The message of `MODEL_METADATA` and of `MODEL_READY`, which is the same."""
    return messages.ModelMetadataRequest(name=model, version=version).SerializeToString(deterministic=True)


def read_server(message: bytes) -> ServerMetadata:
    """Of a ServerMetadataResponse; ValueError where it is none."""
    answer = _parsed(messages.ServerMetadataResponse, message)
    return ServerMetadata(answer.name, answer.version, tuple(answer.extensions))


def read_model(message: bytes) -> ModelMetadata:
    """Of a ModelMetadataResponse; ValueError like `decode`."""
    answer = _parsed(messages.ModelMetadataResponse, message)
    return ModelMetadata(
        answer.name,
        tuple(answer.versions),
        answer.platform,
        _described(answer.inputs, "inputs"),
        _described(answer.outputs, "outputs"),
    )


def _described(given: Iterable[messages.ModelMetadataResponse.TensorMetadata], part: str) -> tuple[TensorMetadata, ...]:
    return tuple(
        TensorMetadata(
            one.name,
            datatypes.known(one.datatype, f"{part}[{place}].datatype").name,
            _shape(one.shape, f"{part}[{place}]", -1),
        )
        for place, one in enumerate(given)
    )


def read_live(message: bytes) -> bool:
    """Of a ServerLiveResponse; ValueError where it is none."""
    return bool(_parsed(messages.ServerLiveResponse, message).live)


def read_ready(message: bytes) -> bool:
    """Of a ServerReadyResponse or a ModelReadyResponse, which are the same; ValueError where it is none."""
    return bool(_parsed(messages.ModelReadyResponse, message).ready)


def _parsed(kind: type[Kind], message: bytes) -> Kind:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise ValueError(f"the answer is no {kind.__name__}: {error}") from None
