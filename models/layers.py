"""Finds the first layer output at which an export leaves the model that it was made from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from models import onnx_export, torch_export, torchscript
from models.architectures import ImageClassifier
from models.bundle import Bundle

Layers = dict[str, np.ndarray]


def first_difference(
    export: str, bundle: Bundle, classifier: ImageClassifier, image: np.ndarray, tolerance: float
) -> str:
    """Say in words which layer output of ``export`` first differs for ``image`` uint8 [H, W, C].

    A layer's output differs where no equally shaped layer output of eager PyTorch is within the tolerance (relative
    to the largest value, for values above 1). Exporters may fuse or rename layers, so any of them counts.
    """
    if export not in INTERMEDIATES:
        return "and a compiled package shows no layer outputs"
    images = np.stack([image, image])  # torch.export reserves batches of 1 for graphs without a free batch size
    reference, names = _reference(classifier, images)
    candidates = INTERMEDIATES[export](bundle, images)
    for name, output in candidates.items():
        peers = [array for array in reference.values() if array.shape == output.shape]
        if name in reference and reference[name].shape == output.shape:
            known = True
        else:  # a step inside a layer, or one that the exporter made up
            known = export == "torchscript" and bool(peers)
        if not known or output.dtype.kind != "f":
            continue
        distances = [_distance(output, peer) for peer in peers]
        limits = [tolerance * max(1.0, float(np.abs(peer).max())) for peer in peers]
        if not any(distance <= limit for distance, limit in zip(distances, limits, strict=True)):
            own = _distance(output, reference[name]) if name in reference else min(distances)
            return f"layer {names.get(name, name)} is the first output to differ (max |Δ| {own:.2g})"
    return "no single layer output differs, only the whole"


def _distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(np.float64) - second).max())


@torch.inference_mode()
def _reference(classifier: ImageClassifier, images: np.ndarray) -> tuple[Layers, dict[str, str]]:
    """Every layer output of eager PyTorch by its ONNX name, and the name with the module that it belongs to."""
    graph = onnx_export.graph(classifier)
    outputs = _recorded(graph, images)
    names = {node.name: _described(node) for node in graph.graph.nodes}
    last = next(reversed(outputs))
    outputs[onnx_export.OUTPUT] = outputs[last]
    names[onnx_export.OUTPUT] = f"{onnx_export.OUTPUT} ({last})"
    return outputs, names


def _recorded(graph: torch.fx.GraphModule, images: np.ndarray) -> Layers:
    """The tensors that the nodes of a graph give, by the nodes' names."""
    outputs: Layers = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, torch.Tensor) and n.op == "call_function":
                outputs[n.name] = _numbers(result)
            return result

    Recorder(graph).run(torch.from_numpy(images))
    return outputs


def _numbers(tensor: torch.Tensor) -> np.ndarray:
    """An array; float32 of a type that NumPy does not have."""
    array: np.ndarray = (tensor.float() if tensor.dtype is torch.bfloat16 else tensor).numpy()
    return array


def _described(node: torch.fx.Node) -> str:
    stack = [path for path, _ in node.meta.get("nn_module_stack", {}).values()]
    return f"{node.name} (module {stack[-1]})" if stack and stack[-1] else node.name


def _onnx(bundle: Bundle, images: np.ndarray) -> Layers:
    import onnx
    import onnxruntime

    model = onnx.load(str(bundle.onnx))
    names = [output for node in model.graph.node for output in node.output if output]
    present = {value.name for value in model.graph.output}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in names if name not in present)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {onnx_export.INPUT: images}), strict=True))


@torch.inference_mode()
def _torch_export(bundle: Bundle, images: np.ndarray) -> Layers:
    return _recorded(torch_export.load(bundle.program), images)


def _savedmodel(bundle: Bundle, images: np.ndarray) -> Layers:
    from models import savedmodel

    return savedmodel.intermediate(bundle.savedmodel / str(bundle.version), images)


def _torchscript(bundle: Bundle, images: np.ndarray) -> Layers:
    """The frozen graph keeps no layer names: a node goes by its operator and its place in the module."""
    graph = torchscript.load(bundle.torchscript).forward.graph.copy()
    tensors = list(_tensor_outputs(graph))
    while list(graph.outputs()):
        graph.eraseOutput(0)
    for _, value in tensors:
        graph.registerOutput(value)
    graph.makeMultiOutputIntoTuple()
    if "self" in (argument := next(graph.inputs())).debugName() and not argument.uses():
        graph.eraseInput(0)
    function = torch._C._create_function_from_graph("layers", graph)
    with torch.inference_mode():
        results = function(torch.from_numpy(images))
    return {name: _numbers(result) for (name, _), result in zip(tensors, results, strict=True)}


def _tensor_outputs(graph: Any) -> Iterator[tuple[str, Any]]:
    for index, node in enumerate(graph.nodes()):
        if node.kind().startswith("prim::"):
            continue
        for value in node.outputs():
            if value.type().isSubtypeOf(torch._C.TensorType.get()):
                scope = node.scopeName().split("/")[-1].removeprefix("__module.")
                yield f"{index} {node.kind()}" + (f" (module {scope})" if scope else ""), value


INTERMEDIATES: dict[str, Callable[[Bundle, np.ndarray], Layers]] = {
    "torchscript": _torchscript,
    "torch_export": _torch_export,
    "onnx": _onnx,
    "savedmodel": _savedmodel,
}
