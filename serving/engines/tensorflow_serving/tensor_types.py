"""TensorFlow's tensor types by number and name, and where a message holds their values one by one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from serving.wire import bfloat16
from serving.wire.protobuf import tensorflow_serving_pb2 as messages

BFLOAT16 = "bfloat16"
BYTES = "bytes"


class TensorType(NamedTuple):
    """number, name  of ``tensorflow.DataType``
    datatype      as `Tensor.datatype`
    field         of TensorProto, that holds values one by one
    """

    number: int
    name: str
    datatype: str
    field: str


# https://github.com/tensorflow/tensorflow/blob/master/tensorflow/core/framework/types.proto and tensor.proto
TYPES = (
    TensorType(1, "DT_FLOAT", "float32", "float_val"),
    TensorType(2, "DT_DOUBLE", "float64", "double_val"),
    TensorType(3, "DT_INT32", "int32", "int_val"),
    TensorType(4, "DT_UINT8", "uint8", "int_val"),
    TensorType(5, "DT_INT16", "int16", "int_val"),
    TensorType(6, "DT_INT8", "int8", "int_val"),
    TensorType(7, "DT_STRING", BYTES, "string_val"),
    TensorType(9, "DT_INT64", "int64", "int64_val"),
    TensorType(10, "DT_BOOL", "bool", "bool_val"),
    TensorType(14, "DT_BFLOAT16", BFLOAT16, "half_val"),
    TensorType(17, "DT_UINT16", "uint16", "int_val"),
    TensorType(19, "DT_HALF", "float16", "half_val"),
    TensorType(22, "DT_UINT32", "uint32", "uint32_val"),
    TensorType(23, "DT_UINT64", "uint64", "uint64_val"),
)
BY_NUMBER = {one.number: one for one in TYPES}
BY_NAME = {one.name: one for one in TYPES}
BY_DATATYPE = {one.datatype: one for one in TYPES}


def encode(samples: np.ndarray, datatype: str) -> messages.TensorProto:
    """A tensor of ``samples`` as a message; ``datatype``: as `Tensor.datatype`. ValueError where TensorFlow has no such
    type."""
    known = BY_DATATYPE.get(datatype)
    if known is None:
        raise ValueError(f"TensorFlow Serving takes no {datatype}")
    shape = messages.TensorShapeProto(dim=[{"size": size} for size in samples.shape])
    tensor = messages.TensorProto(dtype=known.number, tensor_shape=shape)  # type: ignore[arg-type]
    if datatype == BYTES:
        tensor.string_val.extend(samples.ravel().tolist())
    elif datatype == BFLOAT16:
        tensor.half_val.extend(bfloat16.bits(samples).ravel().tolist())
    else:
        tensor.tensor_content = samples.tobytes()
    return tensor


def decode(tensor: messages.TensorProto, where: str) -> np.ndarray:
    """The values of an answer's tensor, in its shape; bytes as objects. ValueError that names ``where`` and field."""
    known = BY_NUMBER.get(tensor.dtype)
    if known is None:
        raise ValueError(f"{where}.dtype: {tensor.dtype} is no type that a tensor of values has")
    shape = tuple(dim.size for dim in tensor.tensor_shape.dim)
    if any(size < 0 for size in shape):
        raise ValueError(f"{where}.tensor_shape: {shape} is no shape of values")
    values = _content(tensor, known, where) if tensor.tensor_content else _one_by_one(tensor, known, where)
    if values.size != np.prod(shape, dtype=object):
        raise ValueError(f"{where}.tensor_shape: {shape} has the wrong number of values, {values.size} came")
    return values.reshape(shape)


def _content(tensor: messages.TensorProto, known: TensorType, where: str) -> np.ndarray:
    if known.datatype == BYTES:
        raise ValueError(f"{where}.tensor_content: strings are not sent in it")
    dtype = np.dtype("<u2" if known.datatype == BFLOAT16 else known.datatype).newbyteorder("<")
    if len(tensor.tensor_content) % dtype.itemsize:
        raise ValueError(f"{where}.tensor_content: {len(tensor.tensor_content)} bytes are no whole {known.datatype}")
    values = np.frombuffer(tensor.tensor_content, dtype)
    return bfloat16.floats(values) if known.datatype == BFLOAT16 else values


def _one_by_one(tensor: messages.TensorProto, known: TensorType, where: str) -> np.ndarray:
    values = list(getattr(tensor, known.field))
    if known.datatype == BYTES:
        found = np.empty(len(values), object)
        found[:] = values
        return found
    try:
        if known.field != "half_val":
            return np.array(values, known.datatype)
        bits = np.array(values, np.uint16)
    except OverflowError:
        raise ValueError(f"{where}.{known.field}: a value is out of {known.datatype}'s range") from None
    return bfloat16.floats(bits) if known.datatype == BFLOAT16 else bits.view(np.float16)
