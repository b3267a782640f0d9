"""ONNX's activation functions. Where TensorFlow has a kernel that it fuses with a convolution, that one is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from models.onnx_nodes import Node, operator
from models.onnx_values import Value, broadcast
from models.tensorflow_quietly import tf

PLAIN: dict[str, Callable[[Any], Any]] = {
    "HardSwish": lambda x: x * tf.clip_by_value(x / 6 + 0.5, 0.0, 1.0),
    "Mish": lambda x: x * tf.tanh(tf.math.softplus(x)),
    "Relu": tf.nn.relu,
    "Sigmoid": tf.sigmoid,
    "Softplus": tf.math.softplus,
    "Softsign": tf.math.softsign,
    "Tanh": tf.tanh,
}


@operator(*PLAIN)
def plain(node: Node, x: Value) -> Value:
    """A function without parameters."""
    return x.with_tensor(PLAIN[node.operator](x.tensor))


@operator("HardSigmoid", attributes="alpha beta")
def hard_sigmoid(node: Node, x: Value) -> Value:
    """alpha x + beta, limited to [0, 1]."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    return x.with_tensor(tf.clip_by_value(alpha * x.tensor + beta, 0.0, 1.0))


@operator("LeakyRelu", attributes="alpha")
def leaky_relu(node: Node, x: Value) -> Value:
    """x above 0, alpha x below."""
    return x.with_tensor(tf.nn.leaky_relu(x.tensor, node.get("alpha", 0.01)))


@operator("ThresholdedRelu", attributes="alpha")
def thresholded_relu(node: Node, x: Value) -> Value:
    """x above alpha, 0 below."""
    return x.with_tensor(tf.where(x.tensor > node.get("alpha", 1.0), x.tensor, tf.zeros_like(x.tensor)))


@operator("Elu", attributes="alpha")
def elu(node: Node, x: Value) -> Value:
    """x above 0, alpha (e^x - 1) below."""
    alpha = node.get("alpha", 1.0)
    return x.with_tensor(tf.nn.elu(x.tensor) if alpha == 1.0 else _exponential(x.tensor, 1.0, alpha, 1.0))


@operator("Celu", attributes="alpha")
def celu(node: Node, x: Value) -> Value:
    """x above 0, alpha (e^(x/alpha) - 1) below."""
    alpha = node.get("alpha", 1.0)
    if alpha == 0:
        node.fail("alpha=0 divides by zero; use another alpha")
    return x.with_tensor(_exponential(x.tensor, 1.0, alpha, alpha))


@operator("Selu", attributes="alpha gamma")
def selu(node: Node, x: Value) -> Value:
    """gamma x above 0, gamma alpha (e^x - 1) below."""
    alpha, gamma = node.get("alpha", 1.6732632423543772), node.get("gamma", 1.0507009873554805)
    return x.with_tensor(_exponential(x.tensor, gamma, gamma * alpha, 1.0))


def _exponential(x: Any, slope: float, height: float, width: float) -> tf.Tensor:
    below = height * tf.math.expm1(tf.minimum(x, tf.zeros([], x.dtype)) / width)
    return tf.where(x > 0, slope * x, below)


@operator("PRelu")
def prelu(node: Node, x: Value, slope: Value) -> Value:
    """x above 0, slope x below."""
    (data, factor), axes = broadcast([x, slope])
    return Value(tf.where(data > 0, data, data * factor), axes)


@operator("Gelu", attributes="approximate")
def gelu(node: Node, x: Value) -> Value:
    """Gaussian error linear unit, exact or by tanh."""
    approximate = node.choice("approximate", "none", "none", "tanh") == "tanh"
    return x.with_tensor(tf.nn.gelu(x.tensor, approximate=approximate))


@operator("Swish", attributes="alpha")
def swish(node: Node, x: Value) -> Value:
    """x sigmoid(alpha x); SiLU where alpha is 1."""
    alpha = node.get("alpha", 1.0)
    return x.with_tensor(x.tensor * tf.sigmoid(x.tensor if alpha == 1.0 else alpha * x.tensor))


@operator("Shrink", attributes="bias lambd")
def shrink(node: Node, x: Value) -> Value:
    """x + bias below -lambd, x - bias above lambd, 0 between."""
    bias, limit = node.get("bias", 0.0), node.get("lambd", 0.5)
    data = tf.convert_to_tensor(x.tensor)
    outer = tf.where(data > limit, data - bias, tf.zeros_like(data))
    return x.with_tensor(tf.where(data < -limit, data + bias, outer))


@operator("Softmax", "LogSoftmax", attributes="axis")
def softmax(node: Node, x: Value) -> Value:
    """Softmax along one axis."""
    function = tf.nn.softmax if node.operator == "Softmax" else tf.nn.log_softmax
    (axis,) = x.positions([node.get("axis", -1)])
    return x.with_tensor(function(x.tensor, axis=axis))
