"""Reads an ONNX file that may be truncated or hostile, and refuses what cannot be a model, before anything is built."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np
import onnx

from models.onnx_nodes import LARGEST_VALUE
from models.problem import Problem

AGAIN = "export the model again"
MOST_NODES = 10**6  # once local functions are taken apart; the largest CNNs have a few thousand


def read(path: Path) -> onnx.ModelProto:
    """The model with its external data. Raises `Problem` naming file and tensor for a file that is damaged, or that
    reads data outside its own folder."""
    try:
        model = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise Problem(f"{path}: missing; {AGAIN}") from None
    except Exception as error:  # protobuf raises its own kinds
        raise Problem(f"{path}: not an ONNX file, or a truncated one ({_line(error)}); {AGAIN}") from None
    if not model.graph.node or not model.graph.output or not model.opset_import:
        raise Problem(f"{path}: not an ONNX model, or a truncated one (nodes, outputs or opsets are missing); {AGAIN}")
    for tensor in _tensors(model):
        if onnx.external_data_helper.uses_external_data(tensor):
            _check_external(path, tensor)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:  # of onnx's own C++ kinds
        raise Problem(f"{path}: external data cannot be read ({_line(error)}); {AGAIN}") from None
    return model


def array(tensor: onnx.TensorProto) -> np.ndarray:
    """A tensor's numbers; raises `Problem` where their count is not what its shape says."""
    sizes = list(tensor.dims)
    if min(sizes, default=0) < 0:
        raise Problem(f"ONNX tensor {tensor.name}: shape {sizes} has a negative size; {AGAIN}")
    try:
        numbers: np.ndarray = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # NumPy's, and onnx's own
        raise Problem(
            f"ONNX tensor {tensor.name}: shape {sizes} does not fit its data ({_line(error)}); {AGAIN}"
        ) from None
    return numbers


def inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its local functions in place of their calls; a function that calls itself is refused, and so are
    functions of functions that would not end."""
    if not model.functions:
        return model
    left = {(one.domain, one.name): list(_calls(one.node)) for one in model.functions}
    nodes: dict[tuple[str, str], int] = {}
    while leaves := [name for name, called in left.items() if not left.keys() & set(called)]:
        for name in leaves:
            nodes[name] = 1 + sum(nodes.get(called, 1) for called in left.pop(name))
    if left:
        domain, function = next(iter(left))
        raise Problem(f"ONNX function {domain}::{function} calls itself; {AGAIN}")
    whole = sum(nodes.get(called, 1) for called in _calls(model.graph.node))
    if whole > MOST_NODES:
        raise Problem(f"the ONNX model's local functions make {whole:,} nodes, more than {MOST_NODES:,}; {AGAIN}")
    try:
        return onnx.inliner.inline_local_functions(model)
    except Exception as error:  # of onnx's own C++ kinds
        raise Problem(f"the ONNX model's local functions cannot be inlined ({_line(error)}); {AGAIN}") from None


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str]]:
    """(domain, name) of every operator or function that they use, those in their graphs as well."""
    for node in nodes:
        yield node.domain, node.op_type
        for graph in _graphs(node):
            yield from _calls(graph.node)


def _graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        yield from [attribute.g] if attribute.HasField("g") else attribute.graphs


def check_order(graph: onnx.GraphProto) -> None:
    """Raise `Problem` for a node that uses what only a later node makes (a cycle), or nobody, or makes what is made."""
    made = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    later = {name for node in graph.node for name in node.output}
    for node in graph.node:
        label = f"ONNX operator {node.op_type} (node {node.name or (node.output[0] if node.output else '')})"
        for name in node.input:
            if name and name not in made:
                why = "a later node makes: a cycle, or nodes out of order" if name in later else "nothing makes"
                raise Problem(f"{label}: uses {name}, which {why}; {AGAIN}")
        for name in node.output:
            if name and name in made:
                raise Problem(f"{label}: makes {name} a second time; {AGAIN}")
            made.add(name)
    for value in graph.output:
        if value.name not in made:
            raise Problem(f"ONNX output {value.name}: nothing makes it; {AGAIN}")


def with_shapes(model: onnx.ModelProto) -> onnx.GraphProto:
    """The graph with every shape that ONNX can infer; raises `Problem` for a value above 2 GB an image."""
    try:
        graph = onnx.shape_inference.infer_shapes(model).graph
    except Exception as error:  # of onnx's own C++ kinds
        raise Problem(f"the ONNX model's shapes contradict each other ({_line(error)}); {AGAIN}") from None
    for value in [*graph.input, *graph.value_info, *graph.output]:
        kind = value.type.tensor_type
        sizes = [size.dim_value for size in kind.shape.dim if size.HasField("dim_value")]
        if math.prod(max(size, 1) for size in sizes) * _bytes(kind.elem_type) > LARGEST_VALUE:
            shape = "x".join(str(size.dim_value or size.dim_param or "?") for size in kind.shape.dim)
            raise Problem(f"ONNX value {value.name}: {shape} is more than 2 GB; mend the model's shapes")
    return graph


def _bytes(number: int) -> int:
    try:
        return int(onnx.helper.tensor_dtype_to_np_dtype(number).itemsize)
    except (KeyError, ValueError, TypeError):
        return 1


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """All of them, those of graphs within nodes as well."""
    yield from _of_graph(model.graph)
    for function in model.functions:
        yield from _of_nodes(function.node)


def _of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _of_nodes(graph.node)


def _of_nodes(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from [attribute.t] if attribute.HasField("t") else attribute.tensors
        for graph in _graphs(node):
            yield from _of_graph(graph)


def _check_external(path: Path, tensor: onnx.TensorProto) -> None:
    """Refuse data that is not in a file of the model's own folder, links followed, or not all there."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    label = f"{path}: external data {location!r} of tensor {tensor.name}"
    folder = path.parent.resolve()
    target = (folder / location).resolve()
    if not location or PurePosixPath(location).is_absolute() or not target.is_relative_to(folder):
        raise Problem(f"{label} lies outside the model's folder; put it beside the model and export again")
    if not target.is_file():
        raise Problem(f"{label} is missing; put it beside the model")
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", 0))
    except ValueError:
        raise Problem(f"{label} has an offset or length that is no number; {AGAIN}") from None
    if offset < 0 or length < 0 or offset + length > target.stat().st_size:
        raise Problem(f"{label} ends before byte {offset + length}: it is truncated; copy it again")


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
