"""Where weights and images come from: what the user brings, before anything is written."""

from __future__ import annotations

import codecs
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from models import architectures, datasets, recipe
from models.bundle import Weights
from models.declaration import PRESETS, Output, Preprocessing
from models.problem import Problem
from models.recipe import NO_LABEL, Own
from models.training import Settings


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture
def checkpoint(tmp_path):
    """Writes a checkpoint of an architecture for so many classes."""

    def write(model, classes):
        torch.save(architectures.named(model).network(classes).state_dict(), tmp_path / "file.pth")
        return tmp_path / "file.pth"

    return write


def _folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 30), (90, 90, 90)).save(path / name)
    return path


def _classes(tmp_path, *names):
    path = tmp_path / "labels.txt"
    path.write_text("\n".join(names) + "\n")
    return path


def _read(model, **own):
    return recipe.read(model, "digits", Settings(), Own(**own))


def test_large_images_are_a_few_of_the_test_split_enlarged(digits):
    made = _read("resnet18")
    reference = made.reference(digits)
    assert made.weights is Weights.SEEDED
    assert reference.images.shape == (200, 224, 224, 3)
    assert reference.record == {"images": 200, "of": 360, "folder": None, "resized_from": [32, 32]}
    assert (reference.labelled, reference.class_names) == (True, digits.class_names)
    assert np.array_equal(reference.labels, made.reference(digits).labels)
    first = reference.images[0, 3::7, 3::7].astype(int)  # the middle of what was a pixel
    shown = [
        label
        for image, label in zip(digits.test.images, digits.test.labels, strict=True)
        if np.abs(first - image).max() < 40
    ]
    assert reference.labels[0] in shown


def test_small_images_are_the_whole_test_split(digits):
    made = _read("lenet")
    assert made.weights is Weights.TRAINED
    reference = made.reference(digits)
    assert reference.images is digits.test.images
    assert reference.record["images"] == reference.record["of"] == 360


def test_sub_folders_name_the_classes_of_seeded_weights_and_a_flat_folder_none(tmp_path):
    folder = _folder(tmp_path / "pets", "cat/a.png", "dog/b.png", "dog/c.png")
    made = _read("resnet18", images=folder)
    reference = made.reference(None)
    assert not made.needs_dataset
    assert (made.images_of, reference.class_names, reference.labels.tolist()) == ("pets", ("cat", "dog"), [0, 1, 1])
    assert reference.record == {"images": 3, "of": 3, "folder": "pets", "resized_from": None}
    flat = _read("resnet18", images=_folder(tmp_path / "flat", "a.png")).reference(None)
    assert (len(flat.class_names), flat.class_names[7]) == (1000, "class 7")
    assert not flat.labelled
    assert flat.labels.tolist() == [NO_LABEL]


def test_a_trained_model_meets_the_user_s_images_with_its_data_set_s_classes(tmp_path, digits):
    folder = _folder(tmp_path / "scans", "7/a.png", "3/b.png")
    made = _read("lenet", images=folder)
    reference = made.reference(digits)
    assert (reference.images.shape, reference.labels.tolist()) == ((2, 32, 32, 3), [3, 7])
    assert made.images_of == "digits"
    with pytest.raises(Problem, match=r"IMAGES=scans/cat: the model has no class of that name; rename the sub-folder"):
        _read("lenet", images=_folder(folder, "cat/c.png")).reference(digits)


def test_a_checkpoint_s_classes_must_be_named_or_not_be_labelled(tmp_path, digits, checkpoint):
    path = checkpoint("resnet20", 100)
    with pytest.raises(Problem, match=r"file.pth: fc.weight is for 100 classes, and digits has 10; name them in C"):
        _read("resnet20", checkpoint=path).reference(digits)
    with pytest.raises(Problem, match=r"fc.weight is for 100 classes, and CLASSES has 2;"):
        _read("resnet20", checkpoint=path, classes=_classes(tmp_path, "a", "b")).reference(digits)
    with pytest.raises(Problem, match=r"fc.weight is for 100 classes, and IMAGES=pets has 1;"):
        _read("resnet20", checkpoint=path, images=_folder(tmp_path / "pets", "cat/a.png")).reference(None)
    unlabelled = _read("resnet20", checkpoint=path, images=_folder(tmp_path / "flat", "a.png")).reference(None)
    assert len(unlabelled.class_names) == 100
    named = _read("resnet20", checkpoint=path, classes=_classes(tmp_path, *map(str, range(100)))).reference(digits)
    assert named.labelled  # the digits' names are among them
    other = _read("resnet20", checkpoint=path, classes=_classes(tmp_path, *(f"kind {n}" for n in range(100))))
    assert not other.reference(digits).labelled
    assert other.weights is Weights.CHECKPOINT


def test_a_byte_order_mark_is_no_part_of_the_first_class_s_name(tmp_path):
    path = _classes(tmp_path, "cat", "dog")
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    assert _read("resnet18", classes=path).class_names == ("cat", "dog")


def test_what_cannot_be_used_is_said_at_once(tmp_path, checkpoint):
    with pytest.raises(Problem, match=r"CLASSES=.*labels.txt: lenet is trained on digits, whose classes have names"):
        _read("lenet", classes=_classes(tmp_path, "a", "b"))
    with pytest.raises(Problem, match=r"labels.txt: 1 names; a classifier has two classes or more, one a line"):
        _read("resnet18", classes=_classes(tmp_path, "a"))
    with pytest.raises(Problem, match=r"CLASSES=.*absent: No such file or directory; name a text file"):
        _read("resnet18", classes=tmp_path / "absent")
    with pytest.raises(Problem, match=r"not the weights of resnet20: layer1.2.conv1.weight and 29 more are missing"):
        _read("resnet20", checkpoint=checkpoint("resnet18", 10))


def test_another_checkpoint_other_images_or_another_seed_make_another_bundle(tmp_path, checkpoint):
    plain = _read("resnet20").to_dict()
    assert plain["weights"] == "trained"
    brought = _read("resnet20", checkpoint=checkpoint("resnet20", 10))
    changed = _read("resnet20", checkpoint=checkpoint("resnet20", 10))  # other weights, of the same name
    folder = _folder(tmp_path / "pets", "a.png")
    seeded = _read("resnet18", images=folder)
    found = [made.to_dict() for made in (brought, changed, seeded, replace(seeded, settings=Settings(seed=1)))]
    assert all(one != other for place, one in enumerate([plain, *found]) for other in found[place:])


def test_a_network_of_the_house_takes_what_is_declared_of_its_images():
    made = _read(
        "resnet18", input=(300, 400, 3), preprocessing=Preprocessing("-1-1", resize=(256,), centre_crop=(224,))
    )
    assert made.image_shape == (300, 400, 3)
    assert made.to_dict()["preprocessing"] == {
        "input": [300, 400, 3],
        "declared": {"preset": "-1-1", "resize": [256], "centre_crop": [224]},
    }
    several = [None, *map(Preprocessing, PRESETS), Preprocessing(channel_order="bgr")]
    plain, *others = [_read("resnet18", preprocessing=one).to_dict() for one in several]
    assert plain["preprocessing"] is None
    assert all(one != other for place, one in enumerate([plain, *others]) for other in others[place:])
    assert _read("resnet18", input=(224, 224, 3), preprocessing=Preprocessing()).to_dict() == plain


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"input": (224, 224, 1)}, r"input = '224x224x1': resnet18 takes images of 3 channels; use 224x224x3"),
        (
            {"input": (256, 256, 3)},
            r"input = '256x256x3': resnet18 takes 224x224 images, and these would be 256",
        ),
        (
            {"preprocessing": Preprocessing(centre_crop=(192,))},
            r"preprocessing: resnet18 takes 224x224 images",
        ),
        ({"preprocessing": Preprocessing(layout="nhwc")}, r"preprocessing.layout = 'nhwc': resnet18 takes chann"),
        (
            {"preprocessing": Preprocessing(centre_crop=(256,))},
            r"preprocessing.centre_crop = .256.: images are 224x224 t",
        ),
        ({"output": Output.LOGITS}, "OUTPUT=logits: resnet18 is a network of the house, which gives logits; le"),
    ],
)
def test_what_does_not_fit_a_network_of_the_house_is_refused(said, message):
    with pytest.raises(Problem, match=message):
        _read("resnet18", **said)
