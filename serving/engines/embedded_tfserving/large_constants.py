"""Large weights that are constants of a function, held once for all that calls the function.

TensorFlow copies a function's constants for every prepared call and every batch function that runs it, and keeps its
definition several times more. Here such a function gets a session of its own, with one prepared call; what called it,
whichever signatures and batch functions those are, calls that (a `PyFunc` operation) and so holds no weights. It costs
two switches of the interpreter lock a batch, little beside what so many weights take to compute.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import function_pb2, graph_pb2, node_def_pb2
from tensorflow.python.framework import op_def_registry
from tensorflow.python.framework.function_def_to_graph import function_def_to_graph_def

from serving.engines.embedded_tfserving import tensors
from serving.engines.embedded_tfserving.status import ServingError
from serving.wire.grpc_status import Code

LARGE_BYTES = 16 * 2**20
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
# Operations with a state that belongs to no session.
WITHOUT_STATE = ("Assert", "Print", "PrintV2")
# How an error of the inner call travels through the outer one, which knows only its text.
TRAVELLING = re.compile(r"<network (\d+)>(.*?)</network>", re.DOTALL)

Call = Callable[[Sequence[np.ndarray]], list[np.ndarray]]
# From a graph, the names of its inputs, outputs and operations to run, to a call of them.
Prepare = Callable[[tf.Graph, Sequence[str], Sequence[str], Sequence[str]], Call]


def take_out(graph_def: graph_pb2.GraphDef) -> list[Network]:
    """Take the functions with large constants out of ``graph_def``, which then calls the networks returned; each of
    these must be prepared before a call.

    A function stays where it is used in another way than by plain calls, calls functions itself, or holds state.
    """
    library = graph_def.library.function
    large = [function for function in library if _constant_bytes(function) >= LARGE_BYTES and _stands_alone(function)]
    if not large:
        return []
    calls: dict[str, list[node_def_pb2.NodeDef]] = {function.signature.name: [] for function in large}
    uses: Counter[str] = Counter(name for gradient in graph_def.library.gradient for name in _names(gradient))
    for node in _nodes(graph_def):
        uses[node.op] += 1
        uses.update(_functions(node))
        if node.op in CALLS and node.attr["f"].func.name in calls:
            calls[node.attr["f"].func.name].append(node)
    networks = []
    for function in large:
        name = function.signature.name
        if uses[name] == len(calls[name]):
            network = Network(function)
            for node in calls[name]:
                network.called_by(node)
            networks.append(network)
    taken = {network.name for network in networks}
    for index in range(len(library) - 1, -1, -1):
        if library[index].signature.name in taken:
            del library[index]
    return networks


class Network:
    """A function with large constants in a session of its own, and one prepared call of it."""

    def __init__(self, function: function_pb2.FunctionDef) -> None:
        self.name = function.signature.name
        signature = function.signature
        self.graph = tf.Graph()
        with self.graph.as_default():
            graph_def, names = function_def_to_graph_def(function)
            tf.import_graph_def(graph_def, name="")
            del graph_def
            self._inputs = [names[argument.name] for argument in signature.input_arg]
            self._outputs = [names[function.ret[argument.name]] for argument in signature.output_arg]
            self._targets = list(function.control_ret.values())
            # TensorFlow finds the function by a token for as long as this graph lives.
            types = [tf.as_dtype(argument.type) for argument in signature.output_arg]
            given = [self.graph.get_tensor_by_name(name) for name in self._inputs]
            called = tf.numpy_function(self._answer, given, types)
            self._token = called[0].op.node_def.attr["token"]

    def prepare(self, prepare: Prepare) -> None:
        """Prepare the call. Takes several times the memory of the constants meanwhile. Raises `ServingError`."""
        self._call = prepare(self.graph, self._inputs, self._outputs, self._targets)

    def called_by(self, node: node_def_pb2.NodeDef) -> None:
        """Make ``node``, a call of the function, one of this: inputs, outputs and their names are the same."""
        types = {name: node.attr[name].list.type[:] for name in ("Tin", "Tout")}
        node.op = "PyFunc"
        for key in list(node.attr):
            del node.attr[key]
        node.attr["token"].CopyFrom(self._token)
        for name, listed in types.items():
            node.attr[name].list.type.extend(listed)

    def _answer(self, *arrays: np.ndarray) -> list[np.ndarray]:
        try:
            return self._call(arrays)
        except ServingError as error:
            raise RuntimeError(f"<network {int(error.code)}>{error.message}</network>") from None


def error_of(message: str) -> ServingError | None:
    """The error of a network that this message of a runtime's error carries, if any."""
    found = TRAVELLING.search(message)
    return ServingError(Code(int(found[1])), found[2]) if found else None


def _constant_bytes(function: function_pb2.FunctionDef) -> int:
    """What the constants of a function take in memory."""
    values = (node.attr["value"].tensor for node in function.node_def if node.op == "Const")
    return sum(
        math.prod(dim.size for dim in value.tensor_shape.dim) * tf.as_dtype(value.dtype).size for value in values
    )


def _stands_alone(function: function_pb2.FunctionDef) -> bool:
    signature = function.signature
    arguments = [*signature.input_arg, *signature.output_arg]
    return (
        not signature.attr
        and all(argument.type in tensors.TYPES for argument in arguments)
        and bool(signature.input_arg and signature.output_arg)
        and not any(name for node in function.node_def for name in _functions(node))
        and all(node.op in WITHOUT_STATE or _stateless(node.op) for node in function.node_def)
    )


def _stateless(op: str) -> bool:
    definition = op_def_registry.get(op)  # None: a function of the graph
    return definition is not None and not definition.is_stateful


def _nodes(graph_def: graph_pb2.GraphDef) -> Iterator[node_def_pb2.NodeDef]:
    yield from graph_def.node
    for function in graph_def.library.function:
        yield from function.node_def


def _functions(node: node_def_pb2.NodeDef) -> Iterator[str]:
    """The functions that a node names in its attributes."""
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "func":
            yield value.func.name
        elif kind == "list":
            yield from (function.name for function in value.list.func)


def _names(gradient: Any) -> tuple[str, str]:
    return gradient.function_name, gradient.gradient_func
