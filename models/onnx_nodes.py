"""The table of ONNX operators that the importer knows, and a node as an operator's function sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import onnx

from models.onnx_values import Value
from models.problem import Problem
from models.tensorflow_quietly import tf

OLDEST_OPSET = 13


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
        attributes = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in proto.attribute}
        name = proto.name or proto.output[0]
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

    def static(self, value: Value | None, what: str) -> np.ndarray | None:
        """The array of an optional input that must be known at export time."""
        if value is None:
            return None
        array = value.constant if value.constant is not None else tf.get_static_value(value.logical())
        if array is None:
            self.fail(f"{what} is computed at run time; the importer needs a constant")
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
Operator = Callable[..., "Value | tuple[Value, ...]"]
OPERATORS: dict[tuple[str, str], Operator] = {}


def operator(*names: str, domain: str = "") -> Callable[[Operator], Operator]:
    """Decorator: the function imports the ONNX operators ``names``."""

    def register(function: Operator) -> Operator:
        for name in names:
            OPERATORS[domain, name] = function
        return function

    return register


def look_up(node: Node) -> Operator:
    """The node's function; raises `Problem` for an operator or opset that the importer does not know."""
    if not node.domain and node.opset < OLDEST_OPSET:
        node.fail(f"this opset is too old; export the model with opset {OLDEST_OPSET} or newer")
    function = OPERATORS.get((node.domain, node.operator))
    if function is None:
        node.fail("unknown to the SavedModel importer; add a function for it in models/onnx_operators.py")
    return function
