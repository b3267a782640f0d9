"""ONNX operators that make constants, ask for sizes, or give the same elements another shape."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from models.onnx_elementwise import element_type
from models.onnx_nodes import Node, operator
from models.onnx_values import NHWC, Array, Value, without_axes
from models.tensorflow_quietly import tf


@operator("Identity")
def identity(node: Node, x: Value) -> Value:
    """The value itself."""
    return x


@operator("Dropout", attributes="seed")
def dropout(node: Node, x: Value, ratio: Value | None = None, training: Value | None = None) -> tuple[Value, ...]:
    """The value itself, and a mask that is true everywhere: a served model drops nothing."""
    if training is not None and np.any(node.static(training, "training_mode")):
        node.fail("training mode cannot be served; export the model in evaluation mode")
    return x, x.with_tensor(tf.ones_like(x.tensor, tf.bool))


KINDS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


@operator("Constant", attributes=f"value {' '.join(KINDS)}")
def constant(node: Node) -> Value:
    """A constant tensor, number or list of numbers."""
    ((key, value),) = node.attributes.items()
    if key == "value":
        element_type(node, value.data_type)
        return Value.of(onnx.numpy_helper.to_array(value))
    return Value.of(np.array(value, KINDS[key]))


@operator("ConstantOfShape", attributes="value")
def constant_of_shape(node: Node, shape: Value) -> Value:
    """A tensor of one repeated value."""
    value = node.get("value")
    number = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    if shape.constant is not None:
        node.bounded(shape.constant, number.dtype)
    return Value.of(tf.fill(shape.tensor, number.reshape(())))


@operator("Range")
def arithmetic_range(node: Node, start: Value, limit: Value, delta: Value) -> Value:
    """The numbers from ``start`` to before ``limit``."""
    first, last, step = (value.constant for value in (start, limit, delta))
    if first is not None and last is not None and step is not None:
        if step == 0:
            node.fail("delta is 0; mend the model's range")
        node.bounded([int(max((last.item() - first.item()) / step.item(), 0))], first.dtype)
    return Value.of(tf.range(start.tensor, limit.tensor, delta.tensor))


@operator("Shape", attributes="start end")
def shape(node: Node, x: Value) -> Value:
    """The sizes of ``x`` in ONNX's order, a constant where they are known."""
    chosen = range(x.rank)[slice(node.get("start", 0), node.get("end"))]
    sizes = [x.shape[axis] for axis in chosen]
    if None not in sizes:
        return Value.of(np.array(sizes, np.int64))
    dynamic = tf.shape(x.tensor, out_type=tf.int64)
    return Value.of(
        tf.stack(
            [
                dynamic[position] if size is None else tf.constant(size, tf.int64)
                for size, position in zip(sizes, x.positions(list(chosen)), strict=True)
            ]
        )
    )


@operator("Size")
def size(node: Node, x: Value) -> Value:
    """The number of elements."""
    return Value.of(tf.size(x.tensor, out_type=tf.int64))


@operator("Reshape", attributes="allowzero")
def reshape(node: Node, x: Value, shape: Value) -> Value:
    """Other sizes, the same elements in ONNX's order."""
    target = shape.logical()
    if isinstance(target, np.ndarray) and x.shape == tuple(target):
        return x
    if not node.get("allowzero", 0):
        target = _zeros_replaced(x, target)
    return _flattened(x, tf.reshape(x.logical(), target))


def _zeros_replaced(x: Value, target: Array) -> Array:
    """A target whose zeros stand for the sizes of ``x``."""
    if isinstance(target, np.ndarray):
        if not (target == 0).any():
            return target
        sizes = tf.shape(x.logical(), out_type=tf.int64)
        return tf.stack([sizes[axis] if size == 0 else tf.constant(size, tf.int64) for axis, size in enumerate(target)])
    own = tf.shape(x.logical(), out_type=target.dtype)
    count = tf.size(target)
    own = tf.concat([own, tf.ones([tf.maximum(count - x.rank, 0)], target.dtype)], 0)[:count]
    return tf.where(target == 0, own, target)


@operator("Flatten", attributes="axis")
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


@operator("Transpose", attributes="perm")
def transpose(node: Node, x: Value) -> Value:
    """Renumbers the axes and moves nothing; constants alone are moved."""
    order = list(node.get("perm", range(x.rank)[::-1]))
    if sorted(order) != list(range(x.rank)):
        node.fail(f"perm={order} does not order {x.rank} axes; mend it")
    if x.constant is not None:
        return Value.of(x.constant.transpose(order))
    return Value(x.tensor, tuple(order.index(axis) for axis in x.axes))


@operator("Squeeze", attributes="axes")
def squeeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    """Drop axes of size 1."""
    given = node.axes(axes)
    dropped = [axis for axis, size in enumerate(x.shape) if size == 1] if given is None else given
    return without_axes(x, tf.squeeze(x.tensor, x.positions(dropped)), dropped) if dropped else x


@operator("Unsqueeze", attributes="axes")
def unsqueeze(node: Node, x: Value, axes: Value | None = None) -> Value:
    """Insert axes of size 1."""
    added = node.axes(axes) or []
    rank = x.rank + len(added)
    new = sorted(axis % rank for axis in added)
    old = [axis for axis in range(rank) if axis not in new]
    array = x.tensor
    for _ in new:
        array = tf.expand_dims(array, -1)
    return Value(array, (*(old[axis] for axis in x.axes), *new))


@operator("Expand")
def expand(node: Node, x: Value, shape: Value) -> Value:
    """Broadcast to a shape, in both directions."""
    target = shape.constant
    if target is not None:
        node.bounded(target, x.tensor.dtype)
        if len(target) == x.rank and None not in x.shape:
            sizes = np.broadcast_shapes(tuple(target), x.shape)  # type: ignore[arg-type]
            return x.with_tensor(tf.broadcast_to(x.tensor, [sizes[axis] for axis in x.axes]))
    array = x.logical()
    sizes = tf.broadcast_dynamic_shape(tf.shape(array, out_type=tf.int64), tf.cast(shape.tensor, tf.int64))
    return Value.of(tf.broadcast_to(array, sizes))


@operator("Tile")
def tile(node: Node, x: Value, repeats: Value) -> Value:
    """Repeat along each axis."""
    times = node.integers(repeats, "repeats") or []
    node.bounded([(size or 1) * count for size, count in zip(x.shape, times, strict=True)], x.tensor.dtype)
    return x.with_tensor(tf.tile(x.tensor, [times[axis] for axis in x.axes]))


@operator("DepthToSpace", attributes="blocksize mode")
def depth_to_space(node: Node, x: Value) -> Value:
    """Blocks of channels become blocks of pixels: block number first among the channels (DCR) or last (CRD)."""
    side, images = _block(node, x)
    channels = x.shape[1]
    if node.choice("mode", "DCR", "DCR", "CRD") == "CRD":
        order = _channels(node, channels).reshape(-1, side * side).T.reshape(-1)
        images = tf.gather(images, order, axis=3)
    return Value(tf.nn.depth_to_space(images, side), NHWC)


@operator("SpaceToDepth", attributes="blocksize mode")
def space_to_depth(node: Node, x: Value) -> Value:
    """The way back from `depth_to_space`."""
    side, images = _block(node, x)
    y = tf.nn.space_to_depth(images, side)
    if node.choice("mode", "DCR", "DCR", "CRD") == "CRD":
        order = _channels(node, y.shape[3]).reshape(side * side, -1).T.reshape(-1)
        y = tf.gather(y, order, axis=3)
    return Value(y, NHWC)


def _block(node: Node, x: Value) -> tuple[int, Array]:
    if x.rank != 4:
        node.fail(f"rank {x.rank}; only images [N, C, H, W] are supported")
    side = node.get("blocksize")
    return side, x.laid(NHWC)


def _channels(node: Node, count: int | None) -> Any:
    if count is None:
        node.fail("the number of channels must be known at export time; export the model with fixed sizes")
    return np.arange(count)
