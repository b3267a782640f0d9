"""What servers are asked and what is right to answer, as one file: a bundle's reference.npz, or that of a run.

A bundle's has `images` and `probabilities`. A run's own has, for what it asks, either `images` (numbers, [samples, …]),
`encoded` (bytes that a tensor carries, such as JPEG files) or `bodies` (of HTTP requests, sent as they are), the latter
two as all bytes in a row and the `offsets` between them. Of several inputs it has the names, `inputs`, and
of each `input-K`: numbers, or such bytes, with `offsets-K` and the `sizes-K` of one sample's. Where it is known what is
right, it has `probabilities` [samples, values] and the `tolerance` of one, times the value where that is above 1.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import whole_file
from serving import requests
from serving.target import Target

Array = NDArray[Any]


def _none() -> Array:
    return np.zeros((0,), np.uint8)


@dataclass(frozen=True)
class Samples:
    """What is asked: `images` [samples, …], numbers, bytes, or a structured array with a field for each input (see
    `interface`), or else `bodies`. `names`: their files', where they have some."""

    images: Array = field(default_factory=_none)
    bodies: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.bodies) or len(self.images)


def samples(values: Mapping[str, Array]) -> Samples:
    """The samples of a file's arrays. Raises KeyError and ValueError."""
    if "inputs" in values:
        return Samples(_structured(values))
    for key in ("encoded", "bodies"):
        if key in values:
            pieces = _apart(values[key], values["offsets"])
            return Samples(bodies=tuple(pieces)) if key == "bodies" else Samples(_objects(pieces))
    return Samples(values["images"])


def write(path: Path, asked: Samples, right: Array | None, tolerance: float) -> None:
    """Write a run's own file, whole or not at all. ``right``: None: whatever is answered is."""
    arrays: dict[str, Any] = {"tolerance": np.array(tolerance)}
    if asked.bodies:
        arrays["bodies"], arrays["offsets"] = _together(asked.bodies)
    elif asked.images.dtype.names:
        arrays |= _by_input(asked.images, asked.images.dtype.names)
    elif asked.images.dtype.kind == "O":
        arrays["encoded"], arrays["offsets"] = _together(asked.images.tolist())
    else:
        arrays["images"] = asked.images
    if right is not None:
        arrays["probabilities"] = right
    buffer = io.BytesIO()  # on a full disk zipfile tells of it twice, once with a traceback
    np.savez_compressed(buffer, **arrays)
    whole_file.write_bytes(path, buffer.getbuffer())


def encode(target: Target, protocol: str, images: Array, bodies: Sequence[bytes], rows: Array) -> bytes:
    """The samples ``rows`` as one request. Raises ValueError where they are not what the target takes."""
    if bodies:
        if len(rows) != 1:
            raise ValueError(f"{len(rows)} whole bodies do not go into one request: use batch = 1")
        return requests.encode_body(target, protocol, bodies[int(rows[0])])
    return requests.encode(target, protocol, _as_taken(target, images[rows]))


def answer(decoded: Array, count: int) -> Array:
    """A decoded answer to so many samples as [samples, values]; one body's answer is one row, however many it has."""
    return decoded.reshape(count, -1) if count == 1 or len(decoded) != count else decoded


def alike(answered: Array, right: Array, tolerance: float) -> bool:
    """Whether an answer is the right one, value for value."""
    if answered.shape != right.shape:
        return False
    if right.dtype.kind not in "fiub":
        return bool((answered == right).all())
    return bool((np.abs(answered - right) <= tolerance * np.maximum(1.0, np.abs(right))).all())


def _as_taken(target: Target, images: Array) -> Array:
    """In the number types of the target's inputs, where no value is lost by that."""
    if images.dtype.names:
        known = {one.name: one.datatype for one in target.inputs}
        return structured({name: _cast(images[name], known.get(name, "")) for name in images.dtype.names})
    return _cast(images, target.inputs[0].datatype) if len(target.inputs) == 1 else images


def _cast(values: Array, datatype: str) -> Array:
    if not datatype or datatype == "bytes" or values.dtype.kind not in "fiub":
        return values
    wanted = np.dtype("float32" if datatype == "bfloat16" else datatype)
    return values.astype(wanted) if values.dtype != wanted and np.can_cast(values.dtype, wanted) else values


def structured(columns: Mapping[str, Array]) -> Array:
    """A structured array [samples] of each input's values [samples, …]."""
    kinds: list[Any] = [(name, values.dtype, values.shape[1:]) for name, values in columns.items()]
    found: Array = np.zeros(len(next(iter(columns.values()))), kinds)
    for name, values in columns.items():
        found[name] = values
    return found


def _by_input(samples: Array, names: Sequence[str]) -> dict[str, Array]:
    found: dict[str, Array] = {"inputs": np.array(names)}
    for number, name in enumerate(names):
        values = samples[name]
        if values.dtype.kind == "O":
            found[f"sizes-{number}"] = np.array(values.shape[1:], np.int64)
            found[f"input-{number}"], found[f"offsets-{number}"] = _together(values.ravel().tolist())
        else:
            found[f"input-{number}"] = values
    return found


def _structured(values: Mapping[str, Array]) -> Array:
    columns: dict[str, Array] = {}
    for number, name in enumerate(values["inputs"].tolist()):
        given = values[f"input-{number}"]
        if f"offsets-{number}" in values:
            pieces = _objects(_apart(given, values[f"offsets-{number}"]))
            given = pieces.reshape(-1, *values[f"sizes-{number}"].tolist())
        columns[name] = given
    return structured(columns)


def _together(pieces: Sequence[bytes]) -> tuple[Array, Array]:
    offsets = np.cumsum([0, *map(len, pieces)])
    return np.frombuffer(b"".join(pieces), np.uint8), offsets


def _apart(joined: Array, offsets: Array) -> list[bytes]:
    whole = joined.tobytes()
    return [whole[first:last] for first, last in pairwise(offsets.tolist())]


def _objects(pieces: Sequence[bytes]) -> Array:
    found = np.empty(len(pieces), object)
    found[:] = list(pieces)
    return found
