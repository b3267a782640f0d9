"""Folds batch normalisations into the convolutions before them, as a served model never trains."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx

from models.onnx_reading import array


def fold_batch_normalizations(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with every BatchNormalization gone whose input is a convolution's that nothing else uses.

    y = s (W x + b - mean) / sqrt(var + epsilon) + o is a convolution with W' = f W and b' = f (b - mean) + o, where
    f = s / sqrt(var + epsilon), computed in float64 (Ioffe and Szegedy, 2015). Others stay: those after a
    concatenation, of weights that are no constants, in training mode.
    """
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(value.name for value in graph.output)
    makers = {name: node for node in graph.node for name in node.output if name}
    folded = {}
    for node in graph.node:
        if node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx") or len(node.input) != 5:
            continue
        maker = makers.get(node.input[0])
        known = maker is not None and all(name in constants for name in (*maker.input[1:], *node.input[1:]) if name)
        if maker is None or not known or uses[node.input[0]] != 1 or sum(1 for name in node.output if name) != 1:
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if attributes.get("training_mode", onnx.AttributeProto()).i:
            continue
        axis = _outputs_axis(maker)
        if axis is not None:
            epsilon = attributes["epsilon"].f if "epsilon" in attributes else 1e-5
            folded[id(maker)] = (maker, node, axis, epsilon)
    if not folded:
        return model
    for maker, node, axis, epsilon in folded.values():
        _fold(graph, constants, maker, node, axis, epsilon)
    gone = {id(node) for _, node, _, _ in folded.values()}
    kept = [node for node in graph.node if id(node) not in gone]
    used = {name for node in kept for name in node.input} | {value.name for value in graph.output}
    tensors = [tensor for tensor in graph.initializer if tensor.name in used]
    return _with(model, kept, tensors)


def _outputs_axis(node: onnx.NodeProto) -> int | None:
    """The axis of its weights that counts the outputs; None where it is no convolution that can take a factor."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "Conv":
        return 0
    groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
    return 1 if node.op_type == "ConvTranspose" and groups == 1 else None


def _fold(
    graph: onnx.GraphProto,
    constants: dict[str, onnx.TensorProto],
    maker: onnx.NodeProto,
    node: onnx.NodeProto,
    axis: int,
    epsilon: float,
) -> None:
    weights = array(constants[maker.input[1]])
    scale, offset, mean, variance = (array(constants[name]).astype(np.float64) for name in node.input[1:])
    factor = scale / np.sqrt(variance + epsilon)
    has_bias = len(maker.input) > 2 and maker.input[2]
    bias = array(constants[maker.input[2]]).astype(np.float64) if has_bias else 0.0
    shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
    made = {
        f"{node.output[0]}/weights": weights.astype(np.float64) * factor.reshape(shape),
        f"{node.output[0]}/bias": (bias - mean) * factor + offset,
    }
    graph.initializer.extend(
        onnx.numpy_helper.from_array(values.astype(weights.dtype), name) for name, values in made.items()
    )
    data = maker.input[0]
    del maker.input[:]
    maker.input.extend([data, *made])
    maker.output[0] = node.output[0]


def _with(model: onnx.ModelProto, nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.ir_version = model.ir_version
    result.opset_import.extend(model.opset_import)
    graph = result.graph
    graph.name = model.graph.name
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    return result
