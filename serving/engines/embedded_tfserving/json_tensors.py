"""REST's JSON: requests to numpy arrays, and answers back.

Two ways lead from a request to arrays. The fast one takes dense lists of the right types as a whole. Anything else
goes element by element, which gives the real server's message for the first fault (it walks the document in the same
order: tensorflow_serving/util/json_tensor.cc).
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import orjson

from serving.engines.embedded_tfserving import json_document, tensors
from serving.engines.embedded_tfserving.json_document import NOT_UTF8, shortened, shown, type_name
from serving.engines.embedded_tfserving.json_images import images
from serving.engines.embedded_tfserving.signature import Signature, TensorInfo
from serving.engines.embedded_tfserving.status import ServingError, invalid

INTEGER_BITS = {3: 32, 4: 32, 5: 32, 6: 32, 9: 64}  # signed; narrower types are read as int32 and wrap
UNSIGNED_BITS = {22: 32, 23: 64}
FLOATS = (1, 2)
BOOL = 10
MAX_RANK = 64  # numpy's arrays have no more

FindSignature = Callable[[str], Signature]
Parse = Callable[[bytes], Any]


def read(body: bytes, find: FindSignature) -> tuple[Signature, list[np.ndarray], bool]:
    """A predict request: its signature, the inputs in the signature's order, and whether it is in row format.

    `find` gives a signature by name. Raises `ServingError`.
    """
    fast = images(body, find)
    if fast is not None:
        return fast[0], [fast[1]], True
    return read_any(body, find)


def read_any(
    body: bytes, find: FindSignature, parse: Parse = json_document.parse
) -> tuple[Signature, list[np.ndarray], bool]:
    """As `read`, without a look for the ordinary case first; raises what ``parse`` raises, too."""
    try:
        return _read(body, find, parse)
    except RecursionError:
        raise invalid("The request's body is nested too deeply") from None


def _read(body: bytes, find: FindSignature, parse: Parse) -> tuple[Signature, list[np.ndarray], bool]:
    document, name = _request(parse(body))
    signature = find(name)
    if "instances" in document and "inputs" in document:
        raise _format_error(
            document, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        )
    if "instances" in document:
        instances = document["instances"]
        if not isinstance(instances, list):
            raise _format_error(document, "Expecting 'instances' to be an list/array")
        if not instances:
            raise _format_error(document, "No values in 'instances' array")
        return signature, _rows(instances, signature), True
    if "inputs" in document:
        return signature, _columns(document["inputs"], signature), False
    raise invalid("Missing 'inputs' or 'instances' key")


def _request(document: Any) -> tuple[dict[str, object], str]:
    """A request's JSON object and the signature that it names, if any; raises `ServingError`."""
    if not isinstance(document, dict):
        raise _format_error(document, "Is not object")
    name = document.get("signature_name", "")
    if not isinstance(name, str):
        raise _format_error(document, "not formatted correctly. 'signature_name' key must be a string value.")
    return document, name


def _format_error(value: Any, reason: str) -> ServingError:
    """What is wrong with a value as a whole."""
    return invalid(f"JSON Value: {shown(value)} {reason}")


def _rows(instances: list[Any], signature: Signature) -> list[np.ndarray]:
    named = _is_named(instances[0])
    if not named:
        if len(signature.inputs) > 1:
            raise invalid(
                "instances is a plain list, but expecting list of objects as multiple input tensors required "
                "as per tensorinfo_map"
            )
        dense = _dense(instances, signature.inputs[0])
        return [dense] if dense is not None else _rows_one_by_one(instances, signature, named)
    arrays = []
    for info in signature.inputs:
        dense = None
        if all(type(item) is dict and item.keys() == signature.input_names for item in instances):
            dense = _dense([item[info.alias] for item in instances], info)
        if dense is None:
            return _rows_one_by_one(instances, signature, named)
        arrays.append(dense)
    return arrays


def _rows_one_by_one(instances: list[Any], signature: Signature, named: bool) -> list[np.ndarray]:
    by_alias = {info.alias: info for info in signature.inputs}
    values: dict[str, list[Any]] = {alias: [] for alias in by_alias}
    shapes: dict[str, tuple[int, ...]] = {}
    for number, instance in enumerate(instances):
        where = f"Failed to process element: {number}"
        if _is_named(instance) != named:
            expected = "object but got list" if named else "value/list but got object"
            raise invalid(f"Expecting {expected} at item {number} of input list")
        items = instance.items() if named else [(signature.inputs[0].alias, instance)]
        for alias, item in items:
            try:
                if alias not in by_alias:
                    raise invalid(f"JSON object: does not have named input: {shortened(alias)}")
                shape, flat = _flat(item, by_alias[alias])
                first = shapes.setdefault(alias, shape)
                if len(flat) != _size(first):
                    raise invalid(f"Expecting tensor size: {_size(first)} but got: {len(flat)}")
                if shape != first:
                    raise invalid(f"Expecting shape {_brackets(first)} but got: {_brackets(shape)}")
            except ServingError as error:
                key = f" key: {shortened(alias)}" if named else ""
                raise invalid(f"{where}{key} of 'instances' list. Error: {error}") from None
            values[alias] += flat
        if named and instance.keys() != by_alias.keys():
            keys = ",".join(sorted(by_alias))
            raise invalid(f"{where} of 'instances' list. JSON object: {shown(instance)} keys must be equal to: {keys}")
    return [_array(values[alias], (len(instances), *shapes[alias]), info) for alias, info in by_alias.items()]


def _columns(inputs: Any, signature: Signature) -> list[np.ndarray]:
    if not _is_named(inputs):
        if len(signature.inputs) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        return [_tensor(inputs, signature.inputs[0])]
    for info in signature.inputs:
        if info.alias not in inputs:
            raise invalid(f"Missing named input: {info.alias} in 'inputs' object.")
    return [_tensor(inputs[info.alias], info) for info in signature.inputs]


def _tensor(value: Any, info: TensorInfo) -> np.ndarray:
    dense = _dense(value, info) if isinstance(value, list) else None
    if dense is not None:
        return dense
    shape, flat = _flat(value, info)
    return _array(flat, shape, info)


def _is_named(value: Any) -> bool:
    """An object of named inputs, rather than one `{"b64": "..."}` value."""
    return isinstance(value, dict) and not _is_base64(value)


def _is_base64(value: Any) -> bool:
    """Whether an object stands for bytes."""
    return isinstance(value, dict) and len(value) == 1 and isinstance(value.get("b64"), str)


def _dense(value: list[Any], info: TensorInfo) -> np.ndarray | None:
    """A list of lists as an array, or None when it must be taken element by element."""
    shape: list[int] = []
    level: list[Any] = [value]
    while level and type(level[0]) is list:
        size = len(level[0])
        for item in level:
            if type(item) is not list or len(item) != size:
                return None
        shape.append(size)
        level = list(chain.from_iterable(level))
    kinds = set(map(type, level))
    try:
        if info.dtype in FLOATS and kinds <= {int, float}:
            return _array(level, tuple(shape), info)
        if info.dtype in INTEGER_BITS and kinds <= {int}:
            wide = np.array(level, np.int64)
            limit = 2 ** (INTEGER_BITS[info.dtype] - 1)
            if wide.size and (wide.min() < -limit or wide.max() > limit - 1):
                return None
            return wide.astype(tensors.TYPES[info.dtype][0]).reshape(shape)
        if info.dtype == tensors.STRING and kinds <= {str}:
            return _array([item.encode("utf-8", NOT_UTF8) for item in level], tuple(shape), info)
    except (OverflowError, ValueError):
        pass
    return None


def _flat(value: Any, info: TensorInfo) -> tuple[tuple[int, ...], list[Any]]:
    """The shape of a value, taken from its first elements, and its leaves; raises `ServingError` at the first leaf
    or list that does not fit."""
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    flat: list[Any] = []
    _fill(value, 0, tuple(shape), info.dtype, flat)
    return tuple(shape), flat


def _fill(value: Any, level: int, shape: tuple[int, ...], dtype: int, flat: list[Any]) -> None:
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {shown(value)} found at incorrect level: {level + 1} in the JSON DOM. "
                f"Expected at level: {len(shape)}"
            )
        flat.append(_leaf(value, dtype))
        return
    if level >= len(shape):
        raise invalid(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: {shape[level]}"
        )
    if level == len(shape) - 1 and _all_fit(value, dtype):
        flat += value
        return
    for item in value:
        _fill(item, level + 1, shape, dtype, flat)


def _all_fit(values: list[Any], dtype: int) -> bool:
    """Whether leaves can be taken as they are, without a look at each."""
    kinds = set(map(type, values))
    if dtype in INTEGER_BITS and kinds == {int}:
        limit = 2 ** (INTEGER_BITS[dtype] - 1)
        return bool(-limit <= min(values) and max(values) < limit)
    return dtype in FLOATS and kinds <= {int, float}


def _leaf(value: Any, dtype: int) -> Any:
    kind = type(value)
    if dtype in FLOATS:
        fits = kind in (int, float)
    elif dtype in INTEGER_BITS:
        limit = 2 ** (INTEGER_BITS[dtype] - 1)
        fits = kind is int and -limit <= value < limit
    elif dtype in UNSIGNED_BITS:
        fits = kind is int and 0 <= value < 2 ** UNSIGNED_BITS[dtype]
    elif dtype == BOOL:
        fits = kind is bool
    elif dtype == tensors.STRING:
        if kind is dict:
            return _decode_base64(value)
        fits = kind is str
    else:
        raise invalid(f"Conversion of JSON Value: {shown(value)} to type: {tensors.type_name(dtype)}")
    if not fits:
        raise invalid(
            f"JSON Value: {shown(value)} Type: {type_name(value)} is not of expected type: {tensors.type_name(dtype)}"
        )
    return value.encode("utf-8", NOT_UTF8) if dtype == tensors.STRING else value


def _decode_base64(value: Any) -> bytes:
    """The bytes of `{"b64": "..."}`; raises `ServingError`."""
    if not _is_base64(value):
        raise invalid(f"JSON Value: {shown(value)} not formatted correctly for base64 data")
    text = value["b64"]
    try:
        return _unpacked(text)
    except ValueError:
        pass
    try:  # blanks are skipped, wherever they are
        return _unpacked("".join(text.split()))
    except ValueError:
        raise invalid("Unable to base64 decode") from None


def _unpacked(text: str) -> bytes:
    """The bytes of base64 with or without its padding; raises `ValueError`."""
    digits = text.rstrip("=")
    return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)


def _array(flat: list[Any], shape: tuple[int, ...], info: TensorInfo) -> np.ndarray:
    if len(shape) > MAX_RANK or info.dtype not in tensors.TYPES:
        raise invalid(f"tensor parsing error: {info.alias}")
    dtype = tensors.TYPES[info.dtype][0]
    if dtype.kind == "O" and len(shape) > tensors.MAX_STRING_RANK:
        raise invalid(f"tensor parsing error: {info.alias}")
    if dtype.kind == "O":
        return np.array([*flat, b""], object)[: len(flat)].reshape(shape)
    if info.dtype in INTEGER_BITS:
        return np.array(flat, np.int64).astype(dtype).reshape(shape)
    with np.errstate(over="ignore"):
        return np.array(flat, np.float64 if info.dtype in FLOATS else dtype).astype(dtype).reshape(shape)


def _size(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count


def _brackets(shape: tuple[int, ...]) -> str:
    return "[" + ",".join(map(str, shape)) + "]"


def write(signature: Signature, outputs: list[np.ndarray], row_format: bool) -> bytes:
    """A predict answer; a single output drops its name. Raises `ServingError`."""
    columns = {info.alias: _jsonable(info, array) for info, array in zip(signature.outputs, outputs, strict=True)}
    if not row_format:
        content: Any = {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    elif len(columns) == 1:
        if not outputs[0].ndim:
            raise invalid(f"Tensor name: {signature.outputs[0].alias} has no shape information ")
        content = {"predictions": next(iter(columns.values()))}
    else:
        rows = len(outputs[0]) if outputs[0].ndim else -1
        for info, array in zip(signature.outputs, outputs, strict=True):
            if not array.ndim:
                raise invalid(f"Tensor name: {info.alias} has no shape information ")
            if len(array) != rows:
                raise invalid(f"Tensor name: {info.alias} has inconsistent batch size: {len(array)} expecting: {rows}")
            if isinstance(columns[info.alias], orjson.Fragment):
                columns[info.alias] = [_jsonable(info, row) for row in array]
        content = {"predictions": [{alias: column[row] for alias, column in columns.items()} for row in range(rows)]}
    return orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)


def _finite(array: np.ndarray) -> bool:
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _jsonable(info: TensorInfo, array: np.ndarray) -> Any:
    """What orjson writes as TensorFlow Serving does: strings become base64 where the output's name ends in `_bytes`;
    numbers stay an array, with NaN and Infinity among them a piece of JSON."""
    if info.dtype == tensors.STRING:
        if info.alias.endswith("_bytes"):
            return _map(array.tolist(), lambda value: {"b64": base64.b64encode(value).decode()})
        return _map(array.tolist(), lambda value: value.decode("utf-8", "replace"))
    if not array.size:
        return array.tolist()  # orjson takes no array without values
    if not _finite(array):
        return orjson.Fragment(_with_constants(array))
    return np.ascontiguousarray(array) if array.ndim else array[()]


def _with_constants(array: np.ndarray) -> bytes:
    """The JSON of numbers some of which JSON does not know: where orjson writes null, what it stands for."""
    flat = np.atleast_1d(array)
    between = orjson.dumps(np.ascontiguousarray(flat), option=orjson.OPT_SERIALIZE_NUMPY).split(b"null")
    constants = [
        b"NaN" if math.isnan(value) else b"Infinity" if value > 0 else b"-Infinity"
        for value in flat[~np.isfinite(flat)].tolist()
    ]
    text = b"".join([part for pair in zip(between, [*constants, b""], strict=True) for part in pair])
    return text if array.ndim else text[1:-1]


def _map(value: Any, change: Callable[[bytes], Any]) -> Any:
    return [_map(item, change) for item in value] if isinstance(value, list) else change(value)
