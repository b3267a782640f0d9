"""An architecture that cannot be served is refused before it is trained, in a line, and a reference that is none is."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models import architectures, examination, exporting, pipeline, training, weights
from models.architectures import Architecture, ImageClassifier
from models.precision import Precision
from models.problem import Problem
from models.progress import Progress
from models.training import Settings

pytestmark = [pytest.mark.slow, pytest.mark.beside]


def _with(*layers: nn.Module, features: int) -> Architecture:
    def network(classes: int) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers, nn.Flatten(), nn.Linear(features, classes))

    return Architecture(network, head=str(len(layers) + 2), side=32)


class Sampled(nn.Module):
    """Uses an operator of ONNX that the importer does not know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        grid = nn.functional.affine_grid(torch.eye(2, 3).expand(x.shape[0], 2, 3), list(x.shape), align_corners=False)
        return nn.functional.grid_sample(x, grid, align_corners=False).mean((2, 3))


UNFIT = {
    "odd": (
        _with(nn.AdaptiveMaxPool2d(7), features=196),
        "model odd: cannot be exported by ONNX (torch.onnx.export): ",
    ),
    "sampled": (_with(Sampled(), features=4), "model sampled: ONNX operator GridSample (node "),
    "batched": (
        _with(nn.BatchNorm2d(4, track_running_stats=False), nn.AdaptiveAvgPool2d(2), features=16),
        "model batched: an image's answer depends on the other images of its batch",
    ),
    "my net": (_with(nn.AdaptiveAvgPool2d(2), features=16), "model 'my net': a name that TorchServe takes has letters"),
}


@pytest.fixture(autouse=True)
def _no_training(monkeypatch):
    monkeypatch.setattr(training, "train", lambda *_: pytest.fail("it was trained"))


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_served_is_said_before_its_training(name, monkeypatch, tmp_path):
    architecture, message = UNFIT[name]
    monkeypatch.setitem(architectures.ARCHITECTURES, name, architecture)
    with pytest.raises(Problem) as caught:
        pipeline.export(name, "digits", Settings(epochs=2), tmp_path, None, Progress())
    assert str(caught.value).startswith(message), str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.details == ()
    assert list(tmp_path.iterdir()) == []


def test_training_alone_is_rehearsed_too(monkeypatch, tmp_path):
    architecture, message = UNFIT["batched"]
    monkeypatch.setitem(architectures.ARCHITECTURES, "batched", architecture)
    with pytest.raises(Problem) as caught:
        weights.train("batched", "digits", Settings(epochs=2), tmp_path, None, Progress())
    assert str(caught.value).startswith(message)
    assert list(tmp_path.iterdir()) == []


def test_a_network_of_the_house_passes_its_rehearsal_and_leaves_nothing(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    exporting.rehearse("lenet", 10, Precision.BF16)
    assert list(tmp_path.glob("tandem-*")) == []


class Scores(nn.Module):
    """Any function of the images' means, [N] to [N, 3], without weights."""

    def __init__(self, scores) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.stack([self.scores(x.mean((1, 2, 3))) * factor for factor in (0.0, 0.5, 1.0)], dim=1)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (lambda means: means, None),
        (lambda means: means * torch.nan, "model convnet: gives NaN or infinity; mend its weights"),
        (lambda means: means + torch.rand(()), "model convnet: two equal calls give different answers"),
        (
            lambda means: means - means.mean(),
            "model convnet: an image's answer depends on the other images of its batch",
        ),
        # Only where there are many.
        (lambda means: means * (1 + (len(means) > 32)), "model convnet: an image's answer depends on the other images"),
    ],
)
def test_the_reference_is_held_against_itself_twice_and_in_batches_of_1_and_64(scores, message):
    classifier = ImageClassifier(Scores(scores), (128.0,) * 3, (32.0,) * 3).eval()
    images = np.random.default_rng(0).integers(0, 256, (70, 1, 1, 3), np.uint8).repeat(32, axis=1).repeat(32, axis=2)
    first = training.predict(classifier, images)
    if message is None:
        examination.hold("model convnet", classifier, images, first, 1e-4)
        return
    with pytest.raises(Problem) as caught:
        examination.hold("model convnet", classifier, images, first, 1e-4)
    assert str(caught.value).startswith(message)


def test_weights_that_training_drove_to_infinity_are_no_reference_and_nothing_is_exported(monkeypatch, tmp_path):
    diverged = architectures.build("lenet", 10)
    diverged.eval()
    with torch.no_grad():
        diverged.network.get_submodule("11").bias[0] = torch.inf
    made = training.Trained(diverged, {"model": "lenet", "dataset": "digits"})
    monkeypatch.setattr(weights, "obtain", lambda *_: made)
    with pytest.raises(Problem, match=r"^model lenet: gives NaN or infinity; mend its weights, or its preprocessing$"):
        pipeline.export("lenet", "digits", Settings(epochs=2), tmp_path, None, Progress())
    assert list(tmp_path.iterdir()) == []
