"""Finds the first node of an ONNX graph whose output a SavedModel makes differently, and the two values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from models import onnx_reading

NHWC = (0, 2, 3, 1)


@dataclass(frozen=True)
class Difference:
    """The first node, in the graph's order, from which on ONNX Runtime and a SavedModel part.

    operator, node   ONNX's operator and the node's name
    value, place     the name of its output, and the element that differs most, in ONNX's axis order
    in_onnx          that element by ONNX Runtime
    in_savedmodel    that element by the SavedModel; None where it has no tensor of this shape at all
    max_abs_diff     their distance; None with the former
    """

    operator: str
    node: str
    value: str
    place: tuple[int, ...]
    in_onnx: float
    in_savedmodel: float | None
    max_abs_diff: float | None

    def words(self) -> str:
        """The difference as part of an error's line."""
        start = f"node {self.node} ({self.operator}) is the first to differ: {self.value}{list(self.place)} is "
        if self.in_savedmodel is None:
            return f"{start}{self.in_onnx:.6g}, and the SavedModel has no tensor of that shape"
        return f"{start}{self.in_onnx:.6g} and {self.in_savedmodel:.6g}"


def first_difference(source: Path, folder: Path, images: np.ndarray, tolerance: float) -> Difference | None:
    """Compare what the nodes of the ONNX file ``source`` give for ``images`` with the SavedModel in ``folder``.

    A SavedModel that the importer wrote is compared by the names of values. In any other one an output counts as made
    where some tensor of its graph holds the same numbers in ONNX's order or channels last; a node is the first to
    differ where neither its output nor that of any node that depends on it is made, so that operations which one side
    fuses don't count. A value differs beyond ``tolerance``, relative to the largest for values above 1. None where all
    agree. Raises `Problem` for a damaged ONNX file.
    """
    from models import savedmodel

    model = onnx_reading.inlined(onnx_reading.read(source))
    theirs = onnx_values(model, images)
    named = savedmodel.is_imported(folder)
    if named:
        ours = savedmodel.intermediate(folder, images)
        peers = {name: [ours[name]] for name in theirs if name in ours}
    else:
        found = [array for array in savedmodel.every_tensor(folder, images) if array.dtype.kind == "f"]
        peers = {name: list(_as_onnx(found, array.shape)) for name, array in theirs.items()}
    floats = {name for name, array in theirs.items() if array.dtype.kind == "f"}
    nodes = [node for node in model.graph.node if floats.intersection(node.output)]
    good = _agreeing(theirs, peers, tolerance)
    made = good if named else _made_downstream(model, good)
    compared = peers.keys() if named else theirs.keys()
    for node in nodes:
        names = [name for name in node.output if name in compared]
        if names and not any(made.get(name, False) for name in names):
            return _described(node, names[0], theirs[names[0]], peers.get(names[0], []))
    return None


def onnx_values(model: onnx.ModelProto, images: np.ndarray) -> dict[str, np.ndarray]:
    """Every value that ONNX Runtime computes for ``images``, by name."""
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    names = [name for node in copy.graph.node for name in node.output if name]
    present = {value.name for value in copy.graph.output}
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    return dict(zip(names, session.run(names, {given.name: images}), strict=True))


def _agreeing(theirs: dict[str, np.ndarray], peers: dict[str, list[np.ndarray]], tolerance: float) -> dict[str, bool]:
    """Whether any of a value's peers holds the same numbers."""
    good = {}
    for name, candidates in peers.items():
        wanted = theirs[name]
        limit = tolerance * max(1.0, float(np.abs(wanted).max(initial=0.0))) if wanted.dtype.kind == "f" else 0.0
        good[name] = any(_distance(array, wanted) <= limit for array in candidates)
    return good


def _described(node: onnx.NodeProto, name: str, wanted: np.ndarray, candidates: list[np.ndarray]) -> Difference:
    label = node.name or node.output[0]
    nearest = min(candidates, key=lambda array: _distance(array, wanted), default=None)
    if nearest is None or nearest.shape != wanted.shape:
        return Difference(node.op_type, label, name, (0,) * wanted.ndim, float(wanted.reshape(-1)[0]), None, None)
    apart = np.nan_to_num(np.abs(nearest.astype(np.float64) - wanted), nan=np.inf)
    place = tuple(int(index) for index in np.unravel_index(int(apart.argmax()), apart.shape))
    return Difference(
        node.op_type, label, name, place, float(wanted[place]), float(nearest[place]), float(apart[place])
    )


def _made_downstream(model: onnx.ModelProto, good: dict[str, bool]) -> dict[str, bool]:
    """Whether each value, or any that is computed from it, is made."""
    made = dict(good)
    for node in reversed(model.graph.node):
        if any(made.get(name, False) for name in node.output):
            for name in node.input:
                made[name] = True
    return made


def _as_onnx(found: list[np.ndarray], shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The tensors that can be a value of ``shape``, in ONNX's axis order."""
    for array in found:
        if array.shape == shape:
            yield array
        if len(shape) == 4 and array.shape == tuple(shape[axis] for axis in NHWC):
            yield array.transpose(0, 3, 1, 2)
        elif array.size == np.prod(shape) and [n for n in array.shape if n != 1] == [n for n in shape if n != 1]:
            yield array.reshape(shape)


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    if first.shape != second.shape:
        return float("inf")
    if first.dtype.kind not in "fiub" or not first.size:
        return 0.0
    distance = float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max())
    return float("inf") if np.isnan(distance) else distance
