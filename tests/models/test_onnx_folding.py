"""What the imported graph costs at run time: folded normalisations, no transposes, fused activations."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.framework import meta_graph
from tensorflow.python.grappler import tf_optimizer

from models import architectures, onnx_export, savedmodel
from models.tensorflow_quietly import tf
from tests.models.onnx_running import expected, imported


class Network:
    """A network of ONNX nodes on images [N, C, H, W], written down layer by layer with random weights."""

    def __init__(self, channels: int) -> None:
        self.random = np.random.default_rng(3)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.channels = {"x": channels}

    def weights(self, *shape: int, low: float = -0.5) -> str:
        return self.constant(self.random.uniform(low, low + 1, shape).astype(np.float32))

    def constant(self, values: np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(values, f"w{len(self.constants)}"))
        return self.constants[-1].name

    def limit(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def numbers(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def add(self, operator: str, *inputs: str, channels: int | None = None, **attributes) -> str:
        name = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        self.channels[name] = channels or self.channels[inputs[0]]
        return name

    def conv(self, x: str, outputs: int, size: int, group: int = 1, bias: bool = False, **attributes) -> str:
        inputs = [x, self.weights(outputs, self.channels[x] // group, size, size)]
        inputs += [self.weights(outputs)] if bias else []
        pads = [size // 2] * 4
        return self.add("Conv", *inputs, channels=outputs, pads=pads, group=group, **attributes)

    def norm(self, x: str, **attributes) -> str:
        count = self.channels[x]
        parameters = [self.weights(count) for _ in range(3)] + [self.weights(count, low=0.2)]
        return self.add("BatchNormalization", x, *parameters, epsilon=1e-3, **attributes)

    def model(self, y: str) -> onnx.ModelProto:
        nodes = [helper.make_node("Transpose", ["images"], ["x"], perm=[0, 3, 1, 2]), *self.nodes]
        inputs = [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 17, 15, self.channels["x"]])]
        graph = helper.make_graph(nodes, "test", inputs, [onnx.ValueInfoProto(name=y)], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def residual() -> onnx.ModelProto:
    """As ResNet: convolutions with batch normalisation, a projection, an addition, a classifier."""
    net = Network(3)
    x = net.add("Relu", net.norm(net.conv("x", 8, 7, strides=[2, 2])))
    x = net.add("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    y = net.norm(net.conv(net.add("Relu", net.norm(net.conv(x, 16, 3, strides=[2, 2]))), 16, 3, bias=True))
    x = net.add("Relu", net.add("Add", y, net.norm(net.conv(x, 16, 1, strides=[2, 2]))))
    x = net.add("Flatten", net.add("GlobalAveragePool", x))
    return net.model(net.add("Softmax", net.add("Gemm", x, net.weights(16, 5), net.weights(5)), axis=1))


def inverted() -> onnx.ModelProto:
    """As EfficientNet: expansion, depthwise convolution, squeeze-and-excite by ReduceMean, SiLU, a classifier."""
    net = Network(4)
    x = net.norm(net.conv("x", 12, 1))
    x = net.add("Mul", x, net.add("Sigmoid", x))
    x = net.add("Clip", net.norm(net.conv(x, 12, 3, group=12, strides=[2, 2])), net.limit(0), net.limit(6))
    scale = net.add("ReduceMean", x, axes=[2, 3], keepdims=1)
    scale = net.add("Sigmoid", net.conv(net.add("Relu", net.conv(scale, 3, 1, bias=True)), 12, 1, bias=True))
    x = net.norm(net.conv(net.add("Mul", x, scale), 6, 1))
    x = net.add("ReduceMean", x, axes=[2, 3], keepdims=0)
    return net.model(net.add("Softmax", net.add("Gemm", x, net.weights(6, 5), net.weights(5)), axis=1))


def dense() -> onnx.ModelProto:
    """As DenseNet: normalisation before the convolution, concatenation, and a flattened image at the end."""
    net = Network(4)
    x = "x"
    for _ in range(3):
        y = net.conv(net.add("Relu", net.norm(x)), 4, 3)
        x = net.add("Concat", x, y, axis=1, channels=net.channels[x] + 4)
    x = net.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    x = net.add("Flatten", net.add("Relu", net.norm(x)))
    return net.model(net.add("Gemm", x, net.weights(16 * 8 * 7, 5), net.weights(5)))


def unsqueezed() -> onnx.ModelProto:
    """Squeeze-and-excite by Squeeze, Gemm and Unsqueeze; Mish of old exporters; an upsampling; a mirrored border."""
    net = Network(4)
    x = net.norm(net.conv("x", 8, 3))
    x = net.add("Mul", x, net.add("Tanh", net.add("Softplus", x)))
    s = net.add("Squeeze", net.add("GlobalAveragePool", x), net.numbers(2, 3))
    s = net.add("HardSigmoid", net.add("Gemm", s, net.weights(8, 8)))
    x = net.add("Mul", x, net.add("Unsqueeze", s, net.numbers(2, 3)))
    scales = net.constant(np.array([1, 1, 2, 2], np.float32))
    x = net.add("Resize", x, "", scales, mode="linear")
    x = net.add("Pad", x, net.numbers(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")
    return net.model(net.add("GlobalMaxPool", x))


IMAGES = np.random.default_rng(4).normal(size=(3, 17, 15, 4)).astype(np.float32)
# The network, its convolutions, how many of its normalisations stay, and what TensorFlow's optimizer fuses.
NETWORKS = [
    (residual, 4, 0, {"_FusedConv2D": 4, "BiasAdd": 0, "Relu": 1}),
    (inverted, 5, 0, {"_FusedConv2D": 4}),
    (dense, 3, 4, {}),
    (unsqueezed, 1, 0, {"_FusedConv2D": 1}),
]


def _graph(model: onnx.ModelProto) -> tf.Graph:
    importer = savedmodel.Importer(model)
    sizes = [size.dim_value or None for size in importer.inputs["images"].type.tensor_type.shape.dim]

    @tf.function(input_signature=[tf.TensorSpec(sizes, tf.float32, "images")], autograph=False)
    def run(images):
        return tf.identity(importer.build({"images": images})[importer.outputs[0]].logical(), "answer")

    return run.get_concrete_function().graph


def _that_run(graph: tf.Graph) -> list[tf.Operation]:
    """Operations on the way to the answer."""
    seen, todo = {}, [graph.outputs[0].op]
    while todo:
        operation = todo.pop()
        if operation.name not in seen:
            seen[operation.name] = operation
            todo.extend(tensor.op for tensor in operation.inputs)
    return list(seen.values())


def _optimized(graph: tf.Graph) -> Counter[str]:
    """Operations that run after TensorFlow's graph optimizer, as a server has it."""
    exported = meta_graph.create_meta_graph_def(graph=graph)
    for node in exported.graph_def.node:  # as a session places them, before the optimizer looks
        node.device = "/job:localhost/replica:0/task:0/device:CPU:0"
    fetch = exported.collection_def["train_op"].node_list.value
    fetch.append(graph.outputs[0].op.name)
    config = config_pb2.ConfigProto()
    config.graph_options.rewrite_options.min_graph_nodes = -1
    return Counter(node.op for node in tf_optimizer.OptimizeGraph(config, exported).node)


@pytest.mark.parametrize(
    ("network", "convolutions", "stay", "fused"), NETWORKS, ids=lambda it: getattr(it, "__name__", "")
)
def test_networks_run_channels_last_with_normalisations_folded_and_activations_fused(
    network, convolutions, stay, fused
):
    model = network()
    images = IMAGES[..., : model.graph.input[0].type.tensor_type.shape.dim[3].dim_value]
    (ours,), (theirs,) = imported(model, {"images": images}), expected(model, {"images": images})
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    graph = _graph(model)
    counts = Counter(operation.type for operation in _that_run(graph))
    assert counts["Conv2D"] + counts["DepthwiseConv2dNative"] == convolutions
    assert counts["Transpose"] == 0
    left = [proto for proto, _ in savedmodel.Importer(model)._nodes if proto.op_type == "BatchNormalization"]
    assert len(left) == stay
    optimized = _optimized(graph)
    assert optimized["Transpose"] == 0
    assert {name: optimized[name] for name in fused} == fused


def test_a_normalisation_stays_where_the_convolution_is_used_elsewhere():
    net = Network(3)
    x = net.conv("x", 8, 3)
    model = net.model(net.add("Add", net.norm(x), x))
    images = IMAGES[..., :3]
    np.testing.assert_allclose(
        imported(model, {"images": images})[0], expected(model, {"images": images})[0], rtol=1e-4, atol=1e-5
    )
    assert "BatchNormalization" in {proto.op_type for proto, _ in savedmodel.Importer(model)._nodes}


def test_a_normalisation_folds_into_a_transposed_convolution():
    net = Network(3)
    x = net.add("ConvTranspose", "x", net.weights(3, 5, 3, 3), channels=5, strides=[2, 2])
    model = net.model(net.norm(x))
    images = IMAGES[..., :3]
    np.testing.assert_allclose(
        imported(model, {"images": images})[0], expected(model, {"images": images})[0], rtol=1e-4, atol=1e-5
    )
    kinds = [proto.op_type for proto, _ in savedmodel.Importer(model)._nodes]
    assert kinds == ["Transpose", "ConvTranspose"]


@pytest.mark.exhaustive
@pytest.mark.beside
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", sorted(architectures.ARCHITECTURES))
def test_no_transpose_runs_between_the_input_and_the_classifier_of_any_family(name, tmp_path):
    side = architectures.ARCHITECTURES[name].side
    classifier = architectures.build(name, 10).eval()
    onnx_export.export(classifier, tmp_path / "model.onnx")
    importer = savedmodel.Importer(onnx.load(tmp_path / "model.onnx"))

    @tf.function(input_signature=[tf.TensorSpec([None, side, side, 3], tf.uint8, "images")], autograph=False)
    def run(images):
        return tf.identity(importer.build({"images": images})["probabilities"].logical(), "answer")

    counts = Counter(operation.type for operation in _that_run(run.get_concrete_function().graph))
    assert counts["Conv2D"] >= 1
    assert counts["Transpose"] == 0
