"""ONNX operators that reduce axes: sums, extremes, norms, the place of the largest."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.onnx_nodes import Node, operator
from models.onnx_values import Value, without_axes
from models.tensorflow_quietly import tf


def _extreme(numbers: Callable[..., Any], truths: Callable[..., Any]) -> Callable[..., Any]:
    def reduce(x: Any, **where: Any) -> Any:
        return (truths if x.dtype == bool else numbers)(x, **where)

    return reduce


REDUCTIONS: dict[str, Callable[..., Any]] = {
    "ReduceL1": lambda x, **where: tf.reduce_sum(tf.abs(x), **where),
    "ReduceL2": lambda x, **where: tf.sqrt(tf.reduce_sum(tf.square(x), **where)),
    "ReduceLogSum": lambda x, **where: tf.math.log(tf.reduce_sum(x, **where)),
    "ReduceLogSumExp": tf.reduce_logsumexp,
    "ReduceMax": _extreme(tf.reduce_max, tf.reduce_any),
    "ReduceMean": tf.reduce_mean,
    "ReduceMin": _extreme(tf.reduce_min, tf.reduce_all),
    "ReduceProd": tf.reduce_prod,
    "ReduceSum": tf.reduce_sum,
    "ReduceSumSquare": lambda x, **where: tf.reduce_sum(tf.square(x), **where),
}


@operator(*REDUCTIONS, attributes="axes keepdims noop_with_empty_axes")
def reduction(node: Node, x: Value, axes: Value | None = None) -> Value:
    """Reduce some axes, or all of them."""
    reduced = node.axes(axes) or []
    if not reduced and not node.get("noop_with_empty_axes", 0):
        reduced = list(range(x.rank))
    keep = bool(node.get("keepdims", 1))
    tensor = tf.convert_to_tensor(x.tensor)
    y = REDUCTIONS[node.operator](tensor, axis=x.positions(reduced), keepdims=keep)
    return x.with_tensor(y) if keep else without_axes(x, y, reduced)


@operator("ArgMax", "ArgMin", attributes="axis keepdims select_last_index")
def place_of_extreme(node: Node, x: Value) -> Value:
    """Where the largest or smallest element along one axis lies: the first such place, or the last."""
    axis = node.get("axis", 0)
    (position,) = x.positions([axis])
    search = tf.argmax if node.operator == "ArgMax" else tf.argmin
    if node.get("select_last_index", 0):
        last = tf.shape(x.tensor, out_type=tf.int64)[position] - 1
        y = last - search(tf.reverse(x.tensor, [position]), axis=position)
    else:
        y = search(x.tensor, axis=position)
    if node.get("keepdims", 1):
        return x.with_tensor(tf.expand_dims(y, position))
    return without_axes(x, y, [axis])


@operator("TopK", attributes="axis largest sorted")
def top_k(node: Node, x: Value, k: Value) -> tuple[Value, Value]:
    """The k largest or smallest along one axis, sorted, and their places; of equals the first comes first."""
    (count,) = node.integers(k, "k") or []
    axis = node.get("axis", -1) % x.rank
    # TensorFlow sorts along the last dimension only.
    axes = (*(other for other in x.axes if other != axis), axis)
    data = tf.convert_to_tensor(x.laid(axes))
    if node.get("largest", 1):
        values, places = tf.math.top_k(data, count)
    else:
        mirrored = -data if data.dtype.is_floating else tf.bitwise.invert(data)  # of integers, -data can overflow
        values, places = tf.math.top_k(mirrored, count)
        values = -values if data.dtype.is_floating else tf.bitwise.invert(values)
    return Value(values, axes), Value(tf.cast(places, tf.int64), axes)
