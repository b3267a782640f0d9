"""ONNX operators on images, carried out in N, H, W, C order: the order that TensorFlow's CPU kernels know."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

import numpy as np

from models.onnx_nodes import Node, operator
from models.onnx_values import NHWC, Array, Value
from models.tensorflow_quietly import tf

Pads = tuple[tuple[int, int], tuple[int, int]]


@operator("Conv")
def conv(node: Node, x: Value, w: Value, b: Value | None = None) -> Value:
    """2-d convolution with any groups, strides, dilations and pads."""
    _require_images(node, x)
    kernel = w.laid((2, 3, 1, 0))  # H, W, in, out
    height, width, depth, outputs = kernel.shape
    groups = node.get("group", 1)
    strides, dilations = list(node.get("strides", (1, 1))), list(node.get("dilations", (1, 1)))
    extent = _extent((height, width), dilations)
    pads = _pads(node, x, extent, strides)
    padding = [[0, 0], *map(list, pads), [0, 0]] if np.any(pads) else "VALID"
    images = x.laid(NHWC)

    if groups == 1:
        y = tf.nn.conv2d(images, kernel, strides, padding, dilations=dilations)
    elif depth == 1 and strides[0] == strides[1] and (strides == [1, 1] or dilations == [1, 1]):
        per_channel = tf.reshape(w.laid((2, 3, 0, 1)), [height, width, groups, outputs // groups])
        # Padded before: with explicit padding and a bias, TensorFlow's oneDNN kernel for AVX-512 aborts the process.
        y = tf.nn.depthwise_conv2d(_pad(images, pads), per_channel, [1, *strides, 1], "VALID", dilations=dilations)
    else:  # TensorFlow's CPU kernels know no other groups
        parts = zip(tf.split(images, groups, axis=3), tf.split(kernel, groups, axis=3), strict=True)
        y = tf.concat([tf.nn.conv2d(part, k, strides, padding, dilations=dilations) for part, k in parts], axis=3)
    if b is not None:
        y = tf.nn.bias_add(y, b.tensor)
    return Value(y, NHWC)


@operator("MaxPool")
def max_pool(node: Node, x: Value) -> Value:
    """2-d maximum, outside the image lies minus infinity."""
    window, strides, dilations, pads, extra = _pooling(node, x)
    images = _pad(x.laid(NHWC), _sum(pads, extra), x.tensor.dtype.min)
    if dilations == [1, 1]:
        return Value(tf.nn.max_pool2d(images, window, strides, "VALID"), NHWC)
    dense = tf.nn.pool(images, window, "MAX", padding="VALID", dilations=dilations)
    return Value(dense[:, :: strides[0], :: strides[1], :], NHWC)


@operator("AveragePool")
def average_pool(node: Node, x: Value) -> Value:
    """2-d mean, over the image alone or (count_include_pad) with its explicit pads."""
    window, strides, dilations, pads, extra = _pooling(node, x)
    if dilations != [1, 1]:
        node.fail("dilations are not supported here")

    def mean(tensor: Array) -> tf.Tensor:
        return tf.nn.avg_pool2d(tensor, window, strides, "VALID")

    images = x.laid(NHWC)
    sums = mean(_pad(images, _sum(pads, extra)))
    if not np.any(pads) and not np.any(extra):
        return Value(sums, NHWC)
    # The share of each window that counts: ones where a pixel counts, zeros elsewhere, under the same mean.
    counted = tf.ones_like(images[:1, :, :, :1])
    if node.get("count_include_pad", 0):
        counted, pads = _pad(counted, pads, 1.0), ((0, 0), (0, 0))
    return Value(sums / mean(_pad(counted, _sum(pads, extra))), NHWC)


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node, x: Value) -> Value:
    """Mean or maximum of everything but batch and channels."""
    reduce = tf.reduce_mean if node.operator == "GlobalAveragePool" else tf.reduce_max
    return x.with_tensor(reduce(x.tensor, axis=x.positions(list(range(2, x.rank))), keepdims=True))


@operator("BatchNormalization")
def batch_normalization(node: Node, x: Value, scale: Value, b: Value, mean: Value, var: Value) -> Value:
    """Normalisation with the statistics of the training, as one multiplication and one addition."""
    if node.get("training_mode", 0) or node.outputs > 1:
        node.fail("training mode cannot be served; export the model in evaluation mode")
    shape = [-1 if axis == 1 else 1 for axis in x.axes]
    root = np.sqrt if var.constant is not None else tf.sqrt
    factor = scale.tensor / root(var.tensor + np.float32(node.get("epsilon", 1e-5)))
    offset = b.tensor - mean.tensor * factor
    return x.with_tensor(x.tensor * tf.reshape(factor, shape) + tf.reshape(offset, shape))


def _require_images(node: Node, x: Value) -> None:
    if x.rank != 4:
        node.fail(f"rank {x.rank}; only images [N, C, H, W] are supported")


def _extent(window: Sequence[int], dilations: Sequence[int]) -> list[int]:
    """Pixels from a window's first to its last, both included."""
    return [(size - 1) * dilation + 1 for size, dilation in zip(window, dilations, strict=True)]


def _spatial(node: Node, x: Value, why: str) -> tuple[int, int]:
    height, width = x.shape[2:]
    if height is None or width is None:
        node.fail(f"{why} needs an image size that is known at export time")
    return height, width


def _pads(node: Node, x: Value, extent: Sequence[int], strides: Sequence[int]) -> Pads:
    """((top, bottom), (left, right)) from ``pads`` or ``auto_pad``."""
    auto = node.text("auto_pad", "NOTSET")
    if auto == "VALID":
        return (0, 0), (0, 0)
    if auto == "NOTSET":
        top, left, bottom, right = node.get("pads", (0, 0, 0, 0))
        return (top, bottom), (left, right)
    pads = []
    for size, reach, stride in zip(_spatial(node, x, f"auto_pad {auto}"), extent, strides, strict=True):
        total = max((ceil(size / stride) - 1) * stride + reach - size, 0)
        small, large = total // 2, total - total // 2
        pads.append((small, large) if auto == "SAME_UPPER" else (large, small))
    return pads[0], pads[1]


def _pooling(node: Node, x: Value) -> tuple[list[int], list[int], list[int], Pads, Pads]:
    """Window, strides, dilations, pads, and what ceil_mode adds at the end of each axis."""
    _require_images(node, x)
    if node.outputs > 1:
        node.fail("its second output (indices) is not supported")
    window = list(node.get("kernel_shape"))
    strides, dilations = list(node.get("strides", (1, 1))), list(node.get("dilations", (1, 1)))
    extent = _extent(window, dilations)
    pads = _pads(node, x, extent, strides)
    extra = [0, 0]
    if node.get("ceil_mode", 0):
        sizes = _spatial(node, x, "ceil_mode")
        for axis, (size, (before, after)) in enumerate(zip(sizes, pads, strict=True)):
            room = size + before + after - extent[axis]
            outputs = ceil(room / strides[axis]) + 1
            if (outputs - 1) * strides[axis] >= size + before:
                outputs -= 1  # the last window must start inside the image or its leading pad
            extra[axis] = max(0, (outputs - 1) * strides[axis] - room)
    return window, strides, dilations, pads, ((0, extra[0]), (0, extra[1]))


def _sum(first: Pads, second: Pads) -> Pads:
    (a, b), (c, d) = first
    (e, f), (g, h) = second
    return (a + e, b + f), (c + g, d + h)


def _pad(images: Array, pads: Pads, value: float = 0.0) -> Array:
    if not np.any(pads):
        return images
    return tf.pad(images, [(0, 0), *pads, (0, 0)], constant_values=value)
