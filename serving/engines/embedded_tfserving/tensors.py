"""TensorProto to numpy and back.

Answers are encoded by hand: with numpy the packed floats of an answer are one copy, through the message class they
are one Python object a number.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from serving.engines.embedded_tfserving.status import ServingError, invalid

# DataType number -> (numpy type, the runtime's name for it, the TensorProto field of its values).
TYPES: dict[int, tuple[np.dtype[Any], str, str]] = {
    1: (np.dtype(np.float32), "float", "float_val"),
    2: (np.dtype(np.float64), "double", "double_val"),
    3: (np.dtype(np.int32), "int32", "int_val"),
    4: (np.dtype(np.uint8), "uint8", "int_val"),
    5: (np.dtype(np.int16), "int16", "int_val"),
    6: (np.dtype(np.int8), "int8", "int_val"),
    7: (np.dtype(object), "string", "string_val"),
    9: (np.dtype(np.int64), "int64", "int64_val"),
    10: (np.dtype(bool), "bool", "bool_val"),
    17: (np.dtype(np.uint16), "uint16", "int_val"),
    19: (np.dtype(np.float16), "half", "half_val"),
    22: (np.dtype(np.uint32), "uint32", "uint32_val"),
    23: (np.dtype(np.uint64), "uint64", "uint64_val"),
}
STRING = 7
# Types that the runtime reads and no array here holds, with its names for them. Not DT_RESOURCE (20): a tensor of that
# type ends the real server.
NOT_HELD = {
    8: "complex64",
    11: "qint8",
    12: "quint8",
    13: "qint32",
    14: "bfloat16",
    15: "qint16",
    16: "quint16",
    18: "complex128",
    21: "variant",
}
# The runtime's bound on dimensions (TensorShape::MaxDimensions); numpy's is 64.
MAX_RANK = 254
# numpy's iterator, by which TensorFlow takes strings, has half of that; beyond it the process ends (seen in 2.21).
MAX_STRING_RANK = 32
# One value may stand for a whole tensor; this bounds what a short message can make us allocate.
MAX_FILLED_BYTES = 2**26


def type_name(number: int) -> str:
    """The runtime's name of a DataType, as its messages write it."""
    return TYPES[number][1] if number in TYPES else NOT_HELD.get(number, f"type {number}")


def decode(proto: Any, alias: str) -> np.ndarray:
    """A TensorProto's values; strings become an array of `bytes` objects, types that are not held one without values.

    The rules are the runtime's (tensorflow/core/framework/tensor.cc, FromProto): `tensor_content` must have exactly
    the tensor's size; of repeated values the last one fills the rest, and none at all mean zeros.
    Raises `ServingError`.
    """
    known = TYPES.get(proto.dtype)
    if len(proto.tensor_shape.dim) > MAX_RANK:
        raise _malformed(alias)
    shape = tuple([dim.size for dim in proto.tensor_shape.dim])
    content = proto.tensor_content
    count = 1
    for size in shape:
        count *= size
    if min(shape, default=0) < 0 or (known is None and proto.dtype not in NOT_HELD):
        raise _malformed(alias)
    if known is None:  # its values do not matter: no input is of that type
        return np.empty(0, np.uint8)
    dtype, _, field = known
    try:
        if dtype.kind == "O" and len(shape) > MAX_STRING_RANK:
            raise _malformed(alias)
        if content:
            values = np.frombuffer(content, dtype) if dtype.kind != "O" else _strings(content, count)
            return values.reshape(shape)
        values = getattr(proto, field)[:count]
        if len(values) < count and count * dtype.itemsize > MAX_FILLED_BYTES:
            raise _malformed(alias)
        if dtype.kind == "O":
            return _filled(np.array([*values, b""], object)[: len(values)], count, dtype, b"").reshape(shape)
        if field == "half_val":
            return _filled(np.array(values, np.uint16).view(np.float16), count, dtype, 0).reshape(shape)
        wide = np.int64 if field == "int_val" else dtype
        return _filled(np.array(values, wide).astype(dtype), count, dtype, 0).reshape(shape)
    except (OverflowError, ValueError):  # content of another size, a number too large, more dimensions than numpy has
        raise _malformed(alias) from None


def objects_in(proto: Any) -> int:
    """How many values of a TensorProto `decode` takes one by one: those in its typed field, and strings."""
    known = TYPES.get(proto.dtype)
    if known is None:
        return 0
    dtype, _, field = known
    return len(getattr(proto, field)) + (len(proto.tensor_content) if dtype.kind == "O" else 0)


def _strings(content: bytes, count: int) -> np.ndarray:
    """Strings in `tensor_content`: the size of each as a varint, then all their bytes, and nothing else
    (tensorflow/core/platform/tensor_coding.cc, DecodeStringList). Raises `ValueError`."""
    if count > len(content):  # every size takes a byte
        raise ValueError("fewer bytes than strings")
    sizes, at = [], 0
    for _ in range(count):
        size = shift = 0
        while True:
            if at == len(content) or shift > 28:
                raise ValueError("a size is cut off, or has more than 32 bits")
            byte = content[at]
            size |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                break
        sizes.append(size)
    if at + sum(sizes) != len(content):
        raise ValueError("the sizes are not those of the bytes")
    strings = np.empty(count, object)
    for number, size in enumerate(sizes):
        strings[number] = content[at : at + size]
        at += size
    return strings


def _malformed(alias: str) -> ServingError:
    return invalid(f"tensor parsing error: {alias}")


def _filled(values: np.ndarray, count: int, dtype: np.dtype[Any], zero: Any) -> np.ndarray:
    if len(values) == count:
        return values
    full = np.full(count, values[-1] if len(values) else zero, dtype)
    full[: len(values)] = values
    return full


def varint(number: int) -> bytes:
    """A protobuf varint; negative numbers as 64-bit two's complement."""
    if 0 <= number < 128:
        return SMALL[number]
    number &= 2**64 - 1
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    parts.append(number)
    return bytes(parts)


SMALL = [bytes((number,)) for number in range(128)]


def field(number: int, payload: bytes) -> bytes:
    """A length-delimited protobuf field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


# The TensorProto field of the packed values, by DataType: those whose wire form is their memory, and varints.
PACKED_AS_STORED = {1: 5, 2: 6, 10: 11}
PACKED_AS_VARINTS = {3: 7, 4: 7, 5: 7, 6: 7, 17: 7, 9: 10, 19: 13, 22: 16, 23: 17}


def encode(alias: str, array: np.ndarray, number: int, *, as_content: bool = False) -> bytes:
    """One entry of a PredictResponse's `outputs`: the alias and a TensorProto of DataType `number`, its values in the
    typed field as the real server sends them, or in `tensor_content`."""
    if array.size and encoded_as_stored(number, as_content):
        values_field = 4 if as_content else PACKED_AS_STORED[number]
        return _before_values(alias, number, array.shape, values_field, array.nbytes) + array.tobytes()
    if number == STRING:
        values = b"".join([field(8, value) for value in array.ravel().tolist()])
    elif array.size:
        numbers = (array.view(np.uint16) if number == 19 else array).ravel().tolist()
        values = field(PACKED_AS_VARINTS[number], b"".join([varint(value) for value in numbers]))
    else:
        values = b""
    return _entry(alias, b"\x08" + varint(number) + _shape(array.shape), values)


def encoded_as_stored(number: int, as_content: bool) -> bool:
    """Whether `encode` copies the memory of an array of this DataType as it is."""
    return number in PACKED_AS_STORED or (as_content and number != STRING)


def _shape(shape: tuple[int, ...]) -> bytes:
    return field(2, b"".join([field(2, b"\x08" + varint(size) if size else b"") for size in shape]))


def _entry(alias: str, start: bytes, values: bytes) -> bytes:
    return field(1, field(1, alias.encode()) + field(2, start + values))


@lru_cache(maxsize=1024)
def _before_values(alias: str, number: int, shape: tuple[int, ...], values_field: int, size: int) -> bytes:
    """All of an entry but its last `size` bytes, the values: the same for every answer of this shape."""
    start = b"\x08" + varint(number) + _shape(shape)
    return _entry(alias, start, field(values_field, bytes(size)))[:-size]
