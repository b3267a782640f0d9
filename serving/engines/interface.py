"""What a model takes and gives, as its target describes it: samples in the inputs' shapes, answers as rows of values.

Samples are an array [N, …] for a model's only input. For several, or where the user names them, it is a structured
array [N] with a field for each input, called like it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from models.encoding import INPUT as ENCODED_INPUT
from models.encoding import Encoding
from serving.engines.engine import Tensor

if TYPE_CHECKING:
    from serving.target import Target

INPUT = "images"
OUTPUT = "probabilities"


@dataclass(frozen=True)
class Carried:
    """An input in a request: its name, its type as `Tensor.datatype`, and values in the shape that it takes."""

    name: str
    datatype: str
    values: np.ndarray


def of_input(target: Target, samples: np.ndarray) -> np.ndarray:
    """``samples`` [N, …] as the target's model takes them, in the shape of its only input, or of a field for each of
    its inputs; ValueError where it does not take them."""
    if samples.dtype.names:
        _fields(target, samples)
        return samples
    if target.encoding is not Encoding.NONE:
        if samples.dtype.kind not in "OS" or samples.ndim != 1 or not len(samples):
            raise ValueError(
                f"samples are {samples.dtype} {samples.shape}; {target.model} takes {target.encoding} files, bytes (N,)"
            )
        return samples
    if not target.inputs and not target.classes and len(samples):  # nobody says what it takes
        if target.input_shape and samples.shape[1:] != target.input_shape:
            raise ValueError(f"samples are {samples.shape}; {target.model} takes (N, {target.input_shape})")
        return _native(samples)
    if not target.inputs:
        wanted = samples.dtype == np.uint8 and samples.ndim == 4 and samples.shape[1:] == target.input_shape
        if not wanted or not len(samples):
            raise ValueError(
                f"images are {samples.dtype} {samples.shape}; {target.model} takes uint8 (N, {target.input_shape})"
            )
        return _native(samples)
    if len(target.inputs) > 1:
        raise ValueError(
            f"{target.model} takes {len(target.inputs)} inputs ({_names(target)}): give a value for each, by name"
        )
    return _taken(target.inputs[0], samples, target.model)


def carried(target: Target, samples: np.ndarray) -> list[Carried]:
    """Each input with the values of ``samples``, as `of_input` returns them."""
    if samples.dtype.names:
        return _fields(target, samples)
    if target.encoding is not Encoding.NONE:
        return [Carried(ENCODED_INPUT, "bytes", samples)]
    if target.inputs:
        return [Carried(target.inputs[0].name or INPUT, target.inputs[0].datatype, samples)]
    return [Carried(INPUT, _datatype(samples), samples)]


def _fields(target: Target, samples: np.ndarray) -> list[Carried]:
    """Of a structured array, in its order."""
    known, given = {one.name: one for one in target.inputs}, samples.dtype.names or ()
    if not len(samples):
        raise ValueError(f"samples are {samples.shape}; {target.model} takes one at least")
    if known and set(given) != set(known):
        raise ValueError(f"samples have values for {', '.join(given)}; {target.model} takes {_names(target)}")
    found = []
    for name in given:
        values = np.ascontiguousarray(samples[name])
        tensor = known.get(name)
        if tensor is None:
            found.append(Carried(name, _datatype(values), _native(values)))
        else:
            found.append(Carried(name, tensor.datatype, _taken(tensor, values, target.model)))
    return found


def _names(target: Target) -> str:
    return ", ".join(one.name for one in target.inputs)


def _datatype(samples: np.ndarray) -> str:
    return "bytes" if samples.dtype.kind in "OS" else samples.dtype.name


def _taken(tensor: Tensor, samples: np.ndarray, model: str) -> np.ndarray:
    if not samples.ndim or not len(samples):
        raise ValueError(f"samples are {samples.shape}; {model} takes one at least")
    if not _of_type(samples.dtype, tensor.datatype):
        raise ValueError(f"samples are {samples.dtype}; {model} takes {tensor.datatype} {tensor.name!r}")
    return _in_shape(_native(samples), tensor, model)


def _native(samples: np.ndarray) -> np.ndarray:
    return samples.astype(samples.dtype.newbyteorder("="), copy=False)


def _of_type(dtype: np.dtype, datatype: str) -> bool:
    if datatype == "bytes":
        return dtype.kind in "OS"
    return dtype.name == ("float32" if datatype == "bfloat16" else datatype)


def _in_shape(samples: np.ndarray, tensor: Tensor, model: str) -> np.ndarray:
    if not tensor.shape or _fits(samples.shape, tensor.shape):
        return samples
    if len(samples) == 1 and _fits(samples.shape[1:], tensor.shape):  # a model without a batch
        return samples.reshape(samples.shape[1:])
    if samples.ndim == 1 and all(size in (1, -1) for size in tensor.shape[1:]):  # one string a sample
        return samples.reshape(len(samples), *[1] * (len(tensor.shape) - 1))
    raise ValueError(f"samples are {samples.shape}; {model} takes {tensor.shape} {tensor.name!r}")


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(b in (-1, a) for a, b in zip(shape, wanted, strict=True))


def rows(target: Target, values: np.ndarray) -> np.ndarray:
    """An output's ``values`` as [N, values]: float32, or bytes where they are no numbers; N is 1 where the model takes
    no batches."""
    batched = len(target.inputs) != 1 or len(target.inputs[0].shape) != len(target.input_shape)
    if not batched or not values.ndim:
        values = values.reshape(1, -1)
    else:
        values = values.reshape(len(values), -1) if values.size else values.reshape(len(values), 0)
    return values.astype("S") if values.dtype.kind == "O" else values.astype(np.float32, copy=False)


def judged(target: Target) -> str:
    """The output that counts, as far as it is known before an answer: the one that the user names, else the first that
    the server describes; else empty."""
    return target.output or (target.outputs[0].name if target.outputs else "")


def output(target: Target, names: Sequence[str]) -> str:
    """Which of an answer's outputs counts: the one that is `judged`, else `OUTPUT`, else the first. ValueError where
    it is not there."""
    if wanted := judged(target):
        if wanted not in names:
            raise ValueError(f"the answer has the outputs {', '.join(names) or 'none'}, not {wanted!r}")
        return wanted
    if not names:
        raise ValueError("the answer has no outputs")
    return OUTPUT if OUTPUT in names else names[0]
