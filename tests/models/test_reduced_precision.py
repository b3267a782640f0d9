"""bfloat16 and float16 in the exported graphs: the same rounded weights on every side, and a gate of their own."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from models import (
    bundle as bundles,
)
from models import onnx_export, parity, reduced_precision, rounding, savedmodel, torch_export, torchscript, training
from models.architectures import ImageClassifier
from models.bundle import Bundle, WhyLeftOut
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress
from tests.models.resnet_tiny import untrained

IMAGES = np.random.default_rng(5).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
SHORT = (Precision.BF16, Precision.FP16)


def norms(classifier: ImageClassifier) -> list[nn.BatchNorm2d]:
    return [module for module in classifier.modules() if isinstance(module, nn.BatchNorm2d)]


@pytest.fixture(scope="module", params=SHORT)
def short(request, tmp_path_factory):
    """The deeper network's classifier and its exports, in a shorter precision."""
    precision: Precision = request.param
    classifier = reduced_precision.at(untrained(), precision)
    bundle = Bundle(
        tmp_path_factory.mktemp("short"), {"model": "resnet-tiny", "version": 7, "precision": precision.value}
    )
    torchscript.export(classifier, bundle.torchscript)
    torch_export.export(classifier, bundle.program)
    onnx_export.export(classifier, bundle.onnx)
    savedmodel.export(bundle.onnx, bundle.savedmodel / "7")
    return classifier, bundle


def test_every_export_is_held_to_eager_pytorch_at_the_same_precision(short):
    classifier, bundle = short
    reference = training.predict(classifier, IMAGES)
    figures = parity.check(bundle, classifier, IMAGES, reference.argmax(axis=1), reference, Progress())
    assert figures["tolerance"] == bundle.precision.tolerance
    assert figures["exports"].keys() >= {"torchscript", "torch_export", "savedmodel"}
    assert all(one.get("max_abs_diff", 0.0) <= bundle.precision.tolerance for one in figures["exports"].values())
    if "onnx" not in figures["exports"]:
        assert figures["left_out"]["onnx"]["why"] == WhyLeftOut.NO_KERNEL.value
        assert "NOT_IMPLEMENTED" in figures["left_out"]["onnx"]["detail"]
    far = np.abs(reference - training.predict(untrained(), IMAGES)).max()
    assert 1e-5 < far < bundle.precision.tolerance  # rounded, and not much


def test_the_rounded_weights_are_the_same_on_both_sides(short):
    _, bundle = short
    wanted = {Precision.BF16: onnx.TensorProto.BFLOAT16, Precision.FP16: onnx.TensorProto.FLOAT16}[bundle.precision]
    model = onnx.load(str(bundle.onnx))
    kernels = [tensor for tensor in model.graph.initializer if len(tensor.dims) == 4]
    assert {tensor.data_type for tensor in kernels} >= {wanted}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    normalised = [node for node in model.graph.node if node.op_type == "BatchNormalization"]
    assert convolutions
    assert not normalised  # folded before they were rounded


def test_batch_norms_are_folded_where_nothing_else_uses_them():
    classifier, folded = untrained(), untrained()
    reduced_precision.fold_batch_norms(folded.network, torch.zeros(2, 3, 32, 32))
    assert norms(classifier)
    assert not norms(folded)
    np.testing.assert_allclose(training.predict(folded, IMAGES), training.predict(classifier, IMAGES), atol=1e-6)


def test_a_norm_that_cannot_be_folded_keeps_its_statistics_in_float32():
    network = nn.Sequential(
        nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    short = reduced_precision.at(ImageClassifier(network, (128.0,) * 3, (64.0,) * 3).eval(), Precision.BF16)
    (norm,) = norms(short)
    assert norm.running_var is not None
    assert (norm.weight.dtype, norm.running_var.dtype) == (torch.float32, torch.float32)
    assert {module.weight.dtype for module in short.modules() if isinstance(module, nn.Conv2d)} == {torch.bfloat16}
    assert short(short.example()).dtype == torch.float32


@pytest.mark.parametrize("precision", [Precision.FP32, Precision.TF32])
def test_float32_graphs_are_left_alone(precision):
    classifier = untrained()
    assert reduced_precision.at(classifier, precision) is classifier


class Mixing(nn.Module):
    """Makes a tensor of float32 on its way, as a model may that was never meant for another type."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x) * torch.ones(1, dtype=torch.float32)[:, None, None, None]).mean((2, 3))


def test_a_model_that_cannot_be_computed_so_is_refused_in_one_line():
    classifier = ImageClassifier(Mixing(), (0.0,) * 3, (1.0,) * 3).eval()
    with pytest.raises(Problem, match=r"^precision = 'bf16': PyTorch cannot compute this model so on this CPU \(.+use"):
        reduced_precision.at(classifier, Precision.BF16)


def test_a_bundle_is_reused_only_for_its_own_precision(bundle):
    artifacts = bundle.folder.parents[1]
    assert bundles.find(artifacts, "convnet", "digits", precision=Precision.BF16) is None
    found = bundles.find(artifacts, "convnet", "digits", precision=Precision.FP32)
    assert found is not None
    assert (found.precision, found.left_out) == (Precision.FP32, {})


class Cancelling(nn.Module):
    """Takes equal numbers from each other: what rounding leaves is all that there is."""

    def __init__(self):
        super().__init__()
        self.first, self.head = nn.Conv2d(3, 8, 1), nn.Linear(4, 4)
        nn.init.constant_(self.first.weight, 0.3)
        nn.init.zeros_(self.first.bias)

    def forward(self, pixels):
        sums = self.first(pixels)[:, :, 0, 0]
        return self.head((sums[:, :4] - sums[:, 4:]) * 30)


class Growing(nn.Module):
    """Its second layer gives more than float16 holds."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Linear(8, 4)

    def forward(self, pixels):
        return self.head(self.second(self.first(pixels) * 1e3).mean((2, 3)))


def _classifier(network):
    torch.manual_seed(0)
    return ImageClassifier(network(), (0.0,) * 3, (1.0,) * 3).eval()


@pytest.mark.parametrize("precision", SHORT)
def test_a_model_that_amplifies_rounding_is_told_from_one_that_does_not(precision):
    steady = reduced_precision.at(untrained(), precision)
    assert rounding.amplified(steady, IMAGES[:1], precision.tolerance) is None
    chaotic = reduced_precision.at(_classifier(Cancelling), precision)
    found = rounding.amplified(chaotic, IMAGES[:1], precision.tolerance)
    assert found is not None
    assert found.layer == "first"
    assert found.moved > precision.tolerance


def test_such_a_model_s_gate_names_the_layer_and_the_way_out(short, monkeypatch):
    _, bundle = short
    chaotic = reduced_precision.at(_classifier(Cancelling), bundle.precision)
    answers = training.predict(chaotic, IMAGES)
    monkeypatch.setitem(parity.RUNNERS, "torchscript", lambda _: lambda images: answers[: len(images), ::-1])
    with pytest.raises(Problem, match=r"the model amplifies rounding: the sums of layer first, rounded other") as told:
        parity.check(bundle, chaotic, IMAGES, answers.argmax(axis=1), answers, Progress())
    assert str(told.value).startswith(f"precision = '{bundle.precision}': ")
    assert "use fp32, or trained weights in place of seeded ones; nothing was exported" in str(told.value)


def test_the_first_layer_beyond_the_range_is_named():
    growing = reduced_precision.at(_classifier(Growing), Precision.FP16)
    assert rounding.out_of_range(growing, IMAGES[:1]) == "second"
    assert rounding.out_of_range(reduced_precision.at(_classifier(Growing), Precision.BF16), IMAGES[:1]) is None
