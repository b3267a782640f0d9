"""ONNX's matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.onnx_nodes import Node, operator
from models.onnx_values import Value, flatten_like
from models.tensorflow_quietly import tf


@operator("MatMul")
def matmul(node: Node, a: Value, b: Value) -> Value:
    """Matrix product of the last two axes, the others broadcast; a vector is a row (left) or a column (right)."""
    if a.flattened is not None and b.constant is not None and b.rank == 2:
        laid = flatten_like(a.flattened, b.constant)
        if laid is not None:
            return Value.of(tf.matmul(*laid))
    left, right = a.logical(), b.logical()
    if a.rank == 1:
        left = left[None, :]
    if b.rank == 1:
        right = right[:, None]
    y = tf.matmul(left, right)
    if a.rank == 1:
        y = tf.squeeze(y, -2)
    if b.rank == 1:
        y = tf.squeeze(y, -1)
    return Value.of(y)


@operator("Gemm", attributes="alpha beta transA transB")
def gemm(node: Node, a: Value, b: Value, c: Value | None = None) -> Value:
    """alpha A B + beta C with A or B transposed on request."""
    if a.rank != 2 or b.rank != 2:
        node.fail(f"ranks {a.rank} and {b.rank}; both must be matrices")
    matrix = _transposed(b.logical()) if node.get("transB", 0) else b.logical()
    if node.get("transA", 0):
        a = Value.of(_transposed(a.logical()))
    y = matmul(node, a, Value.of(matrix)).tensor  # type: ignore[union-attr]
    y = _scaled(y, node.get("alpha", 1.0))
    if c is not None:
        addend = _scaled(c.logical(), node.get("beta", 1.0))
        # A row, too, goes through BiasAdd: TensorFlow's optimizer takes its addition for one and then refuses its rank.
        row = c.shape[-1:] == (matrix.shape[1],) and (c.rank == 1 or c.shape[0] == 1)
        y = tf.nn.bias_add(y, _row(addend)) if row else y + addend
    return Value.of(y)


def _transposed(matrix: Any) -> Any:
    return matrix.T if isinstance(matrix, np.ndarray) else tf.transpose(matrix)


def _row(tensor: Any) -> Any:
    return tensor.reshape(-1) if isinstance(tensor, np.ndarray) else tf.reshape(tensor, [-1])


def _scaled(tensor: Any, factor: float) -> Any:
    if factor == 1.0:
        return tensor
    return tensor * (np.asarray(factor, tensor.dtype) if isinstance(tensor, np.ndarray) else factor)
