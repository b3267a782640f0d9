"""The protocol's tensor types: their names, and tensors as raw bytes or as a list of values and back.

Raw, as in ``raw_input_contents`` and in the binary-data extension: little-endian, row-major, no padding; BOOL one byte
a value; BYTES a 4-byte length before each value; BF16, which numpy lacks, from and to float32.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from serving.wire import bfloat16


class Datatype(NamedTuple):
    """name: the protocol's; numpy: of one value ("bfloat16" and "bytes", which numpy lacks); contents: the field of
    InferTensorContents that holds such values, empty where they are only sent raw"""

    name: str
    numpy: str
    contents: str


DATATYPES = (
    Datatype("BOOL", "bool", "bool_contents"),
    Datatype("UINT8", "uint8", "uint_contents"),
    Datatype("UINT16", "uint16", "uint_contents"),
    Datatype("UINT32", "uint32", "uint_contents"),
    Datatype("UINT64", "uint64", "uint64_contents"),
    Datatype("INT8", "int8", "int_contents"),
    Datatype("INT16", "int16", "int_contents"),
    Datatype("INT32", "int32", "int_contents"),
    Datatype("INT64", "int64", "int64_contents"),
    Datatype("FP16", "float16", ""),
    Datatype("BF16", "bfloat16", ""),
    Datatype("FP32", "float32", "fp32_contents"),
    Datatype("FP64", "float64", "fp64_contents"),
    Datatype("BYTES", "bytes", "bytes_contents"),
)
BY_NAME = {one.name: one for one in DATATYPES}
_OF_NUMPY = {one.numpy: one.name for one in DATATYPES}
BF16, BYTES = "BF16", "BYTES"
_LENGTH = struct.Struct("<I")
# numpy's kinds of what JSON numbers may become, by the kind of the type that they stand for.
_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}


def named(numpy_name: str) -> str:
    """ "float32" → "FP32"; ValueError where the protocol has no such type."""
    if numpy_name not in _OF_NUMPY:
        raise ValueError(f"the Open Inference Protocol has no type for {numpy_name}")
    return _OF_NUMPY[numpy_name]


def known(name: str, where: str) -> Datatype:
    """The type of this name in the protocol; ValueError that names ``where`` it stands."""
    if name not in BY_NAME:
        raise ValueError(f"{where}: {name!r} is no datatype of the Open Inference Protocol")
    return BY_NAME[name]


def to_raw(values: np.ndarray, datatype: str) -> bytes:
    """The raw bytes of a tensor of this type of the protocol."""
    if datatype == BYTES:
        return b"".join(_LENGTH.pack(len(one)) + one for one in values.ravel().tolist())
    if datatype == BF16:
        return bfloat16.bits(values).astype("<u2").tobytes()
    return np.ascontiguousarray(values, np.dtype(BY_NAME[datatype].numpy).newbyteorder("<")).tobytes()


def from_raw(content: bytes | memoryview, datatype: str, shape: Sequence[int], where: str) -> np.ndarray:
    """The inverse, of an answer: in its shape, read-only. ValueError that names ``where``, if the size is another."""
    if datatype == BYTES:
        return _in_shape(_strings(bytes(content), where), shape, where)
    dtype = np.dtype("<u2") if datatype == BF16 else np.dtype(BY_NAME[datatype].numpy).newbyteorder("<")
    count = math.prod(shape)
    if len(content) != count * dtype.itemsize:
        raise ValueError(
            f"{where}: {len(content)} bytes of {datatype}, where shape {list(shape)} takes {count * dtype.itemsize}"
        )
    if dtype.kind == "b" and any(byte > 1 for byte in bytes(content)):
        raise ValueError(f"{where}: a BOOL is one byte, 0 or 1")
    values = np.frombuffer(content, dtype).reshape(shape)
    return bfloat16.floats(values) if datatype == BF16 else values.astype(dtype.newbyteorder("="), copy=False)


def _strings(content: bytes, where: str) -> np.ndarray:
    found: list[bytes] = []
    at = 0
    while at < len(content):
        end = at + _LENGTH.size
        size = _LENGTH.unpack_from(content, at)[0] if end <= len(content) else 0
        if end + size > len(content):
            raise ValueError(f"{where}: value {len(found)} of BYTES ends {end + size - len(content)} bytes too late")
        found.append(content[end : end + size])
        at = end + size
    return _objects(found)


def _objects(values: Sequence[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def from_values(values: Sequence[object], datatype: str, shape: Sequence[int], where: str) -> np.ndarray:
    """A tensor from its values, one by one (JSON: also nested): in its shape. ValueError that names ``where``, if a
    value is not of the type, or their number is another."""
    if datatype == BYTES:
        return _in_shape(_objects([_string(one, where) for one in _flat(values)]), shape, where)
    dtype = np.dtype("float32" if datatype == BF16 else BY_NAME[datatype].numpy)
    try:
        array = np.array(values)
        if dtype == np.uint64 and array.dtype.kind == "f":  # numpy's choice for small and large ones beside each other
            array = np.array(values, object)
    except ValueError:
        raise ValueError(f"{where}: lists of different lengths") from None
    if array.size and not _are(array, dtype):
        wrong = next((one for one in _flat(values) if not _are(np.array(one), dtype)), values)
        raise ValueError(f"{where}: {str(wrong)[:50]} is no {datatype}")
    with np.errstate(over="ignore"):
        return _in_shape(array.astype(dtype).ravel(), shape, where)


def _are(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether these are values of that type."""
    if array.dtype.kind == "O":
        if not all(type(one) is int for one in array.ravel().tolist()):
            return False
    elif array.dtype.kind not in _KINDS[dtype.kind]:
        return False
    if dtype.kind not in "iu":
        return True
    limits = np.iinfo(dtype)
    return int(array.min()) >= limits.min and int(array.max()) <= limits.max


def _flat(values: object) -> list[object]:
    if not isinstance(values, list):
        return [values]
    found, rest = [], values[::-1]
    while rest:
        one = rest.pop()
        if isinstance(one, list):
            rest.extend(reversed(one))
        else:
            found.append(one)
    return found


def _string(value: object, where: str) -> bytes:
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    if not isinstance(value, bytes):
        raise ValueError(f"{where}: {str(value)[:50]} is no string")
    return value


def _in_shape(values: np.ndarray, shape: Sequence[int], where: str) -> np.ndarray:
    if values.size != math.prod(shape):
        raise ValueError(f"{where}: {values.size} values, where shape {list(shape)} takes {math.prod(shape)}")
    return values.reshape(shape)
