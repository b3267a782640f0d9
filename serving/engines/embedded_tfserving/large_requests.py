"""PredictRequests and their answers that take long to decode or to encode, for a `SideProcess`: numbers in the typed
fields of a TensorProto are a Python object each. Imports no TensorFlow: the process should start in no time.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from google.protobuf.message import DecodeError

from serving.engines.embedded_tfserving import tensors
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code
from serving.wire.protobuf.tensorflow_serving_pb2 import PredictRequest

# What is handled on the event loop at most: bytes of a request to parse (gRPC's usual limit), and values outside
# tensor_content to decode or to encode, for about 10 ms.
PARSED_AT_ONCE = 2**22
VALUES_AT_ONCE = 2**16


class Input(NamedTuple):
    """A decoded TensorProto: its DataType, and its values, or why it has none."""

    dtype: int
    array: np.ndarray | None
    refusal: tuple[Code, str] | None

    def values(self) -> np.ndarray:
        """Raises `ServingError`."""
        if self.refusal is not None:
            raise ServingError(*self.refusal)
        assert self.array is not None
        return self.array


Inputs = dict[str, Input]
Outputs = list[tuple[str, np.ndarray, int]]
"""Alias, values and DataType of each."""


def takes_long(request: Any) -> bool:
    """Whether the inputs of a PredictRequest hold so many values that they should not be decoded on the event loop."""
    return sum(map(tensors.objects_in, request.inputs.values())) > VALUES_AT_ONCE


def decode(message: bytes) -> tuple[bytes, Inputs]:
    """A PredictRequest without its inputs, and those, decoded; raises `ServingError`."""
    try:
        request = PredictRequest.FromString(message)
    except DecodeError:
        raise ServingError(Code.INTERNAL, "") from None
    inputs = {alias: _input(proto, alias) for alias, proto in request.inputs.items()}
    request.ClearField("inputs")
    return request.SerializeToString(), inputs


def _input(proto: Any, alias: str) -> Input:
    try:
        return Input(proto.dtype, tensors.decode(proto, alias), None)
    except ServingError as error:
        return Input(proto.dtype, None, (error.code, error.message))


def encoding_takes_long(outputs: Outputs, as_content: bool) -> bool:
    """Whether outputs hold so many values that they should not be encoded on the event loop."""
    values = 0
    for _, array, dtype in outputs:
        values += 0 if tensors.encoded_as_stored(dtype, as_content) else array.size
    return values > VALUES_AT_ONCE


def encode(outputs: Outputs, as_content: bool) -> bytes:
    """The entries of a PredictResponse's ``outputs``; see `tensors.encode`."""
    return b"".join([tensors.encode(alias, array, dtype, as_content=as_content) for alias, array, dtype in outputs])
