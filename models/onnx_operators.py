"""ONNX operators that work element by element, multiply matrices or move data. Adding one: a decorated function."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx

from models.onnx_nodes import Node, operator
from models.onnx_values import Value, broadcast, flatten_like
from models.tensorflow_quietly import tf

UNARY: dict[str, Callable[[Any], Any]] = {
    "Abs": tf.abs,
    "Ceil": tf.math.ceil,
    "Erf": tf.math.erf,
    "Exp": tf.exp,
    "Floor": tf.math.floor,
    "HardSwish": lambda x: x * tf.clip_by_value(x / 6 + 0.5, 0.0, 1.0),
    "Log": tf.math.log,
    "Neg": tf.negative,
    "Not": tf.logical_not,
    "Reciprocal": tf.math.reciprocal,
    "Relu": tf.nn.relu,
    "Sigmoid": tf.sigmoid,
    "Softplus": tf.math.softplus,
    "Sqrt": tf.sqrt,
    "Tanh": tf.tanh,
}


@operator(*UNARY)
def unary(node: Node, x: Value) -> Value:
    """A function of each element."""
    return x.with_tensor(UNARY[node.operator](x.tensor))


def _divide(x: Any, y: Any) -> Any:
    """ONNX divides integers towards zero."""
    return tf.truncatediv(x, y) if tf.as_dtype(x.dtype).is_integer else tf.divide(x, y)


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
    "Min": tf.minimum,
    "Mul": tf.multiply,
    "Or": tf.logical_or,
    "Pow": lambda x, y: tf.pow(x, tf.cast(y, x.dtype)),
    "Sub": tf.subtract,
    "Sum": tf.add,
}


@operator(*BINARY)
def binary(node: Node, *values: Value) -> Value:
    """A function of the elements of two (Max, Min, Sum: one or more) values, broadcast."""
    tensors, axes = broadcast(list(values))
    return Value(reduce(BINARY[node.operator], tensors[1:], tf.convert_to_tensor(tensors[0])), axes)


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


@operator("HardSigmoid")
def hard_sigmoid(node: Node, x: Value) -> Value:
    """alpha x + beta, limited to [0, 1]."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return x.with_tensor(tf.clip_by_value(alpha * x.tensor + beta, 0.0, 1.0))


@operator("LeakyRelu")
def leaky_relu(node: Node, x: Value) -> Value:
    """x above 0, alpha x below."""
    return x.with_tensor(tf.nn.leaky_relu(x.tensor, node.get("alpha", 0.01)))


@operator("Elu")
def elu(node: Node, x: Value) -> Value:
    """x above 0, alpha (e^x - 1) below."""
    alpha = node.get("alpha", 1.0)
    return x.with_tensor(tf.where(x.tensor > 0, x.tensor, alpha * tf.math.expm1(tf.minimum(x.tensor, 0))))


@operator("PRelu")
def prelu(node: Node, x: Value, slope: Value) -> Value:
    """x above 0, slope x below."""
    (data, factor), axes = broadcast([x, slope])
    return Value(tf.where(data > 0, data, data * factor), axes)


@operator("Gelu")
def gelu(node: Node, x: Value) -> Value:
    """Gaussian error linear unit, exact or by tanh."""
    return x.with_tensor(tf.nn.gelu(x.tensor, approximate=node.text("approximate", "none") == "tanh"))


@operator("Softmax", "LogSoftmax")
def softmax(node: Node, x: Value) -> Value:
    """Softmax along one axis."""
    function = tf.nn.softmax if node.operator == "Softmax" else tf.nn.log_softmax
    (axis,) = x.positions([node.get("axis", -1)])
    return x.with_tensor(function(x.tensor, axis=axis))


@operator("MatMul")
def matmul(node: Node, a: Value, b: Value) -> Value:
    """Matrix product of the last two axes."""
    if a.flattened is not None and b.constant is not None and b.rank == 2:
        laid = flatten_like(a.flattened, b.constant)
        if laid is not None:
            return Value.of(tf.matmul(*laid))
    if a.rank == 1 or b.rank == 1:
        return Value.of(tf.tensordot(a.logical(), b.logical(), [[a.rank - 1], [max(b.rank - 2, 0)]]))
    return Value.of(tf.matmul(a.logical(), b.logical()))


@operator("Gemm")
def gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    """alpha A B + beta C with A or B transposed on request."""
    matrix = b.logical()
    if node.get("transB", 0):
        matrix = matrix.T if isinstance(matrix, np.ndarray) else tf.transpose(matrix)
    if node.get("transA", 0):
        a = Value.of(tf.transpose(a.logical()))
    y = matmul(node, a, Value.of(matrix)).tensor  # type: ignore[union-attr]
    if node.get("alpha", 1.0) != 1.0:
        y = y * node.get("alpha")
    if c is not None:
        addend = c.logical()
        if node.get("beta", 1.0) != 1.0:
            addend = addend * np.float32(node.get("beta"))
        y = tf.nn.bias_add(y, addend) if c.rank == 1 and c.shape[0] == matrix.shape[1] else y + addend
    return Value.of(y)


@operator("Identity", "Dropout")
def identity(node: Node, x: Value, *_: Value | None) -> Value:
    """The value itself; a served model drops nothing."""
    if node.outputs > 1:
        node.fail("its second output (mask) is not supported")
    return x


@operator("Cast")
def cast(node: Node, x: Value) -> Value:
    """Another element type."""
    return x.with_tensor(tf.cast(x.tensor, onnx.helper.tensor_dtype_to_np_dtype(node.get("to"))))


@operator("Constant")
def constant(node: Node) -> Value:
    """A constant tensor, number or list of numbers."""
    ((key, value),) = node.attributes.items()
    if key == "value":
        return Value.of(onnx.numpy_helper.to_array(value))
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    if key not in kinds:
        node.fail(f"{key} is not supported")
    return Value.of(np.array(value, kinds[key]))


@operator("ConstantOfShape")
def constant_of_shape(node: Node, shape: Value) -> Value:
    """A tensor of one repeated value."""
    value = node.get("value")
    number = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return Value.of(tf.fill(shape.tensor, number.reshape(())))


@operator("Range")
def arithmetic_range(node: Node, start: Value, limit: Value, delta: Value) -> Value:
    """The numbers from ``start`` to before ``limit``."""
    return Value.of(tf.range(start.tensor, limit.tensor, delta.tensor))


@operator("Shape")
def shape(node: Node, x: Value) -> Value:
    """The sizes of ``x`` in ONNX's order, a constant where they are known."""
    chosen = range(x.rank)[slice(node.get("start", 0), node.get("end"))]
    sizes = [x.shape[axis] for axis in chosen]
    if None not in sizes:
        return Value.of(np.array(sizes, np.int64))
    dynamic = tf.shape(x.tensor, out_type=tf.int64)
    return Value.of(tf.stack([dynamic[position] for position in x.positions(list(chosen))]))


@operator("Reshape")
def reshape(node: Node, x: Value, shape: Value) -> Value:
    """Other sizes, the same elements in ONNX's order."""
    target = shape.logical()
    if isinstance(target, np.ndarray) and not node.get("allowzero", 0) and (target == 0).any():
        sizes = tf.shape(x.logical(), out_type=tf.int64)
        target = tf.stack(
            [sizes[axis] if size == 0 else tf.constant(size, tf.int64) for axis, size in enumerate(target)]
        )
    return _flattened(x, tf.reshape(x.logical(), target))


@operator("Flatten")
def flatten(node: Node, x: Value) -> Value:
    """Two axes: the product of those before ``axis`` and of the rest."""
    axis = node.get("axis", 1)
    axis += x.rank if axis < 0 else 0
    sizes = tf.shape(x.logical())
    rest = x.shape[axis:]
    columns = tf.reduce_prod(sizes[axis:]) if None in rest else int(np.prod([size or 0 for size in rest]))
    return _flattened(x, tf.reshape(x.logical(), [tf.reduce_prod(sizes[:axis]), columns]))


def _flattened(x: Value, y: tf.Tensor) -> Value:
    """``y``, remembering ``x`` where ``y`` is ``x`` with everything but the batch flattened."""
    sizes = x.shape[1:]
    whole = x.rank > 2 and y.shape.rank == 2 and None not in sizes and y.shape[1] == np.prod(sizes)  # type: ignore[arg-type]
    return Value(y, tuple(range(y.shape.rank)), flattened=x if whole else None)


@operator("Transpose")
def transpose(node: Node, x: Value) -> Value:
    """Renumbers the axes and moves nothing; constants alone are moved."""
    order = list(node.get("perm", range(x.rank)[::-1]))
    if x.constant is not None:
        return Value.of(x.constant.transpose(order))
    return Value(x.tensor, tuple(order.index(axis) for axis in x.axes))


@operator("Squeeze")
def squeeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    """Drop axes of size 1."""
    given = node.axes(axes)
    dropped = [axis for axis, size in enumerate(x.shape) if size == 1] if given is None else given
    return _dropped(x, tf.squeeze(x.tensor, x.positions(dropped)), dropped) if dropped else x


@operator("Unsqueeze")
def unsqueeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    """Insert axes of size 1."""
    added = node.axes(axes) or []
    rank = x.rank + len(added)
    array = x.logical()
    for axis in sorted(axis % rank for axis in added):
        array = tf.expand_dims(array, axis)
    return Value.of(array)


@operator("Concat")
def concat(node: Node, *values: Value) -> Value:
    """Join along one axis."""
    axes = next((value.axes for value in values if value.constant is None), values[0].axes)
    position = axes.index(node.get("axis") % len(axes))
    return Value(tf.concat([value.laid(axes) for value in values], position), axes)


@operator("Split")
def split(node: Node, x: Value, sizes: Value | None = None) -> tuple[Value, ...]:
    """Cut along one axis, into given sizes or as many equal parts as there are outputs (the last may be smaller)."""
    axis = node.get("axis", 0)
    (position,) = x.positions([axis])
    parts = node.integers(sizes, "split")
    if parts is None:
        whole = x.shape[axis]
        if whole is None:
            node.fail("equal parts need a size that is known at export time")
        count = node.get("num_outputs", node.outputs)
        part = -(-whole // count)
        parts = [part] * (count - 1) + [whole - part * (count - 1)]
    return tuple(x.with_tensor(piece) for piece in tf.split(x.tensor, parts, position))


@operator("Slice")
def cut(
    node: Node, x: Value, starts: Value, ends: Value, axes: Value | None = None, steps: Value | None = None
) -> Value:
    """A regular selection along some axes."""
    first, last = node.integers(starts, "starts") or [], node.integers(ends, "ends") or []
    along = node.integers(axes, "axes") or list(range(len(first)))
    step = node.integers(steps, "steps") or [1] * len(first)
    selection = [slice(None)] * x.rank
    for position, begin, end, stride in zip(x.positions(along), first, last, step, strict=True):
        far = 2**31 - 1  # ONNX writes "to the end" as the largest or smallest integer
        selection[position] = slice(
            None if abs(begin) >= far else begin, None if abs(end) >= far else end, None if stride == 1 else stride
        )
    return x.with_tensor(tf.convert_to_tensor(x.tensor)[tuple(selection)])


@operator("Gather")
def gather(node: Node, x: Value, indices: Value) -> Value:
    """Pick along one axis; negative indices count from the end."""
    array, axis = x.logical(), node.get("axis", 0)
    chosen = indices.logical()
    size = tf.shape(array, out_type=chosen.dtype)[axis]
    return Value.of(tf.gather(array, tf.where(chosen < 0, chosen + size, chosen), axis=axis % x.rank))


@operator("Expand")
def expand(node: Node, x: Value, shape: Value) -> Value:
    """Broadcast to a shape, in both directions."""
    sizes = tf.broadcast_dynamic_shape(tf.shape(x.logical(), out_type=tf.int64), shape.tensor)
    return Value.of(tf.broadcast_to(x.logical(), sizes))


@operator("Pad")
def pad(node: Node, x: Value, pads: Value, value: Value | None = None, axes: Value | None = None) -> Value:
    """Add elements before and after: a constant, or the mirror image."""
    mode = node.text("mode", "constant").upper()
    if mode not in ("CONSTANT", "REFLECT"):
        node.fail(f"mode {mode.lower()} is not supported")
    widths = node.integers(pads, "pads") or []
    if min(widths, default=0) < 0:
        node.fail("negative pads are not supported")
    along = node.integers(axes, "axes") or list(range(x.rank))
    paddings = [(0, 0)] * x.rank
    for index, position in enumerate(x.positions(along)):
        paddings[position] = (widths[index], widths[index + len(along)])
    fill = node.static(value, "constant_value")
    return x.with_tensor(tf.pad(x.tensor, paddings, mode, 0 if fill is None else fill.reshape(())))


REDUCTIONS = {
    "ReduceMax": tf.reduce_max,
    "ReduceMean": tf.reduce_mean,
    "ReduceMin": tf.reduce_min,
    "ReduceProd": tf.reduce_prod,
    "ReduceSum": tf.reduce_sum,
}


@operator(*REDUCTIONS)
def reduction(node: Node, x: Value, axes: Value | None = None) -> Value:
    """Reduce some axes, or all of them."""
    reduced = node.axes(axes) or []
    if not reduced:
        if node.get("noop_with_empty_axes", 0):
            return x
        reduced = list(range(x.rank))
    keep = bool(node.get("keepdims", 1))
    y = REDUCTIONS[node.operator](x.tensor, axis=x.positions(reduced), keepdims=keep)
    return x.with_tensor(y) if keep else _dropped(x, y, reduced)


def _dropped(x: Value, y: tf.Tensor, dropped: list[int]) -> Value:
    """``y`` is ``x`` without some logical axes: number the others anew."""
    gone = {axis % x.rank for axis in dropped}
    left = [axis for axis in x.axes if axis not in gone]
    return Value(y, tuple(sorted(left).index(axis) for axis in left))
