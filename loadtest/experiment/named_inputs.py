"""Samples for models of several inputs: structured arrays [samples] with a field for each input, from .npz files or
random, and the shapes of one sample's values."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.problem import Problem
from serving.engines.engine import Tensor
from serving.reference_file import Array, Samples, structured
from serving.target import Target

_PAYLOADS = "inputs.payloads"
Shape = tuple[int, ...]


def shaped(target: Target, given: Mapping[str, Shape]) -> Target:
    """With the user's shapes of one sample's values in place of what its inputs leave open. Raises `Problem` for a
    shape that its input does not take, or an input that it does not have."""
    shapes = target.input_shapes or given
    names = [one.name for one in target.inputs]
    if len(names) == 1 and shapes:
        raise Problem(f"target.{target.name}.input_shapes: {target.model} takes one input, {names[0]}: use input_shape")
    if len(set(names)) < len(names):
        raise Problem(f"target.{target.name}: its server says that two inputs have one name: {', '.join(names)}")
    for name in shapes:
        if names and name not in names:
            raise Problem(
                f"target.{target.name}.input_shapes.{name}: no input of {target.model}, which has {', '.join(names)}"
            )
    inputs = tuple(_filled(one, shapes[one.name], target) if one.name in shapes else one for one in target.inputs)
    return replace(target, inputs=inputs, input_shape=(), input_shapes=dict(shapes))


def _filled(tensor: Tensor, wanted: Shape, target: Target) -> Tensor:
    if not tensor.shape:
        return replace(tensor, shape=(-1, *wanted))
    open_sizes = tensor.shape[len(tensor.shape) - len(wanted) :] if len(wanted) <= len(tensor.shape) else ()
    batch = tensor.shape[: len(tensor.shape) - len(wanted)]
    if len(open_sizes) != len(wanted) or len(batch) > 1 or not _fits(wanted, open_sizes):
        raise Problem(
            f"target.{target.name}.input_shapes.{tensor.name} = {list(wanted)}: the input is {list(tensor.shape)}, the "
            "batch first"
        )
    return replace(tensor, shape=(*batch, *wanted))


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(b in (-1, a) for a, b in zip(shape, wanted, strict=True))


def check_alike(targets: Sequence[Target]) -> None:
    """Raise `Problem` where some take several inputs, and not all take the same ones."""
    several = [one for one in targets if len(one.inputs) > 1]
    for one in targets:
        if several and _described(one) != _described(several[0]):
            raise Problem(
                f"target.{one.name}: takes {_words(one)}, and {several[0].name} {_words(several[0])}: compare servers "
                "that take the same inputs"
            )


def _described(target: Target) -> dict[str, Shape | None]:
    return {one.name: sample_shape(one) for one in target.inputs}


def _words(target: Target) -> str:
    return ", ".join(f"{one.name} {list(one.shape)}" for one in target.inputs)


def sample_shape(tensor: Tensor) -> Shape | None:
    """Of one sample's value, of an input among several; sizes that the server leaves open are -1; None: it says
    nothing."""
    if not tensor.shape:
        return None
    return tensor.shape[1:] if tensor.shape[0] in (-1, 1) else tensor.shape


def random(count: int, target: Target, draw: np.random.Generator) -> Array:
    """So many samples. Raises `Problem` where an input is of strings, or its shape is not known."""
    columns: dict[str, Array] = {}
    for tensor in target.inputs:
        if tensor.datatype == "bytes":
            raise Problem(
                f"{_PAYLOADS}: {target.model} takes strings or encoded images, as {tensor.name}: name .npz files"
            )
        shape = sample_shape(tensor)
        if shape is None or -1 in shape:
            raise Problem(
                f"target.{target.name}: what shape is a sample's {tensor.name} (the input is {list(tensor.shape)})? "
                f"Give input_shapes = {{ {tensor.name} = [SIZES] }}, or {_PAYLOADS}"
            )
        columns[tensor.name] = drawn(draw, tensor.datatype, (count, *shape))
    return structured(columns)


def drawn(draw: np.random.Generator, datatype: str, shape: Shape) -> Array:
    """Random values of a type as `Tensor.datatype` has it: floats from 0 to 1, whole numbers from 0 to 255, bytes
    any."""
    kind = np.dtype("float32" if datatype == "bfloat16" else datatype)
    if kind.kind == "f":
        return draw.random(shape).astype(kind)
    if kind.kind == "b":
        return draw.random(shape) < 0.5
    least, most = (np.iinfo(kind).min, np.iinfo(kind).max) if kind.itemsize == 1 else (0, 255)
    return draw.integers(least, most, shape, endpoint=True).astype(kind)


def names(file: Path, count: int) -> list[str]:
    """What a file's samples are called."""
    return [file.stem] if count == 1 else [f"{file.stem}-{number}" for number in range(count)]


def read(files: Sequence[Path], target: Target) -> Samples:
    """The samples of .npz files, each with one or several: an array for each of the target's inputs, called like it.
    Of a model with one input they are its values. Raises `Problem`."""
    pieces, called = [], []
    for file in files:
        columns = _columns(file, target)
        pieces.append(columns)
        called += names(file, len(next(iter(columns.values()))))
    kinds = {str({name: (one.dtype, one.shape[1:]) for name, one in sorted(piece.items())}) for piece in pieces}
    if len(kinds) > 1:
        raise Problem(f"{files[0].parent}: its files differ in names, shapes or types: {'; '.join(sorted(kinds))}")
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
    only = len(target.inputs) == 1
    return Samples(joined[target.inputs[0].name] if only else structured(joined), names=tuple(called))


def _columns(file: Path, target: Target) -> dict[str, Array]:
    """A file's arrays as [samples, …], in the target's types."""
    given = _arrays(file)
    known = {one.name: one for one in target.inputs}
    if known and set(given) != set(known):
        raise Problem(f"{file}: has {', '.join(given)}; {target.model} takes {', '.join(known)}")
    counts = {name: _count(array, known.get(name), target) for name, array in given.items()}
    if None in counts.values():
        name = next(name for name, count in counts.items() if count is None)
        sizes = list(sample_shape(known[name]) or ())
        raise Problem(f"{file}: its {name} is {list(given[name].shape)}; a sample's is {sizes}, several are [N, …]")
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count or 'one'}" for name, count in counts.items())
        raise Problem(f"{file}: has values for different numbers of samples: {told}")
    one = not next(iter(counts.values()))
    columns = {name: array[None] if one else array for name, array in given.items()}
    return {
        name: typed(array, known[name].datatype, target, file) if known else array for name, array in columns.items()
    }


def _arrays(file: Path) -> dict[str, Array]:
    try:
        with np.load(file) as values:
            found = {name: values[name] for name in values}
    except (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise Problem(f"{file}: no .npz file of arrays without objects: {error}") from None
    if not found:
        raise Problem(f"{file}: has no array")
    for name, array in found.items():
        if not name or array.dtype.kind not in "fiubSU":
            raise Problem(f"{file}: its {name or 'array without a name'} is {array.dtype}: use numbers or strings")
    return {name: _encoded(array) if array.dtype.kind in "SU" else array for name, array in found.items()}


def _encoded(array: Array) -> Array:
    found = np.empty(array.size, object)
    found[:] = [one.encode() if isinstance(one, str) else bytes(one) for one in array.ravel().tolist()]
    return found.reshape(array.shape)


def _count(array: Array, tensor: Tensor | None, target: Target) -> int | None:
    """How many samples an array is of; 0: it is one sample's value; None: it is neither. Where nobody says what the
    model takes, it is one sample's."""
    if tensor is None:
        return 0
    sizes = target.input_shape or None if len(target.inputs) == 1 else sample_shape(tensor)
    if sizes is None or _fits(array.shape, sizes):
        return 0
    return len(array) if array.ndim and len(array) and _fits(array.shape[1:], sizes) else None


def typed(array: Array, datatype: str, target: Target, file: Path) -> Array:
    """In a type as `Tensor.datatype` has it. Raises `Problem` where it is another kind of numbers."""
    if datatype == "bytes":
        if array.dtype.kind != "O":
            raise Problem(f"{file}: holds {array.dtype}, and {target.model} takes strings")
        return array
    kind = np.dtype("float32" if datatype == "bfloat16" else datatype)
    if array.dtype.kind == "O" or not np.can_cast(array.dtype, kind, "same_kind"):
        held = "strings" if array.dtype.kind == "O" else array.dtype
        raise Problem(f"{file}: holds {held}, and {target.model} takes {datatype}")
    return array.astype(kind)
