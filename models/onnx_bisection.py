"""Finds the first node of an ONNX graph whose output a SavedModel makes differently, and the two values."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx

from models import onnx_reading

NHWC = (0, 2, 3, 1)
# Where torch.onnx writes the modules that a node comes from, outermost first, and the node of its own graph last.
SCOPES = "pkg.torch.onnx.name_scopes"
WEIGHT = ".weight"
WITH_WEIGHTS = ("Conv", "Gemm", "MatMul")
CALLS = re.compile(r"^((Stateful)?PartitionedCall(_\d+)?/)+")


@dataclass(frozen=True)
class Difference:
    """The first node, in the graph's order, from which on ONNX Runtime and a SavedModel part.

    operator, node   ONNX's operator and the node's name
    value, place     the name of its output, and the element that differs most, in ONNX's axis order
    in_onnx          that element by ONNX Runtime
    in_savedmodel    that element by the SavedModel; None where it has no tensor of this shape at all
    max_abs_diff     their distance; None with the former
    layer            the PyTorch module that the node comes from; None where the file does not say
    tensor           the SavedModel's tensor that was compared, in one that the importer did not write the closest
    layers           how many nodes with weights come before it
    """

    operator: str
    node: str
    value: str
    place: tuple[int, ...]
    in_onnx: float
    in_savedmodel: float | None
    max_abs_diff: float | None
    layer: str | None = None
    tensor: str | None = None
    layers: int = 0

    def words(self) -> str:
        """The difference as part of an error's line."""
        layer = f"layer {self.layer}, " if self.layer else ""
        start = f"{layer}node {self.node} ({self.operator}) is the first to differ: {self.value}{list(self.place)} is "
        if self.in_savedmodel is None:
            return f"{start}{self.in_onnx:.6g}, and the SavedModel has no tensor of that shape"
        closest = f" in the closest tensor, {self.tensor}" if self.tensor else ""
        return f"{start}{self.in_onnx:.6g} and {self.in_savedmodel:.6g}{closest}"


@dataclass(frozen=True)
class _Peer:
    """A tensor that may hold an ONNX value, in ONNX's axis order; ``name``: None where it is the value's own."""

    array: np.ndarray
    name: str | None = None


def first_difference(
    source: Path, folder: Path, images: np.ndarray, tolerance: float, *, imported: bool | None = None
) -> Difference | None:
    """Compare what the nodes of the ONNX file ``source`` give for ``images`` with the SavedModel in ``folder``.

    A SavedModel that the importer wrote (``imported``; None: look) is compared by the names of values. In any other one
    an output counts as made where some tensor of its graph holds the same numbers in ONNX's order or channels last; a
    node is the first to differ where neither its output nor that of any node that depends on it is made, so that
    operations which one side fuses don't count. A value differs beyond ``tolerance``, relative to the largest for
    values above 1. None where all agree. Raises `Problem` for a damaged ONNX file.
    """
    from models import savedmodel

    model = onnx_reading.inlined(onnx_reading.read(source))
    theirs = onnx_values(model, images)
    named = savedmodel.is_imported(folder) if imported is None else imported
    if named:
        ours = savedmodel.intermediate(folder, images)
        peers = {name: [_Peer(ours[name])] for name in theirs if name in ours}
    else:
        tensors = savedmodel.every_tensor(folder, images)
        found = {name: array for name, array in tensors.items() if array.dtype.kind == "f"}
        peers = {name: list(_as_onnx(found, array.shape)) for name, array in theirs.items()}
    floats = {name for name, array in theirs.items() if array.dtype.kind == "f"}
    nodes = [node for node in model.graph.node if floats.intersection(node.output)]
    matches = _matches(theirs, peers, tolerance)
    good = {name: bool(found) for name, found in matches.items()}
    made = good if named else _made_downstream(model, good)
    compared = peers.keys() if named else theirs.keys()
    for node in nodes:
        names = [name for name in node.output if name in compared]
        if names and not any(made.get(name, False) for name in names):
            claimed = {peer.name for found in matches.values() for peer in found}
            every = peers.get(names[0], [])
            left = [peer for peer in every if peer.name is None or peer.name not in claimed]
            difference = _described(node, names[0], theirs[names[0]], left or every)
            before = nodes[: nodes.index(node)]
            return replace(difference, layers=sum(one.op_type in WITH_WEIGHTS for one in before))
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


def _matches(theirs: dict[str, np.ndarray], peers: dict[str, list[_Peer]], tolerance: float) -> dict[str, list[_Peer]]:
    """Those of each value's peers that hold the same numbers."""
    same = {}
    for name, candidates in peers.items():
        wanted = theirs[name]
        limit = tolerance * max(1.0, float(np.abs(wanted).max(initial=0.0))) if wanted.dtype.kind == "f" else 0.0
        same[name] = [peer for peer in candidates if _distance(peer.array, wanted) <= limit]
    return same


def _described(node: onnx.NodeProto, name: str, wanted: np.ndarray, candidates: list[_Peer]) -> Difference:
    label, layer = node.name or node.output[0], _layer(node)
    nearest = _nearest(candidates, wanted)
    if nearest is None:
        first = float(wanted.reshape(-1)[0])
        return Difference(node.op_type, label, name, (0,) * wanted.ndim, first, None, None, layer)
    apart = np.nan_to_num(np.abs(nearest.array.astype(np.float64) - wanted), nan=np.inf)
    place = tuple(int(index) for index in np.unravel_index(int(apart.argmax()), apart.shape))
    values = float(wanted[place]), float(nearest.array[place]), float(apart[place])
    return Difference(node.op_type, label, name, place, *values, layer, _short(nearest.name))


def _short(name: str | None) -> str | None:
    """A tensor's name without those of the calls that were taken apart."""
    return None if name is None else CALLS.sub("", name)


def _nearest(candidates: list[_Peer], wanted: np.ndarray) -> _Peer | None:
    """The closest one; where none is close, the one that is computed first, which is likely to be meant for it."""
    candidates = [peer for peer in candidates if peer.array.shape == wanted.shape and peer.array.size]
    if not candidates:
        return None
    apart = [_mean_distance(peer.array, wanted) for peer in candidates]
    close = float(np.abs(wanted - wanted.mean()).mean()) / 2
    return candidates[int(np.argmin(apart))] if min(apart) < close else candidates[0]


def _layer(node: onnx.NodeProto) -> str | None:
    """The innermost module that an exporter says a node comes from; where it folded that one into another, both."""
    owner = next((name.removesuffix(WEIGHT) for name in node.input if name.endswith(WEIGHT)), None)
    written = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "[]")
    try:
        scopes = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        return owner
    modules = [str(scope) for scope in scopes[:-1] if scope] if isinstance(scopes, list) else []
    named = dict.fromkeys(filter(None, (owner, *modules[-1:])))
    return " with ".join(named) or None


def _made_downstream(model: onnx.ModelProto, good: dict[str, bool]) -> dict[str, bool]:
    """Whether each value, or any that is computed from it, is made."""
    made = dict(good)
    for node in reversed(model.graph.node):
        if any(made.get(name, False) for name in node.output):
            for name in node.input:
                made[name] = True
    return made


def _as_onnx(found: dict[str, np.ndarray], shape: tuple[int, ...]) -> Iterator[_Peer]:
    """The tensors that can be a value of ``shape``, in ONNX's axis order."""
    for name, array in found.items():
        if array.shape == shape:
            yield _Peer(array, name)
        if len(shape) == 4 and array.shape == tuple(shape[axis] for axis in NHWC):
            yield _Peer(array.transpose(0, 3, 1, 2), name)
        elif array.size == np.prod(shape) and [n for n in array.shape if n != 1] == [n for n in shape if n != 1]:
            yield _Peer(array.reshape(shape), name)


def _mean_distance(first: np.ndarray, second: np.ndarray) -> float:
    distance = float(np.abs(first.astype(np.float64) - second).mean())
    return float("inf") if np.isnan(distance) else distance


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    if first.shape != second.shape:
        return float("inf")
    if first.dtype.kind not in "fiub" or not first.size:
        return 0.0
    distance = float(np.abs(first.astype(np.float64) - second.astype(np.float64)).max())
    return float("inf") if np.isnan(distance) else distance
