"""How servers of the Open Inference Protocol are called and asked: the same for each engine that speaks it."""

from __future__ import annotations

from functools import partial

import numpy as np

from serving.engines import interface
from serving.engines.engine import Body, Call, Description, Question, Tensor
from serving.target import Target
from serving.wire.open_inference import datatypes, rest, rpc
from serving.wire.open_inference.records import Answer, ModelMetadata, NamedTensor, ServerMetadata, TensorMetadata

PROTOCOLS = ("grpc", "rest", "rest-binary")


def call(target: Target, protocol: str) -> Call:
    """See `Engine.call`."""
    model, version = target.model, target.pinned_version
    if protocol == "grpc":
        return Call(rpc.MODEL_INFER, "", partial(_message, target), partial(_message_answer, target))
    path = rest.infer_path(model, version)
    if protocol == "rest-binary":
        encode, decode = partial(_binary, target), partial(_body_answer, target)
        return Call(path, rest.BINARY_CONTENT_TYPE, encode, decode, given=_given)
    return Call(path, rest.CONTENT_TYPE, partial(_json, target), partial(_body_answer, target))


def _inputs(target: Target, samples: np.ndarray) -> list[NamedTensor]:
    return [
        NamedTensor(one.name, datatypes.named(one.datatype), one.values) for one in interface.carried(target, samples)
    ]


def _wanted(target: Target) -> list[str]:
    return [one.name for one in target.outputs]


def _json(target: Target, samples: np.ndarray) -> bytes:
    return rest.encode(_inputs(target, samples), _wanted(target))


def _binary(target: Target, samples: np.ndarray) -> Body:
    content, length = rest.encode_binary(_inputs(target, samples), _wanted(target))
    return Body(content, {rest.JSON_LENGTH: str(length)})


def _given(content: bytes) -> Body:
    return Body(content, {rest.JSON_LENGTH: str(rest.json_length(content))})


def _message(target: Target, samples: np.ndarray) -> bytes:
    return rpc.encode(target.model, _inputs(target, samples), _wanted(target), version=target.pinned_version)


def _body_answer(target: Target, body: bytes) -> np.ndarray:
    return _rows(target, rest.decode(body))


def _message_answer(target: Target, message: bytes) -> np.ndarray:
    return _rows(target, rpc.decode(message))


def _rows(target: Target, answer: Answer) -> np.ndarray:
    outputs = {one.name: one.values for one in answer.outputs}
    name = interface.output(target, list(outputs))
    found = interface.rows(target, outputs[name])
    if target.classes and found.shape[1] != target.classes:
        raise ValueError(f"{name}.shape: {list(outputs[name].shape)}, not [N, {target.classes}]")
    return found


def question(target: Target, protocol: str) -> Question:
    """See `Engine.metadata`: for the model, and for the server's own name."""
    model, version = target.model, target.pinned_version
    if protocol == "grpc":
        server = Question(rpc.SERVER_METADATA, rpc.NO_FIELDS, lambda message: _server(rpc.read_server(message)))
        asked = rpc.about_model(model, version)
        return Question(rpc.MODEL_METADATA, asked, lambda message: _model(rpc.read_model(message)), (server,))
    server = Question(rest.SERVER, None, lambda body: _server(rest.read_server(body)))
    return Question(rest.model_path(model, version), None, lambda body: _model(rest.read_model(body)), (server,))


def _server(said: ServerMetadata) -> Description:
    return Description(server=f"{said.name} {said.version}".strip())


def _model(said: ModelMetadata) -> Description:
    return Description(inputs=_tensors(said.inputs), outputs=_tensors(said.outputs), versions=said.versions)


def _tensors(said: tuple[TensorMetadata, ...]) -> tuple[Tensor, ...]:
    return tuple(Tensor(one.name, datatypes.BY_NAME[one.datatype].numpy, one.shape) for one in said)
