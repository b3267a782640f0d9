"""The table of ONNX operators that the importer knows, and a node as an operator's function sees it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx

from models.onnx_values import Value
from models.problem import Problem
from models.tensorflow_quietly import tf

# The opsets whose meaning of every operator is held to ONNX's own tests.
OLDEST_OPSET, NEWEST_OPSET = 13, 28
LARGEST_VALUE = 2**31  # bytes of one value, for one image where it has a batch


@dataclass(frozen=True)
class Node:
    """One node of an ONNX graph: operator, name, opset of its domain, attributes, number of outputs in use."""

    operator: str
    domain: str
    name: str
    opset: int
    attributes: dict[str, Any]
    outputs: int

    @classmethod
    def read(cls, proto: onnx.NodeProto, opsets: dict[str, int]) -> Node:
        """Read a node of a model that imports ``opsets`` (domain to version)."""
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        name = proto.name or next(iter(proto.output), "")
        try:
            attributes = {one.name: onnx.helper.get_attribute_value(one) for one in proto.attribute}
        except ValueError as error:  # of a kind that ONNX does not know
            first = next(iter(str(error).splitlines()), "")[:80]
            raise Problem(f"ONNX operator {proto.op_type} (node {name}): {first}; export the model again") from None
        outputs = sum(1 for output in proto.output if output)
        return cls(proto.op_type, domain, name, opsets.get(domain, 0), attributes, outputs)

    def __str__(self) -> str:
        operator = f"{self.domain}::{self.operator}" if self.domain else self.operator
        return f"ONNX operator {operator} (node {self.name}, opset {self.opset})"

    def fail(self, text: str) -> NoReturn:
        """Raise a `Problem` that names this node."""
        raise Problem(f"{self}: {text}")

    def text(self, key: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(key, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def get(self, key: str, default: Any = None) -> Any:
        """An attribute."""
        return self.attributes.get(key, default)

    def choice(self, key: str, default: str, *allowed: str) -> str:
        """A string attribute that must be one of ``allowed``."""
        value = self.text(key, default)
        if value not in allowed:
            self.fail(f"{key}={value!r} is not supported; export the model with one of {', '.join(allowed)}")
        return value

    def bounded(self, sizes: Iterable[Any], dtype: Any) -> None:
        """Refuse to make a value of ``sizes`` that no model needs and that would exhaust the memory."""
        sizes = [int(size) for size in sizes]
        if math.prod(max(size, 1) for size in sizes) * tf.as_dtype(dtype).size > LARGEST_VALUE:
            self.fail(f"its output would be {'x'.join(map(str, sizes))}, more than 2 GB; mend the model's shapes")

    def static(self, value: Value | None, what: str) -> np.ndarray | None:
        """The array of an optional input that must be known at export time."""
        if value is None:
            return None
        array = value.constant if value.constant is not None else tf.get_static_value(value.logical())
        if array is None:
            self.fail(
                f"{what} is computed at run time; the importer needs a constant, export the model with fixed sizes"
            )
        return array

    def integers(self, value: Value | None, what: str) -> list[int] | None:
        """As `static`, a list of integers."""
        array = self.static(value, what)
        return None if array is None else [int(number) for number in array.reshape(-1)]

    def axes(self, given: Value | None) -> list[int] | None:
        """Axes from an input (newer opsets) or from the attribute ``axes`` (older ones)."""
        if given is not None:
            return self.integers(given, "axes")
        axes = self.get("axes")
        return None if axes is None else list(axes)


# A function per operator: the node and its inputs (None: left out) -> its outputs.
Function = Callable[..., "Value | tuple[Value, ...]"]


@dataclass(frozen=True)
class Operator:
    """An operator's function, and the attributes that it heeds."""

    function: Function
    attributes: frozenset[str]


OPERATORS: dict[tuple[str, str], Operator] = {}


def operator(*names: str, attributes: str = "", domain: str = "") -> Callable[[Function], Function]:
    """Decorator: the function imports the ONNX operators ``names`` and heeds ``attributes`` (names between spaces).

    A node with any other attribute is refused, never imported as if the attribute were not there.
    """

    def register(function: Function) -> Function:
        for name in names:
            OPERATORS[domain, name] = Operator(function, frozenset(attributes.split()))
        return function

    return register


def look_up(node: Node) -> Function:
    """The node's function; raises `Problem` for an operator, opset or attribute that the importer does not know."""
    known = OPERATORS.get((node.domain, node.operator))
    if known is None:
        node.fail(
            "unknown to the SavedModel importer; build the model of operators that docs/models.md lists, "
            "or add a function for it in models/onnx_*.py"
        )
    if not node.domain and node.opset < OLDEST_OPSET:
        node.fail(f"this opset is too old; export the model with opset {OLDEST_OPSET} to {NEWEST_OPSET}")
    if not node.domain and node.opset > NEWEST_OPSET:
        node.fail(f"this opset is newer than what is tested; export the model with opset {NEWEST_OPSET} or older")
    for name in node.attributes:
        if name not in known.attributes:
            node.fail(f"attribute {name} is not supported; export the model without it")
    return known.function
