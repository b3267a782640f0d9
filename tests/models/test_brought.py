"""A user's own module: preprocessing before it, a checkpoint into it, and what makes another bundle."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from models import brought, checkpoints, datasets, recipe
from models.bundle import Weights
from models.declaration import Output, Preprocessing
from models.problem import Problem
from models.recipe import NO_LABEL, Own
from models.training import Settings
from tests.models import own_package

NUMBERS = itertools.count()
SMALL = (33, 47, 1)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """The factory of a package outside the repository."""
    monkeypatch.syspath_prepend(tmp_path)
    return own_package.write(tmp_path, f"shop_{next(NUMBERS)}")


def _seen(preprocessing, images):
    """What a network is given."""
    classifier = brought.wrapped(nn.Identity(), images.shape[1:], preprocessing, Output.LOGITS)
    return classifier.logits(torch.from_numpy(images)).numpy()


def _noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_presets_are_the_usual_arithmetic():
    images = _noise(2, 6, 5, 3)
    chw = images.transpose(0, 3, 1, 2).astype(np.float32)
    mean, std = (np.array(values).reshape(3, 1, 1) for values in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    for preset, expected in {
        "none": chw,
        "0-1": chw / 255,
        "-1-1": chw / 127.5 - 1,
        "imagenet": (chw / 255 - mean) / std,
    }.items():
        np.testing.assert_allclose(_seen(Preprocessing(preset=preset), images), expected, rtol=1e-5, atol=1e-6)


def test_own_numbers_are_of_the_network_s_channels():
    images = _noise(2, 4, 4, 3)
    declared = Preprocessing("none", scale=0.5, mean=(1.0, 2.0, 3.0), std=(1.0, 2.0, 4.0), channel_order="bgr")
    expected = (images[..., ::-1] * 0.5 - [1.0, 2.0, 3.0]) / [1.0, 2.0, 4.0]
    np.testing.assert_allclose(_seen(declared, images), expected.transpose(0, 3, 1, 2), rtol=1e-6)


def test_a_network_may_take_channels_last():
    images = _noise(2, 4, 6, 3)
    np.testing.assert_array_equal(_seen(Preprocessing("none", layout="nhwc"), images), images)


def test_images_are_resized_and_cropped_as_pillow_does_in_floating_point():
    images = _noise(2, 40, 60, 3)
    for declared, size in (((20, 21), (20, 21)), ((20,), (20, 30)), ((80, 90), (80, 90))):
        seen = _seen(Preprocessing("none", resize=declared), images)
        channels = images.transpose(0, 3, 1, 2).astype(np.float32).reshape(-1, 40, 60)
        pillow = [Image.fromarray(one).resize(size[::-1], Image.Resampling.BILINEAR) for one in channels]
        np.testing.assert_allclose(seen.reshape(-1, *size), np.stack([np.asarray(one) for one in pillow]), atol=1e-3)
    whole = _seen(Preprocessing("none", resize=(20,)), images)
    cropped = _seen(Preprocessing("none", resize=(20,), centre_crop=(15, 10)), images)
    np.testing.assert_array_equal(cropped, whole[:, :, 2:17, 10:20])


def test_a_factory_becomes_a_classifier_with_the_weights_that_it_made(model):
    made = brought.from_factory(model, SMALL, Preprocessing(), Output.LOGITS, None, seed=0)
    assert (made.classes, made.weights, made.image_shape) == (7, Weights.FACTORY, SMALL)
    answers = made.classifier(torch.from_numpy(_noise(3, *SMALL)))
    assert torch.allclose(answers.sum(dim=1), torch.ones(3))
    with pytest.raises(Problem, match=f"MODEL={model}: say the size of its images, as INPUT=224x224x3"):
        brought.from_factory(model, None, Preprocessing(), Output.LOGITS, None, seed=0)
    with pytest.raises(Problem, match=r"fails on a batch of 3 with INPUT=32x32x1: RuntimeError: .*network.py:\d+\)"):
        brought.from_factory(model, (32, 32, 1), Preprocessing(), Output.LOGITS, None, seed=0)


def test_a_lazy_layer_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lazy_network.py").write_text("from torch import nn\ndef build():\n    return nn.LazyLinear(3)\n")
    with pytest.raises(Problem, match=r"weight has no size yet \(a lazy layer\); run it once in the factory"):
        brought.from_factory("lazy_network:build", SMALL, Preprocessing(), Output.LOGITS, None, seed=0)


class Named(nn.Module):
    """Its keys begin as prefixes do that are taken off checkpoints, and one is that of a normalisation."""

    def __init__(self):
        super().__init__()
        self.network = nn.Linear(2, 3)
        self.register_buffer("mean", torch.randn(2))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"model": {f"_orig_mod.{key}": value for key, value in state.items()}},
    ],
    ids=["state dict", "DataParallel", "torch.compile"],
)
@pytest.mark.parametrize("kind", [Named, lambda: nn.Linear(2, 3)], ids=["own prefixes", "plain"])
def test_a_checkpoint_fills_a_network_whatever_its_keys(wrap, kind, tmp_path):
    saved, network = kind(), kind()
    torch.save(wrap(saved.state_dict()), tmp_path / "file.pt")
    checkpoints.fill(checkpoints.read(tmp_path / "file.pt"), "nets:build", network)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in saved.state_dict().items())


def test_tandem_s_own_checkpoint_of_a_module_fills_it_again(tmp_path):
    classifier = brought.wrapped(nn.Linear(2, 3), (1, 1, 3), Preprocessing(), Output.LOGITS)
    torch.save({"weights": classifier.state_dict()}, tmp_path / "checkpoint.pt")
    network = nn.Linear(2, 3)
    checkpoints.fill(checkpoints.read(tmp_path / "checkpoint.pt"), "nets:build", network)
    assert torch.equal(network.weight, classifier.network.weight)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(3, 2)}, "bias is missing"),
        ({"weight": torch.zeros(3, 2), "bias": torch.zeros(3), "other": torch.zeros(1)}, "other is too many"),
        ({"weight": torch.zeros(5, 2), "bias": torch.zeros(5)}, "weight is 5x2 and not 3x2"),
    ],
)
def test_another_network_s_checkpoint_is_refused_by_key(state, message, tmp_path):
    torch.save(state, tmp_path / "file.pt")
    checkpoint = checkpoints.read(tmp_path / "file.pt")
    with pytest.raises(
        Problem, match=rf"file.pt: not the weights of nets:build: {message}; name the factory that it w"
    ):
        checkpoints.fill(checkpoint, "nets:build", nn.Linear(2, 3))


def _read(model, **own):
    return recipe.read(model, "digits", Settings(), Own(input=SMALL, **own))


def test_gray_images_of_an_odd_size_are_of_the_data_set_or_the_user_s(model, tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join("abcdefg"))
    made = _read(model, classes=tmp_path / "labels.txt")
    reference = made.reference(datasets.load("digits"))
    assert made.model == "small"
    assert reference.images.shape == (360, *SMALL)
    assert reference.record["resized_from"] == [32, 32]
    assert set(reference.labels) == {NO_LABEL}
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.new("RGB", (60, 90), (255, 0, 0)).save(folder / "red.png")
    Image.new("L", (20, 10), 7).save(folder / "gray.png")
    own = _read(model, images=folder).reference(None)
    assert own.images.shape == (2, *SMALL)
    assert [set(image.flatten()) for image in own.images] == [{7}, {76}]  # 0.299 of 255
    assert own.class_names == tuple(f"class {number}" for number in range(7))
    with pytest.raises(Problem, match=f"MODEL={model}: gives 7 classes, and digits has 10; name them in CLASSES"):
        _read(model).reference(datasets.load("digits"))
    (tmp_path / "labels.txt").write_text("\n".join("abc"))
    with pytest.raises(Problem, match=f"MODEL={model}: gives 7 classes, and CLASSES has 3; name them in CLASSES"):
        _read(model, classes=tmp_path / "labels.txt").reference(datasets.load("digits"))


def test_what_made_it_makes_another_bundle(model, tmp_path):
    def again(**own):
        return _read(model, **own).to_dict()

    first = again()
    assert again() == first
    assert (first["weights"], first["own"]["factory"], first["own"]["input"]) == ("factory", model, [33, 47, 1])
    torch.save(_read(model).brought.classifier.network.state_dict(), tmp_path / "file.pt")
    assert again(checkpoint=tmp_path / "file.pt") != first  # the same weights, but whose?
    assert again(preprocessing=Preprocessing("none")) != first
    assert recipe.read(model, "digits", Settings(seed=1), Own(input=SMALL)).to_dict() != first
    path = tmp_path / model.partition(".")[0] / "blocks.py"
    path.write_text(path.read_text() + "# another\n")
    assert again() != first
