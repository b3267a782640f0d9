"""ONNX operators that work element by element: arithmetic, comparisons, selection, element types."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx

from models.onnx_nodes import Node, operator
from models.onnx_values import Array, Value, broadcast
from models.tensorflow_quietly import tf

UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": tf.abs,
    "Ceil": tf.math.ceil,
    "Cos": tf.cos,
    "Erf": tf.math.erf,
    "Exp": tf.exp,
    "Floor": tf.math.floor,
    "IsNaN": tf.math.is_nan,
    "Log": tf.math.log,
    "Neg": tf.negative,
    "Not": tf.logical_not,
    "Reciprocal": tf.math.reciprocal,
    "Round": tf.round,  # both round halves to even
    "Sign": tf.sign,
    "Sin": tf.sin,
    "Sqrt": tf.sqrt,
}


@operator(*UNARY)
def unary(node: Node, x: Value) -> Value:
    """A function of each element."""
    return x.with_tensor(UNARY[node.operator](x.tensor))


def _divide(x: Any, y: Any) -> Any:
    """ONNX divides integers towards zero."""
    return tf.truncatediv(x, y) if tf.as_dtype(x.dtype).is_integer else tf.divide(x, y)


def _power(x: Any, y: Any) -> Any:
    """The result has the base's type, whatever the exponent's."""
    base, exponent = tf.as_dtype(x.dtype), tf.as_dtype(y.dtype)
    if base.is_integer and exponent.is_floating:
        return tf.cast(tf.pow(tf.cast(x, exponent), y), base)
    return tf.pow(x, tf.cast(y, base))


BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "Add": tf.add,
    "And": tf.logical_and,
    "Div": _divide,
    "Equal": tf.equal,
    "Greater": tf.greater,
    "GreaterOrEqual": tf.greater_equal,
    "Less": tf.less,
    "LessOrEqual": tf.less_equal,
    "Max": tf.maximum,
    "Mean": tf.add,
    "Min": tf.minimum,
    "Mul": tf.multiply,
    "Or": tf.logical_or,
    "Pow": _power,
    "Sub": tf.subtract,
    "Sum": tf.add,
    "Xor": tf.math.logical_xor,
}


@operator(*BINARY)
def binary(node: Node, *values: Value) -> Value:
    """A function of the elements of two (Max, Mean, Min, Sum: one or more) values, broadcast."""
    tensors, axes = broadcast(list(values))
    y = reduce(BINARY[node.operator], tensors[1:], tf.convert_to_tensor(tensors[0]))
    return Value(y / len(values) if node.operator == "Mean" else y, axes)


@operator("Mod", attributes="fmod")
def modulo(node: Node, a: Value, b: Value) -> Value:
    """The remainder with the divisor's sign or (fmod) the dividend's."""
    (x, y), axes = broadcast([a, b])
    kind = tf.as_dtype(x.dtype)
    if kind in (tf.float16, tf.bfloat16):  # TensorFlow has no kernel for them
        x, y = tf.cast(x, tf.float32), tf.cast(y, tf.float32)
    remainder = tf.truncatemod(x, y) if node.get("fmod", 0) else tf.math.floormod(x, y)
    return Value(tf.cast(remainder, kind), axes)


@operator("Where")
def where(node: Node, condition: Value, x: Value, y: Value) -> Value:
    """Elements of ``x`` where the condition holds, else of ``y``."""
    tensors, axes = broadcast([condition, x, y])
    return Value(tf.where(*tensors), axes)


@operator("Clip")
def clip(node: Node, x: Value, low: Value | None = None, high: Value | None = None) -> Value:
    """Limit to [low, high]."""
    tensor = x.tensor
    bounds = [None if bound is None else bound.constant for bound in (low, high)]
    if bounds == [0.0, 6.0] and tf.as_dtype(tensor.dtype).is_floating:
        return x.with_tensor(tf.nn.relu6(tensor))  # TensorFlow fuses it with a convolution
    if low is not None:
        tensor = tf.maximum(tensor, low.tensor)
    if high is not None:
        tensor = tf.minimum(tensor, high.tensor)
    return x.with_tensor(tf.convert_to_tensor(tensor))


@operator("Cast", attributes="round_mode saturate to")
def cast(node: Node, x: Value) -> Value:
    """Another element type (``saturate`` and ``round_mode`` concern 8-bit floats alone, which are refused)."""
    return x.with_tensor(tf.cast(_readable(node, x), element_type(node, node.get("to"))))


@operator("CastLike", attributes="round_mode saturate")
def cast_like(node: Node, x: Value, like: Value) -> Value:
    """The element type of another value."""
    return x.with_tensor(tf.cast(_readable(node, x), _readable(node, like).dtype))


TINY = ("FLOAT8", "FLOAT4", "INT4", "UINT4", "INT2", "UINT2")


def element_type(node: Node, number: int) -> np.dtype:
    """NumPy's type for ONNX's ``number``; strings and what has less than a byte or is an 8-bit float are refused."""
    name = onnx.TensorProto.DataType.Name(number)
    if name.startswith(TINY) or name in ("STRING", "UNDEFINED"):
        node.fail(f"element type {name} is not supported; export the model in floats of 16 bits or more")
    dtype: np.dtype = onnx.helper.tensor_dtype_to_np_dtype(number)
    return dtype


def _readable(node: Node, x: Value) -> Array:
    name = tf.as_dtype(x.tensor.dtype).name
    if name.upper().startswith(TINY):
        node.fail(f"element type {name} is not supported; export the model in floats of 16 bits or more")
    return x.tensor
