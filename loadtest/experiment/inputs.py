"""What endpoints are asked in a run without a bundle: samples from files, or random ones of the shape and type that the
servers name."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from loadtest.experiment import named_inputs
from loadtest.experiment.settings import Inputs
from models.problem import Problem
from serving.engines.engine import Tensor
from serving.reference_file import Array, Samples
from serving.target import Target

IMAGES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
ARRAYS, NAMED, BODIES = (".npy",), (".npz",), (".json",)
_PAYLOADS = "inputs.payloads"


def alike(targets: Sequence[Target]) -> list[Target]:
    """The targets, those whose servers do not say what they take with what the first says that does, and all with the
    shape of one sample. Raises `Problem` where two take samples of different shapes, or different inputs."""
    said = next((one.inputs for one in targets if one.inputs), ())
    shape = next((one.input_shape for one in targets if one.input_shape), ())
    shapes = next((one.input_shapes for one in targets if one.input_shapes), {})
    full = [replace(one, inputs=one.inputs or said) for one in targets]
    found = [named_inputs.shaped(one, shapes) if shapes or len(one.inputs) > 1 else _shaped(one, shape) for one in full]
    named_inputs.check_alike(found)
    known = [one for one in found if one.input_shape]
    for one in known[1:]:
        if one.input_shape != known[0].input_shape:
            raise Problem(
                f"target.{one.name}: takes samples of shape {list(one.input_shape)}, and {known[0].name} of "
                f"{list(known[0].input_shape)}: compare servers that take the same"
            )
    return found


def _shaped(target: Target, given: tuple[int, ...]) -> Target:
    """With the shape of one sample: the user's, or the input's without its batch; empty where that is not known."""
    if not target.inputs:
        return replace(target, input_shape=target.input_shape or given)
    sizes = target.inputs[0].shape
    without = sizes[1:] if is_batched(target.inputs[0], given) else sizes
    wanted = target.input_shape or given
    if not wanted:
        return replace(target, input_shape=without if all(size > 0 for size in without) else ())
    if sizes and (len(wanted) != len(without) or any(b not in (-1, a) for a, b in zip(wanted, without, strict=True))):
        raise Problem(
            f"target.{target.name}.input_shape = {list(wanted)}: its input {target.inputs[0].name} is "
            f"{list(sizes)}, the batch first"
        )
    return replace(target, input_shape=wanted)


def is_batched(tensor: Tensor, given: tuple[int, ...] = ()) -> bool:
    """Whether the first size of an input is that of a batch. ``given``: the shape of one sample, where a user says."""
    if given:
        return len(tensor.shape) == len(given) + 1
    return bool(tensor.shape) and tensor.shape[0] in (-1, 1) and len(tensor.shape) > 1


def load(asked: Inputs, target: Target, seed: int) -> Samples:
    """The samples for servers that take what ``target`` does. Raises `Problem`."""
    return _from_files(Path(asked.payloads), target) if asked.payloads else _random(asked.samples, target, seed)


def _random(count: int, target: Target, seed: int) -> Samples:
    draw = np.random.default_rng([seed, 2])
    if len(target.inputs) > 1:
        return Samples(named_inputs.random(count, target, draw))
    tensor = target.inputs[0] if target.inputs else Tensor("", "uint8", ())
    if tensor.datatype == "bytes":
        raise Problem(
            f"{_PAYLOADS}: {target.model} takes strings or encoded images, as {tensor.name}: name files of them"
        )
    if not target.input_shape:
        sizes = f"its input {tensor.name} is {list(tensor.shape)}" if target.inputs else "its server does not say"
        raise Problem(f"target.{target.name}: what shape is a sample ({sizes})? Give input_shape, or {_PAYLOADS}")
    return Samples(named_inputs.drawn(draw, tensor.datatype, (count, *target.input_shape)))


def _from_files(place: Path, target: Target) -> Samples:
    files = _files(place)
    kinds = {_kind(file) for file in files}
    if len(kinds) > 1:
        raise Problem(f"{_PAYLOADS} = {str(place)!r}: use files of one kind: images, .npy, .npz, or .json bodies")
    (kind,) = kinds
    names = tuple(file.stem for file in files)
    if kind is BODIES:
        return Samples(bodies=tuple(_body(file) for file in files), names=names)
    if kind is NAMED:
        return named_inputs.read(files, target)
    if len(target.inputs) > 1:
        raise Problem(
            f"{_PAYLOADS} = {str(place)!r}: {target.model} takes {len(target.inputs)} inputs "
            f"({', '.join(one.name for one in target.inputs)}): use .npz files with an array for each, or .json bodies"
        )
    if kind is ARRAYS:
        return _arrays(files, target)
    if _takes_bytes(target):
        pieces = np.empty(len(files), object)
        pieces[:] = [file.read_bytes() for file in files]
        return Samples(pieces, names=names)
    if not target.input_shape:
        return Samples(bodies=tuple(file.read_bytes() for file in files), names=names)
    return Samples(np.stack([_pixels(file, target) for file in files]), names=names)


def _files(place: Path) -> list[Path]:
    try:
        files = sorted(one for one in place.iterdir() if one.is_file()) if place.is_dir() else [place]
        files = [one for one in files if not one.name.startswith(".")]
        for one in files:
            one.open("rb").close()
    except OSError as error:
        raise Problem(f"{_PAYLOADS} = {str(place)!r}: {error.filename}: {error.strerror}") from None
    if not files:
        raise Problem(f"{_PAYLOADS} = {str(place)!r}: no file in it")
    return files


def _kind(file: Path) -> tuple[str, ...]:
    for kind in (IMAGES, ARRAYS, NAMED, BODIES):
        if file.suffix.lower() in kind:
            return kind
    raise Problem(f"{file}: use images ({', '.join(IMAGES)}), .npy or .npz arrays, or .json bodies as {_PAYLOADS}")


def _takes_bytes(target: Target) -> bool:
    return len(target.inputs) == 1 and target.inputs[0].datatype == "bytes"


def _body(file: Path) -> bytes:
    body = file.read_bytes().removeprefix(codecs.BOM_UTF8)  # servers take none
    try:
        json.loads(body)
    except ValueError as error:
        raise Problem(f"{file}: not valid JSON: {error}") from None
    return body


def read_array(file: Path, load: Callable[[Path], Array]) -> Array:
    """What ``load`` makes of a NumPy file. Raises `Problem`."""
    try:
        return load(file)
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise Problem(f"{file}: not a NumPy array: {error}") from None


def _arrays(files: Sequence[Path], target: Target) -> Samples:
    pieces, names = [], []
    for file in files:
        array = read_array(file, np.load)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise Problem(f"{file}: use an array of numbers")
        wanted = target.input_shape or array.shape
        if array.shape == wanted:
            array = array[None]
        elif array.shape[1:] != wanted or not len(array):
            raise Problem(f"{file}: is {array.shape}; a sample is {wanted}, and several are {('N', *wanted)}")
        pieces.append(array)
        names += named_inputs.names(file, len(array))
    shapes = {(one.shape[1:], one.dtype) for one in pieces}
    if len(shapes) > 1:
        raise Problem(f"{files[0].parent}: its arrays differ in shape or type: {sorted(map(str, shapes))}")
    joined: Array = np.concatenate(pieces)
    typed = named_inputs.typed(joined, target.inputs[0].datatype, target, files[0]) if target.inputs else joined
    return Samples(typed, names=tuple(names))


def _pixels(file: Path, target: Target) -> Array:
    """An image as the input has it: [H, W, C], or [C, H, W] where only that can be meant; 0–255, floats 0–1."""
    shape = target.input_shape
    if len(shape) != 3:
        raise Problem(f"{file}: {target.model} takes samples of shape {list(shape)}, which is no image")
    first = shape[0] in _MODES and shape[2] not in _MODES
    channels, height, width = shape if first else (shape[2], shape[0], shape[1])
    if channels not in _MODES:
        raise Problem(f"{file}: {target.model} takes samples of shape {list(shape)}, whose channels are no image's")
    try:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert(_MODES[channels]).resize((width, height), Image.Resampling.BILINEAR))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise Problem(f"{file}: not an image that can be read: {error}") from None
    pixels = pixels.reshape(height, width, channels)
    pixels = pixels.transpose(2, 0, 1) if first else pixels
    name = target.inputs[0].datatype if target.inputs else "uint8"
    kind = np.dtype("float32" if name == "bfloat16" else name)
    return (pixels / 255).astype(kind) if kind.kind == "f" else pixels.astype(kind)


_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
