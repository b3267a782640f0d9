"""What ONNX's convolutions and pools share: strides, dilations and pads of the windows that slide over an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from models.onnx_nodes import Node
from models.onnx_values import Array, Value
from models.tensorflow_quietly import tf

Pads = tuple[tuple[int, int], tuple[int, int]]
NO_PADS: Pads = ((0, 0), (0, 0))
AUTO_PADS = ("NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID")


@dataclass(frozen=True)
class Window:
    """A window of ``size`` pixels, ``strides`` apart, its pixels ``dilations`` apart; all (height, width)."""

    size: list[int]
    strides: list[int]
    dilations: list[int]

    @classmethod
    def read(cls, node: Node, size: Sequence[int]) -> Window:
        """The window of a node; refuses what makes no window on an image."""
        strides, dilations = list(node.get("strides", (1, 1))), list(node.get("dilations", (1, 1)))
        for name, values in (("kernel_shape", list(size)), ("strides", strides), ("dilations", dilations)):
            if len(values) != 2 or min(values) < 1:
                node.fail(f"{name}={values}; give two numbers of at least 1")
        return cls(list(size), strides, dilations)

    @property
    def extent(self) -> list[int]:
        """Pixels from the window's first to its last, both included."""
        return [(size - 1) * dilation + 1 for size, dilation in zip(self.size, self.dilations, strict=True)]


def require_images(node: Node, x: Value) -> None:
    """Refuse what is no batch of images."""
    if x.rank != 4:
        node.fail(f"rank {x.rank}; only images [N, C, H, W] are supported")


def image_size(node: Node, x: Value, why: str) -> tuple[int, int]:
    """(height, width), which ``why`` needs to know."""
    height, width = x.shape[2:]
    if height is None or width is None:
        node.fail(f"{why} needs an image size that is known at export time; export the model with fixed sizes")
    return height, width


def explicit_pads(node: Node) -> Pads:
    """((top, bottom), (left, right)) from the attribute ``pads``."""
    pads = list(node.get("pads", (0, 0, 0, 0)))
    if len(pads) != 4 or min(pads) < 0:
        node.fail(f"pads={pads}; give four numbers of at least 0")
    top, left, bottom, right = pads
    return (top, bottom), (left, right)


def window_pads(node: Node, x: Value, window: Window) -> Pads:
    """((top, bottom), (left, right)) from ``pads`` or ``auto_pad``."""
    auto = node.choice("auto_pad", "NOTSET", *AUTO_PADS)
    if auto == "VALID":
        return NO_PADS
    if auto == "NOTSET":
        return explicit_pads(node)
    sizes = image_size(node, x, f"auto_pad {auto}")
    totals = [
        max((ceil(size / stride) - 1) * stride + extent - size, 0)
        for size, extent, stride in zip(sizes, window.extent, window.strides, strict=True)
    ]
    return shared_out(totals, auto)


def shared_out(totals: Sequence[int], auto: str) -> Pads:
    """Pads of both sides for each axis; of an odd total the larger half comes last (SAME_UPPER) or first."""
    halves = [(total // 2, total - total // 2) for total in totals]
    (top, bottom), (left, right) = halves
    return ((top, bottom), (left, right)) if auto != "SAME_LOWER" else ((bottom, top), (right, left))


def sum_of(first: Pads, second: Pads) -> Pads:
    """Pads added up."""
    (a, b), (c, d) = first
    (e, f), (g, h) = second
    return (a + e, b + f), (c + g, d + h)


def padded(images: Array, pads: Pads, value: float = 0.0) -> Array:
    """``images`` [N, H, W, C] with pads of ``value``."""
    if not np.any(pads):
        return images
    return tf.pad(images, [(0, 0), *pads, (0, 0)], constant_values=value)
