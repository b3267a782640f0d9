"""ONNX's convolutions, carried out in N, H, W, C order: the order that TensorFlow's CPU kernels know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models.onnx_nodes import Node, operator
from models.onnx_values import NHWC, Array, Value
from models.onnx_windows import (
    AUTO_PADS,
    NO_PADS,
    Window,
    explicit_pads,
    image_size,
    padded,
    require_images,
    shared_out,
    window_pads,
)
from models.tensorflow_quietly import tf

ATTRIBUTES = "auto_pad dilations group kernel_shape pads strides"


@operator("Conv", attributes=ATTRIBUTES)
def conv(node: Node, x: Value, w: Value, b: Value | None = None) -> Value:
    """2-d convolution with any groups, strides, dilations and pads."""
    require_images(node, x)
    kernel = _kernel(node, w)  # H, W, in, out
    height, width, depth, outputs = kernel.shape
    groups = _groups(node, x, depth, outputs)
    window = Window.read(node, (height, width))
    pads = window_pads(node, x, window)
    images = x.laid(NHWC)
    if groups > 1 and depth == 1:
        per_channel = tf.reshape(w.laid((2, 3, 0, 1)), [height, width, groups, outputs // groups])
        y = _depthwise(images, per_channel, window, pads)
    else:
        y = _grouped(images, kernel, groups, window, pads)
    return Value(y if b is None else tf.nn.bias_add(y, b.tensor), NHWC)


def _depthwise(images: Array, kernel: Array, window: Window, pads: Any) -> tf.Tensor:
    # Padded before: with explicit padding and a bias, TensorFlow's oneDNN kernel for AVX-512 aborts the process.
    images = padded(images, pads)
    (down, across), dilations = window.strides, window.dilations
    if down == across and (down == 1 or dilations == [1, 1]):
        return tf.nn.depthwise_conv2d(images, kernel, [1, down, across, 1], "VALID", dilations=dilations)
    # TensorFlow knows no other depthwise convolution: every pixel, of which the strides' are kept.
    dense = tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "VALID", dilations=dilations)
    return dense[:, ::down, ::across, :]


def _grouped(images: Array, kernel: Array, groups: int, window: Window, pads: Any) -> tf.Tensor:
    down, across = window.strides
    if down != across and images.shape[3] == groups:
        # TensorFlow's oneDNN kernel leaves rows of padded grey images 0 (2.21, strides [1, 2]): every pixel, then some.
        every = _grouped(images, kernel, groups, Window(window.size, [1, 1], window.dilations), pads)
        return every[:, ::down, ::across, :]
    padding = [[0, 0], *map(list, pads), [0, 0]] if np.any(pads) else "VALID"

    def convolve(part: Array, weights: Array) -> tf.Tensor:
        return tf.nn.conv2d(part, weights, window.strides, padding, dilations=window.dilations)

    if groups == 1:
        return convolve(images, kernel)
    # TensorFlow's CPU kernels know no groups.
    parts = zip(tf.split(images, groups, axis=3), tf.split(kernel, groups, axis=3), strict=True)
    return tf.concat([convolve(part, weights) for part, weights in parts], axis=3)


@operator("ConvTranspose", attributes=f"{ATTRIBUTES} output_padding output_shape")
def conv_transpose(node: Node, x: Value, w: Value, b: Value | None = None) -> Value:
    """The convolution's transpose: every pixel spreads over a window of the output."""
    require_images(node, x)
    kernel = _kernel(node, w)  # H, W, out, in
    height, width, depth, inputs = kernel.shape
    groups = int(node.get("group", 1))
    if groups < 1 or x.shape[1] not in (None, inputs) or inputs % groups:
        node.fail(f"{x.shape[1]} channels, {inputs} of the weights, group={groups} do not fit together; mend one")
    window = Window.read(node, (height, width))
    extra = list(node.get("output_padding", (0, 0)))
    sizes = image_size(node, x, "a transposed convolution")
    reach = [
        (size - 1) * stride + extent for size, stride, extent in zip(sizes, window.strides, window.extent, strict=True)
    ]
    pads = _transposed_pads(node, sizes, reach, extra, window.strides)
    images, spread = x.laid(NHWC), _dilated(kernel, window.dilations)

    def convolve(part: Array, weights: Array) -> tf.Tensor:
        return tf.nn.conv2d_transpose(
            part, weights, [tf.shape(part)[0], *reach, depth], window.strides, padding="VALID"
        )

    if groups == 1:
        y = convolve(images, spread)
    else:
        parts = zip(tf.split(images, groups, axis=3), tf.split(spread, groups, axis=3), strict=True)
        y = tf.concat([convolve(part, weights) for part, weights in parts], axis=3)
    # Pads cut from the whole; what the output's own padding adds beyond it saw no pixel and holds the bias alone.
    ends = [whole - after + more for whole, (_, after), more in zip(reach, pads, extra, strict=True)]
    beyond = tuple((0, max(end - whole, 0)) for end, whole in zip(ends, reach, strict=True))
    y = padded(y, beyond)  # type: ignore[arg-type]
    if np.any(pads) or ends != reach:
        (top, _), (left, _) = pads
        y = y[:, top : ends[0], left : ends[1], :]
    return Value(y if b is None else tf.nn.bias_add(y, b.tensor), NHWC)


def _transposed_pads(
    node: Node, sizes: Sequence[int], reach: Sequence[int], extra: list[int], strides: Sequence[int]
) -> Any:
    """What is cut from the output's sides: ``pads``, or what ``output_shape`` or ``auto_pad`` leave over."""
    auto = node.choice("auto_pad", "NOTSET", *AUTO_PADS)
    wanted = node.get("output_shape")
    if wanted is None:
        if auto == "VALID":
            return NO_PADS
        if auto == "NOTSET":
            return explicit_pads(node)
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    totals = [whole + more - want for whole, more, want in zip(reach, extra, list(wanted)[-2:], strict=True)]
    for axis, total in enumerate(totals):
        if total < 0:  # more than the windows reach: if asked for by output_shape, zeros at the end
            extra[axis] -= total if node.get("output_shape") else 0
            totals[axis] = 0
    # Here, other than for a convolution, SAME_UPPER alone puts the larger half last.
    return shared_out(totals, "SAME_LOWER" if auto != "SAME_UPPER" else auto)


def _kernel(node: Node, w: Value) -> Array:
    if w.rank != 4 or None in w.shape:
        node.fail(f"weights of shape {list(w.shape)}; only 2-d kernels of known size are supported")
    given = node.get("kernel_shape")
    if given is not None and list(given) != list(w.shape[2:]):
        node.fail(f"kernel_shape={list(given)}, but the weights are {list(w.shape)}; mend one")
    return w.laid((2, 3, 1, 0))


def _groups(node: Node, x: Value, depth: int, outputs: int) -> int:
    groups = int(node.get("group", 1))
    if groups < 1 or outputs % groups or x.shape[1] not in (None, depth * groups):
        node.fail(
            f"{x.shape[1]} channels, weights for {depth} and {outputs} outputs, group={groups} do not fit together; "
            "mend one"
        )
    return groups


def _dilated(kernel: Array, dilations: Sequence[int]) -> Array:
    """The kernel with zeros between its pixels: TensorFlow's transposed convolution knows no dilations on a CPU."""
    for axis, dilation in enumerate(dilations):
        if dilation > 1:
            size = kernel.shape[axis]
            places = [
                index // dilation if index % dilation == 0 else size for index in range((size - 1) * dilation + 1)
            ]
            widths = [(0, int(other == axis)) for other in range(4)]
            if isinstance(kernel, np.ndarray):
                kernel = np.take(np.pad(kernel, widths), places, axis=axis)
            else:
                kernel = tf.gather(tf.pad(kernel, widths), places, axis=axis)
    return kernel
