"""ONNX's normalisations: with statistics of the training, or of the value itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.onnx_nodes import Node, operator
from models.onnx_values import NHWC, Value, broadcast
from models.tensorflow_quietly import tf


@operator("BatchNormalization", attributes="epsilon momentum training_mode")
def batch_normalization(node: Node, x: Value, scale: Value, b: Value, mean: Value, var: Value) -> Value:
    """Normalisation with the statistics of the training, as one multiplication and one addition, in their type."""
    if node.get("training_mode", 0) or node.outputs > 1:
        node.fail("training mode cannot be served; export the model in evaluation mode")
    shape = [-1 if axis == 1 else 1 for axis in x.axes]
    root = np.sqrt if var.constant is not None else tf.sqrt
    factor = scale.tensor / root(var.tensor + np.asarray(node.get("epsilon", 1e-5), _numpy_type(var)))
    offset = b.tensor - mean.tensor * factor
    normalised = tf.cast(x.tensor, factor.dtype) * tf.reshape(factor, shape) + tf.reshape(offset, shape)
    return x.with_tensor(tf.cast(normalised, x.tensor.dtype))


@operator("InstanceNormalization", attributes="epsilon")
def instance_normalization(node: Node, x: Value, scale: Value, b: Value) -> Value:
    """Every image's every channel by its own mean and variance."""
    axes = x.positions(list(range(2, x.rank)))
    y, _, _ = _normalised(x.tensor, axes, node.get("epsilon", 1e-5))
    return _per_channel(x.with_tensor(y), scale, b)


@operator("GroupNormalization", attributes="epsilon num_groups stash_type")
def group_normalization(node: Node, x: Value, scale: Value, b: Value) -> Value:
    """Every image's groups of channels by their own mean and variance; scale is one a group before opset 21."""
    groups = int(node.get("num_groups"))
    channels = x.shape[1]
    if channels is None or groups < 1 or channels % groups:
        node.fail(f"{channels} channels do not make {groups} groups; mend num_groups")
    (position,) = x.positions([1])
    sizes = tf.shape(x.tensor)
    grouped = tf.concat([sizes[:position], [groups, channels // groups], sizes[position + 1 :]], 0)
    batch = x.axes.index(0)
    kept = {batch + (batch > position), position}
    data = tf.reshape(_stashed(node, x.tensor), grouped)
    y, _, _ = _normalised(data, [axis for axis in range(x.rank + 1) if axis not in kept], node.get("epsilon", 1e-5))
    y = x.with_tensor(tf.cast(tf.reshape(y, sizes), x.tensor.dtype))
    if node.opset < 21:
        scale, b = (Value.of(_repeated(value.tensor, channels // groups)) for value in (scale, b))
    return _per_channel(y, scale, b)


@operator("LayerNormalization", attributes="axis epsilon stash_type")
def layer_normalization(node: Node, x: Value, scale: Value, b: Value | None = None) -> tuple[Value, Value, Value]:
    """The axes from ``axis`` on by their own mean and variance; also gives that mean and 1 / standard deviation."""
    axes = list(range(node.get("axis", -1) % x.rank, x.rank))
    y, mean, inverse = _normalised(_stashed(node, x.tensor), x.positions(axes), node.get("epsilon", 1e-5))
    result = _scaled(x.with_tensor(tf.cast(y, x.tensor.dtype)), scale, b)
    return result, x.with_tensor(mean), x.with_tensor(inverse)


@operator("RMSNormalization", attributes="axis epsilon stash_type")
def rms_normalization(node: Node, x: Value, scale: Value) -> Value:
    """The axes from ``axis`` on divided by the root of their mean square."""
    axes = x.positions(list(range(node.get("axis", -1) % x.rank, x.rank)))
    data = _stashed(node, x.tensor)
    square = tf.reduce_mean(tf.square(data), axis=axes, keepdims=True)
    y = data * tf.math.rsqrt(square + tf.cast(node.get("epsilon", 1e-5), data.dtype))
    return _scaled(x.with_tensor(tf.cast(y, x.tensor.dtype)), scale, None)


@operator("LpNormalization", attributes="axis p")
def lp_normalization(node: Node, x: Value) -> Value:
    """Divided by the norm along one axis; zeros stay."""
    order = node.get("p", 2)
    if order not in (1, 2):
        node.fail(f"p={order} is not supported; export the model with p=1 or p=2")
    axis = x.positions([node.get("axis", -1)])
    if order == 1:
        norm = tf.reduce_sum(tf.abs(x.tensor), axis=axis, keepdims=True)
    else:
        norm = tf.sqrt(tf.reduce_sum(tf.square(x.tensor), axis=axis, keepdims=True))
    return x.with_tensor(tf.math.divide_no_nan(x.tensor, norm))


@operator("LRN", attributes="alpha beta bias size")
def local_response_normalization(node: Node, x: Value) -> Value:
    """Divided by a power of the sum of squares over neighbouring channels."""
    size = node.get("size")
    if size % 2 == 0 or x.rank != 4:
        node.fail(f"size={size} at rank {x.rank} is not supported; export the model with an odd size on [N, C, H, W]")
    alpha, beta, bias = node.get("alpha", 1e-4), node.get("beta", 0.75), node.get("bias", 1.0)
    y = tf.nn.local_response_normalization(x.laid(NHWC), size // 2, bias, alpha / size, beta)
    return Value(y, NHWC)


def _normalised(x: Any, axes: list[int], epsilon: float) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """``x`` less its mean over ``axes``, divided by its standard deviation; the mean; one over the deviation."""
    mean = tf.reduce_mean(x, axis=axes, keepdims=True)
    centred = x - mean
    variance = tf.reduce_mean(tf.square(centred), axis=axes, keepdims=True)
    inverse = tf.math.rsqrt(variance + tf.cast(epsilon, variance.dtype))
    return centred * inverse, mean, inverse


def _stashed(node: Node, tensor: Any) -> Any:
    """In the type in which the statistics are computed (``stash_type``, float32 unless told otherwise)."""
    kind = node.get("stash_type", 1)
    if kind not in (1, 10, 11, 16):
        node.fail(f"stash_type={kind} is not a floating type; export the model with stash_type=1")
    types = {1: tf.float32, 10: tf.float16, 11: tf.float64, 16: tf.bfloat16}
    wanted = types[kind]
    return tensor if tensor.dtype == wanted else tf.cast(tensor, wanted)


def _scaled(y: Value, scale: Value, b: Value | None) -> Value:
    (data, factor), axes = broadcast([y, scale])
    result = Value(data * factor, axes)
    if b is None:
        return result
    (data, offset), axes = broadcast([result, b])
    return Value(data + offset, axes)


def _per_channel(y: Value, scale: Value, b: Value) -> Value:
    shape = [-1 if axis == 1 else 1 for axis in y.axes]
    return y.with_tensor(y.tensor * tf.reshape(scale.tensor, shape) + tf.reshape(b.tensor, shape))


def _repeated(values: Any, times: int) -> Any:
    return np.repeat(values, times) if isinstance(values, np.ndarray) else tf.repeat(values, times)


def _numpy_type(value: Value) -> Any:
    return tf.as_dtype(value.tensor.dtype).as_numpy_dtype
