"""ONNX operators that join, cut, pick and pad."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.onnx_nodes import Node, operator
from models.onnx_values import Value
from models.tensorflow_quietly import tf

FAR = 2**31 - 1  # ONNX writes "to the end" as the largest or smallest integer, of 32 bits or of 64


@operator("Concat", attributes="axis")
def concat(node: Node, *values: Value) -> Value:
    """Join along one axis."""
    axes = next((value.axes for value in values if value.constant is None), values[0].axes)
    position = axes.index(node.get("axis") % len(axes))
    return Value(tf.concat([value.laid(axes) for value in values], position), axes)


@operator("Split", attributes="axis num_outputs")
def split(node: Node, x: Value, sizes: Value | None = None) -> tuple[Value, ...]:
    """Cut along one axis, into given sizes or as many equal parts as there are outputs (the last may be smaller)."""
    axis = node.get("axis", 0)
    (position,) = x.positions([axis])
    parts = node.integers(sizes, "split")
    if parts is None:
        whole = x.shape[axis]
        if whole is None:
            node.fail("equal parts need a size that is known at export time; export the model with fixed sizes")
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
        selection[position] = slice(
            None if abs(begin) >= FAR else begin, None if abs(end) >= FAR else end, None if stride == 1 else stride
        )
    return x.with_tensor(tf.convert_to_tensor(x.tensor)[tuple(selection)])


@operator("Gather", attributes="axis")
def gather(node: Node, x: Value, indices: Value) -> Value:
    """Pick along one axis; negative indices count from the end."""
    axis = node.get("axis", 0)
    chosen = indices.logical()
    if indices.rank == 1:  # the rank stays, and so does the layout
        (position,) = x.positions([axis])
        return x.with_tensor(tf.gather(x.tensor, _from_start(x.tensor, position, chosen), axis=position))
    array = x.logical()
    return Value.of(tf.gather(array, _from_start(array, axis, chosen), axis=axis % x.rank))


@operator("GatherND", attributes="batch_dims")
def gather_nd(node: Node, x: Value, indices: Value) -> Value:
    """Pick slices by their places along the first axes after ``batch_dims``; negative indices count from the end."""
    batch_dims = node.get("batch_dims", 0)
    array, places = x.logical(), indices.logical()
    along = places.shape[-1]
    if along is None:
        node.fail("the last axis of its indices must have a size that is known at export time")
    sizes = tf.shape(array, out_type=places.dtype)[batch_dims : batch_dims + along]
    return Value.of(tf.gather_nd(array, tf.where(places < 0, places + sizes, places), batch_dims=batch_dims))


def _from_start(array: Any, axis: int, indices: Any) -> Any:
    if isinstance(indices, np.ndarray) and (indices >= 0).all():
        return indices
    return tf.where(indices < 0, indices + tf.shape(array, out_type=indices.dtype)[axis], indices)


@operator("Pad", attributes="mode")
def pad(node: Node, x: Value, pads: Value, value: Value | None = None, axes: Value | None = None) -> Value:
    """Add elements before and after: a constant, the mirror image, the edge or the other side; negative pads cut."""
    mode = node.choice("mode", "constant", "constant", "edge", "reflect", "wrap")
    widths = node.integers(pads, "pads") or []
    along = [axis % x.rank for axis in node.integers(axes, "axes") or range(x.rank)]
    if len(widths) != 2 * len(along):
        node.fail(f"{len(widths)} pads for {len(along)} axes; give two for each")
    before_and_after = {axis: (widths[index], widths[index + len(along)]) for index, axis in enumerate(along)}
    sizes = [size or 1 for size in x.shape]
    node.bounded([size + sum(before_and_after.get(axis, (0, 0))) for axis, size in enumerate(sizes)], x.tensor.dtype)
    tensor = tf.convert_to_tensor(x.tensor)
    for axis, (before, after) in before_and_after.items():
        if before < 0 or after < 0:
            (position,) = x.positions([axis])
            selection = [slice(None)] * x.rank
            selection[position] = slice(max(-before, 0), min(after, 0) or None)
            tensor = tensor[tuple(selection)]
    paddings = {axis: (max(before, 0), max(after, 0)) for axis, (before, after) in before_and_after.items()}
    if mode == "constant":
        fill = node.static(value, "constant_value")
        physical = [paddings.get(axis, (0, 0)) for axis in x.axes]
        number = 0 if fill is None else fill.reshape(())
        if tensor.dtype == tf.bool:
            padded = tf.pad(tf.cast(tensor, tf.uint8), physical, constant_values=np.uint8(bool(number)))
            return x.with_tensor(tf.cast(padded, tf.bool))
        return x.with_tensor(tf.pad(tensor, physical, constant_values=number))
    if mode == "reflect" and all(
        max(widths) < (x.shape[axis] or 0) for axis, widths in paddings.items() if any(widths)
    ):
        return x.with_tensor(tf.pad(tensor, [paddings.get(axis, (0, 0)) for axis in x.axes], "REFLECT"))
    for axis, (before, after) in paddings.items():
        if before or after:
            (position,) = x.positions([axis])
            whole = tensor.shape[position]
            if whole is None:
                node.fail(f"axis {axis} of unknown size cannot be padded by {mode}; export the model with fixed sizes")
            places = np.pad(np.arange(whole), (before, after), mode=mode)  # type: ignore[call-overload]
            tensor = tf.gather(tensor, places, axis=position)
    return x.with_tensor(tensor)
