"""The exports of a real bundle, and of a deeper network that no code of Tandem knows."""

from __future__ import annotations

import copy
import json
import shutil
import zipfile

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml
from tensorflow.core.protobuf import saved_model_pb2
from torch import nn

from models import bundle as bundles
from models import onnx_export, parity, pipeline, savedmodel, torch_export, torchscript, torchserve_archive, training
from models.bundle import Bundle
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress
from models.tensorflow_quietly import tf
from tests.models.resnet_tiny import untrained

IMAGES = np.random.default_rng(5).integers(0, 256, (70, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """The deeper network's classifier and the exports that run without a server, in a bundle's folder."""
    classifier = untrained()
    folder = tmp_path_factory.mktemp("deep")
    bundle = Bundle(folder, {"model": "resnet-tiny", "version": 7})
    torchscript.export(classifier, bundle.torchscript)
    torch_export.export(classifier, bundle.program)
    onnx_export.export(classifier, bundle.onnx)
    savedmodel.export(bundle.onnx, bundle.savedmodel / "7")
    return classifier, bundle


@pytest.fixture(scope="module")
def loaded(bundle):
    """The exported SavedModel, once loaded."""
    return savedmodel.load(bundle.savedmodel / "1")


def _check(bundle, classifier, images=IMAGES):
    reference = training.predict(classifier, images)
    return parity.check(bundle, classifier, images, reference.argmax(axis=1), reference, Progress())


def test_deeper_network_passes_the_gate(deep):
    classifier, bundle = deep
    figures = _check(bundle, classifier)
    assert figures["samples"] == 70
    for export in ("torchscript", "torch_export", "onnx", "savedmodel"):
        assert figures["exports"][export]["max_abs_diff"] <= 1e-5
        assert figures["exports"][export]["top1_agreement"] == 1.0
    spread = training.predict(classifier, IMAGES).max(axis=1)
    assert spread.min() > 0.11  # the answers say something: not all classes are equally likely


@pytest.mark.parametrize("size", [1, 3])
def test_every_export_takes_any_batch_size(deep, size):
    classifier, bundle = deep
    expected = training.predict(classifier, IMAGES[:size])
    for export in ("torchscript", "torch_export", "onnx", "savedmodel"):
        np.testing.assert_allclose(parity.RUNNERS[export](bundle)(IMAGES[:size]), expected, atol=1e-5)


def _operations_that_run(bundle: Bundle) -> list[str]:
    """Operations on the way from the images to the probabilities, constants aside."""
    graph = tf.saved_model.load(str(bundle.savedmodel / str(bundle.version))).network.graph
    seen, todo = set(), [graph.get_operation_by_name("probabilities")]
    while todo:
        operation = todo.pop()
        if operation.name not in seen and operation.type != "Const":
            seen.add(operation.name)
            todo.extend(tensor.op for tensor in operation.inputs)
    return sorted(graph.get_operation_by_name(name).type for name in seen)


def test_convnet_runs_channels_last_and_moves_no_data(bundle):
    operations = "Placeholder EnsureShape Cast Sub RealDiv Conv2D BiasAdd Relu MaxPool Reshape MatMul BiasAdd Softmax"
    assert _operations_that_run(bundle) == sorted([*operations.split(), "Identity"])


def test_deeper_network_moves_no_data_either(deep):
    operations = _operations_that_run(deep[1])
    assert "DepthwiseConv2dNative" in operations
    assert "Transpose" not in operations


def test_savedmodel_holds_the_weights_once(bundle):
    weights = sum(onnx.numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(bundle.onnx).graph.initializer)
    assert (bundle.savedmodel / "1" / "saved_model.pb").stat().st_size < 1.2 * weights


def test_byte_signature_gives_the_same_answers(bundle, loaded):
    on_bytes = savedmodel.load(bundle.savedmodel / "1", savedmodel.BYTES_SIGNATURE)
    encoded = np.array([image.tobytes() for image in IMAGES[:5]], dtype=object)
    assert np.array_equal(on_bytes(encoded), loaded(IMAGES[:5]))
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"every element must hold 3072 bytes .*lengths sent:.*2 "):
        on_bytes(np.array([b"xx", encoded[0]], dtype=object))


@pytest.mark.parametrize(
    ("signature", "batch"),
    [
        ("serving_default", IMAGES[0]),
        ("serving_default", IMAGES[:4, :16]),
        ("serving_default", IMAGES[:2].reshape(2, 32, 96)),
        ("serving_bytes", np.array([[IMAGES[0].tobytes()]], dtype=object)),
        ("serving_bytes", np.array(IMAGES[0].tobytes(), dtype=object)),
    ],
    ids=["one image", "half images", "rank 3", "bytes of rank 2", "bytes of rank 0"],
)
def test_a_server_that_checks_no_shapes_gets_an_error_and_no_garbage(bundle, signature, batch):
    """As TensorFlow Serving feeds it. TensorFlow's Python checks shapes first, so take them off the placeholders."""
    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((bundle.savedmodel / "1" / "saved_model.pb").read_bytes())
    graph_def = proto.meta_graphs[0].graph_def
    for node in graph_def.node:
        node.attr.pop("_output_shapes", None)
        if node.op == "Placeholder":
            node.attr["shape"].shape.unknown_rank = True
            del node.attr["shape"].shape.dim[:]
    definition = proto.meta_graphs[0].signature_def[signature]
    (fed,) = (entry.name for entry in definition.inputs.values())
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        with tf.compat.v1.Session(graph=graph) as session:
            with pytest.raises(tf.errors.InvalidArgumentError, match="not compatible with expected shape"):
                session.run(definition.outputs["probabilities"].name, {fed: batch})


def test_unknown_operator_leaves_no_savedmodel(bundle, tmp_path):
    model = onnx.load(bundle.onnx)
    next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Det"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(
        Problem, match=r"odd.onnx: ONNX operator Det \(node node_relu, opset 20\): unknown to the SavedModel"
    ):
        savedmodel.export(tmp_path / "odd.onnx", tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    (tmp_path / "odd.onnx").write_bytes(b"no protobuf")
    with pytest.raises(Problem, match=r"odd.onnx: not an ONNX file"):
        savedmodel.export(tmp_path / "odd.onnx", tmp_path / "saved")


def test_onnx_interface(bundle):
    session = onnxruntime.InferenceSession(bundle.onnx, providers=["CPUExecutionProvider"])
    (image_input,), (output,) = session.get_inputs(), session.get_outputs()
    assert (image_input.name, image_input.type, image_input.shape[1:]) == ("images", "tensor(uint8)", [32, 32, 3])
    assert (output.name, output.type, output.shape[1:]) == ("probabilities", "tensor(float)", [10])
    assert isinstance(image_input.shape[0], str)
    assert image_input.shape[0] == output.shape[0]


def test_program_takes_and_gives_what_torchscript_does(bundle):
    program = torch.export.load(bundle.program)
    assert list(program.graph_signature.user_inputs) == ["images"]
    assert not any(weight.requires_grad for weight in program.parameters())
    module, images = torch_export.load(bundle.program), torch.from_numpy(IMAGES)
    with torch.inference_mode():
        answer = module(images)
        assert (answer.dtype, tuple(answer.shape)) == (torch.float32, (70, 10))
        torch.testing.assert_close(answer, torchscript.load(bundle.torchscript)(images), atol=1e-6, rtol=0)
        for wrong in (images[:, :16], images[0], images.float()):
            with pytest.raises((RuntimeError, AssertionError)):
                module(wrong)


def test_a_bundle_of_before_the_program_still_passes_the_gate(bundle, tmp_path):
    folder = tmp_path / "1"
    shutil.copytree(bundle.folder, folder)
    shutil.rmtree(folder / "torch_export")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["torch_export/model.pt2"], manifest["parity"]["exports"]["torch_export"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    figures = pipeline.verify(bundles.load(folder), Progress())
    assert set(figures["exports"]) == {"pytorch", "torchscript", "onnx", "savedmodel"}


def test_archive_holds_what_torchserve_and_the_handler_need(bundle):
    with zipfile.ZipFile(bundle.archive) as archive:
        assert sorted(archive.namelist()) == [
            *("MAR-INF/MANIFEST.json", "handler.py", "model-config.yaml", "model.pt", "signature.json"),
        ]
        manifest = json.loads(archive.read("MAR-INF/MANIFEST.json"))["model"]
        assert archive.read("model.pt") == bundle.torchscript.read_bytes()
        assert archive.read("handler.py") == torchserve_archive.handler_path().read_bytes()
        signature = json.loads(archive.read("signature.json"))
        assert signature == {"input_shape": [32, 32, 3], "classes": 10, "class_names": list("0123456789")}
        assert yaml.safe_load(archive.read("model-config.yaml"))["handler"]["input_shape"] == [32, 32, 3]
    assert (manifest["modelName"], manifest["modelVersion"]) == ("convnet", "1")
    assert (manifest["serializedFile"], manifest["handler"]) == ("model.pt", "handler.py")


def test_archiver_that_fails_is_quoted(bundle, tmp_path):
    with pytest.raises(Problem, match=r"torch-model-archiver failed on convnet.mar") as caught:
        torchserve_archive.export(
            bundle.torchscript,
            tmp_path / "convnet.mar",
            version=1,
            input_shape=(32, 32, 3),
            class_names=["a"],
            handler=tmp_path / "absent.py",
        )
    assert "absent.py" in "\n".join(caught.value.details)


# One weight of one layer is changed in one export, as a bug of an exporter would.
LAYERS = [("0", "conv2d", "_convolution"), ("4", "linear", "linear")]


@pytest.fixture(scope="module", params=LAYERS, ids=[name for _, name, _ in LAYERS])
def perturbed(request, bundle, tmp_path_factory):
    """The layer's name in ONNX and TorchScript, and a bundle whose exports all come from a perturbed copy."""
    index, name, kind = request.param
    classifier = copy.deepcopy(training.load(bundle.checkpoint).classifier)
    layer = classifier.network.get_submodule(index)
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    with np.load(bundle.reference) as reference:
        classifier.logits(torch.from_numpy(reference["images"][:64])).std().backward()
    assert layer.weight.grad is not None
    with torch.no_grad():  # a weight that matters: many meet nothing but black pixels
        layer.weight.view(-1)[int(layer.weight.grad.abs().argmax())] += 0.5
    wrong = Bundle(tmp_path_factory.mktemp("perturbed"), bundle.manifest)
    torchscript.export(classifier, wrong.torchscript)
    torch_export.export(classifier, wrong.program)
    onnx_export.export(classifier, wrong.onnx)
    savedmodel.export(wrong.onnx, wrong.savedmodel / "1")
    return name, kind, wrong


@pytest.mark.parametrize("export", ["torchscript", "torch_export", "onnx", "savedmodel"])
def test_one_perturbed_weight_is_caught_and_its_layer_named(bundle, perturbed, export, tmp_path):
    name, kind, wrong = perturbed
    folder = tmp_path / "bundle"
    shutil.copytree(bundle.folder, folder)
    shutil.rmtree(folder / export)
    shutil.copytree(wrong.folder / export, folder / export)
    trained = training.load(bundle.checkpoint)
    with np.load(bundle.reference) as reference:
        images, expected = reference["images"], reference["probabilities"]
    with pytest.raises(Problem) as caught:
        _check(Bundle(folder, bundle.manifest), trained.classifier, images)
    message = str(caught.value)
    assert message.startswith(f"parity: {export} is not the model that was trained: sample ")
    assert f"layer {name} (module network." in message if export != "torchscript" else kind in message
    assert "is the first output to differ" in message
    told = message.partition("; between ONNX Runtime and the SavedModel, layer network.")[2]
    assert (f", node node_{name} " in told) == (export == "savedmodel")
    sample = int(message.split("sample ")[1].split(" ", maxsplit=1)[0])
    difference = np.abs(parity.RUNNERS[export](Bundle(folder, bundle.manifest))(images) - expected).max(axis=1)
    assert difference[sample] > Precision.FP32.tolerance
    assert (difference[:sample] <= Precision.FP32.tolerance).all()


def test_failed_gate_leaves_no_bundle(monkeypatch, artifacts, tmp_path):
    shutil.copytree(artifacts / "convnet" / "checkpoints", tmp_path / "convnet" / "checkpoints")
    honest = torchscript.export

    def wrong(classifier, path):
        other = copy.deepcopy(classifier)
        with torch.no_grad():
            other.network[4].bias[0] += 1
        honest(other, path)

    monkeypatch.setattr(torchscript, "export", wrong)
    settings = training.Settings(epochs=training.EPOCHS["digits"])
    with pytest.raises(Problem, match=r"parity: torchscript .* layer .*linear"):
        pipeline.export("convnet", "digits", settings, tmp_path, None, Progress())
    assert [path.name for path in (tmp_path / "convnet").iterdir()] == ["checkpoints"]
    assert bundles.versions(tmp_path, "convnet") == []
