"""ONNX's pools over windows and over whole images, carried out in N, H, W, C order."""

from __future__ import annotations

from math import ceil

import numpy as np

from models.onnx_nodes import Node, operator
from models.onnx_values import NHWC, Array, Value
from models.onnx_windows import Pads, Window, image_size, padded, require_images, sum_of, window_pads
from models.tensorflow_quietly import tf

ATTRIBUTES = "auto_pad ceil_mode dilations kernel_shape pads strides"


@operator("MaxPool", attributes=f"{ATTRIBUTES} storage_order")
def max_pool(node: Node, x: Value) -> Value:
    """2-d maximum, outside the image lies minus infinity."""
    if node.outputs > 1:
        node.fail("its second output (indices) is not supported; export the model without it")
    window, pads, extra = _pooling(node, x)
    lowest = tf.as_dtype(x.tensor.dtype).min
    images = padded(x.laid(NHWC), sum_of(pads, extra), lowest)
    return Value(_slide(images, window, "MAX"), NHWC)


@operator("AveragePool", attributes=f"{ATTRIBUTES} count_include_pad")
def average_pool(node: Node, x: Value) -> Value:
    """2-d mean, over the image alone or (count_include_pad) with its explicit pads."""
    window, pads, extra = _pooling(node, x)
    images = x.laid(NHWC)
    means = _slide(padded(images, sum_of(pads, extra)), window, "AVG")
    included = bool(node.get("count_include_pad", 0))
    if not np.any(extra) and (included or not np.any(pads)):
        return Value(means, NHWC)
    # The share of each window that counts: ones where a pixel counts, zeros elsewhere, under the same mean.
    height, width = image_size(node, x, "padding that is not counted")
    counted = np.pad(np.ones((height, width), np.float32), pads, constant_values=float(included))
    with tf.init_scope():  # computed now, not at every request
        share = _slide(padded(tf.constant(counted[None, :, :, None]), extra), window, "AVG").numpy()
    # A window that lies in the padding alone has the mean 0, as in ONNX Runtime.
    return Value(tf.math.divide_no_nan(means, tf.cast(share, means.dtype)), NHWC)


@operator("GlobalAveragePool", "GlobalMaxPool")
def global_pool(node: Node, x: Value) -> Value:
    """Mean or maximum of everything but batch and channels."""
    reduce = tf.reduce_mean if node.operator == "GlobalAveragePool" else tf.reduce_max
    return x.with_tensor(reduce(x.tensor, axis=x.positions(list(range(2, x.rank))), keepdims=True))


def _slide(images: Array, window: Window, kind: str) -> tf.Tensor:
    if window.dilations == [1, 1]:
        pool = tf.nn.max_pool2d if kind == "MAX" else tf.nn.avg_pool2d
        return pool(images, window.size, window.strides, "VALID")
    dense = tf.nn.pool(images, window.size, kind, padding="VALID", dilations=window.dilations)
    down, across = window.strides
    return dense[:, ::down, ::across, :]


def _pooling(node: Node, x: Value) -> tuple[Window, Pads, Pads]:
    """Window, pads, and what ceil_mode adds at the end of each axis."""
    require_images(node, x)
    window = Window.read(node, node.get("kernel_shape", ()))
    pads = window_pads(node, x, window)
    extra = [0, 0]
    if node.get("ceil_mode", 0) and node.text("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        sizes = image_size(node, x, "ceil_mode")
        for axis, (size, (before, after)) in enumerate(zip(sizes, pads, strict=True)):
            room = size + before + after - window.extent[axis]
            outputs = ceil(room / window.strides[axis]) + 1
            if (outputs - 1) * window.strides[axis] >= size + before:
                outputs -= 1  # the last window must start inside the image or its leading pad
            extra[axis] = max(0, (outputs - 1) * window.strides[axis] - room)
    return window, pads, ((0, extra[0]), (0, extra[1]))
