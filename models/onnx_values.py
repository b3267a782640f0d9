"""A value of an ONNX graph while it becomes TensorFlow: what ONNX calls it, and how it lies in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from models.tensorflow_quietly import tf

NHWC = (0, 2, 3, 1)

Array = Any  # a tf.Tensor, or a constant: np.ndarray


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor, or a constant (a NumPy array), with its physical layout.

    ONNX counts axes in its own order (N, C, H, W for images): the *logical* axes. ``axes[i]`` is the logical axis that
    lies in the tensor's dimension i. So an ONNX Transpose only renumbers ``axes``, convolutions keep their N, H, W, C
    order through everything that works element by element, and data moves only where an operator needs ONNX's order.
    Constants always lie in ONNX's order.

    ``flattened`` is the image-like value of which this [N, K] value is the flattened form: a matrix product with
    constant weights takes that one as it lies and reorders its weights instead.
    """

    tensor: Array
    axes: tuple[int, ...]
    flattened: Value | None = None

    @classmethod
    def of(cls, tensor: Array) -> Value:
        """A value that lies in ONNX's order."""
        return cls(tensor, tuple(range(len(tensor.shape))))

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.axes)

    @property
    def constant(self) -> np.ndarray | None:
        """The array of a constant, else None."""
        return self.tensor if isinstance(self.tensor, np.ndarray) else None

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Static sizes in logical order; None where only the run will tell."""
        sizes = list(self.tensor.shape)
        return tuple(sizes[self.axes.index(axis)] for axis in range(self.rank))

    def logical(self) -> Array:
        """The tensor in ONNX's order."""
        return self.laid(tuple(range(self.rank)))

    def laid(self, axes: tuple[int, ...]) -> Array:
        """The tensor with its dimensions in the order ``axes``."""
        if axes == self.axes:
            return self.tensor
        order = [self.axes.index(axis) for axis in axes]
        if isinstance(self.tensor, np.ndarray):
            return self.tensor.transpose(order)
        sizes = self.shape
        if [axis for axis in axes if sizes[axis] != 1] == [axis for axis in self.axes if sizes[axis] != 1]:
            dynamic = None if sizes.count(None) <= 1 else tf.shape(self.tensor)  # nothing lies elsewhere afterwards
            if dynamic is None:
                return tf.reshape(self.tensor, [-1 if sizes[axis] is None else sizes[axis] for axis in axes])
            return tf.reshape(self.tensor, [dynamic[position] for position in order])
        return tf.transpose(self.tensor, order)

    def positions(self, axes: list[int]) -> list[int]:
        """The physical dimensions of logical axes (negative ones count from the end)."""
        return [self.axes.index(axis % self.rank) for axis in axes]

    def with_tensor(self, tensor: tf.Tensor) -> Value:
        """Another tensor of the same rank in this value's layout."""
        return Value(tensor, self.axes)


def broadcast(values: list[Value]) -> tuple[list[Array], tuple[int, ...]]:
    """Lay ``values`` so that TensorFlow's broadcasting does what ONNX's does; returns the tensors and their layout.

    The layout is that of the first value of full rank that is no constant; constants are reordered at export time.
    """
    rank = max(value.rank for value in values)
    leads = [value.axes for value in values if value.rank == rank and value.constant is None]
    axes = leads[0] if leads else tuple(range(rank))
    tensors = []
    for value in values:
        if value.rank == 0 or value.axes == axes:
            tensors.append(value.tensor)
        elif value.rank == rank:
            tensors.append(value.laid(axes))
        else:
            array = value.logical()
            missing = rank - value.rank
            if isinstance(array, np.ndarray):
                widened: Array = array.reshape((1,) * missing + array.shape)
            else:
                widened = tf.reshape(array, tf.concat([[1] * missing, tf.shape(array)], 0))
            tensors.append(Value.of(widened).laid(axes))
    return tensors, axes


def flatten_like(source: Value, rows: np.ndarray) -> tuple[tf.Tensor, np.ndarray] | None:
    """For a flattened ``source`` times the weights ``rows`` [K, M]: both in the order in which ``source`` lies.

    None where that order cannot be known at export time.
    """
    sizes = [size for size in source.shape[1:] if size is not None]
    if source.axes[0] != 0 or source.constant is not None or len(sizes) < source.rank - 1:
        return None
    outputs = rows.shape[1]
    order = [axis - 1 for axis in source.axes[1:]]
    ordered = rows.reshape(*sizes, outputs).transpose(*order, len(sizes)).reshape(-1, outputs)
    return tf.reshape(source.tensor, [-1, rows.shape[0]]), ordered


def without_axes(x: Value, y: tf.Tensor, dropped: list[int]) -> Value:
    """``y`` is ``x`` without some logical axes: number the others anew."""
    gone = {axis % x.rank for axis in dropped}
    left = [axis for axis in x.axes if axis not in gone]
    return Value(y, tuple(sorted(left).index(axis) for axis in left))
