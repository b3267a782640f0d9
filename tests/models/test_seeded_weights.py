"""Untrained weights that are fit to be measured and compared."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import architectures, datasets, enlargement, seeded_weights, training

CLASSES = 10


@pytest.fixture(scope="module")
def images():
    """48 images for the calibration and 24 others."""
    digits = datasets.load("digits")
    return [enlargement.enlarged(some, (224, 224, 3)) for some in (digits.train.images[:48], digits.test.images[:24])]


def _made(model, images, seed=0):
    mean, std = training.channel_statistics(images)
    return seeded_weights.classifier(model, CLASSES, mean, std, images, seed)


def test_a_seed_gives_bitwise_the_same_weights(images):
    first, second, other = (_made("mobilenet_v2", images[0][:4], seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())
    assert not torch.equal(first["network.classifier.1.weight"], other["network.classifier.1.weight"])


@pytest.mark.slow
@pytest.mark.beside
@pytest.mark.parametrize("model", ["mobilenet_v2", "resnet18"])
def test_activations_are_sane_and_answers_spread_over_classes_far_above_rounding(images, model):
    classifier = _made(model, images[0])
    deviations = []
    hooks = [
        module.register_forward_hook(lambda _, arguments, output: deviations.append(float(output.std())))
        for module in classifier.modules()
        if isinstance(module, torch.nn.BatchNorm2d)
    ]
    answers = training.predict(classifier, images[1])
    for hook in hooks:
        hook.remove()
    assert min(deviations) > 0.05
    assert max(deviations) < 5
    assert len(set(answers.argmax(axis=1))) >= CLASSES // 2
    assert 0.3 < answers.max(axis=1).mean() < 0.8
    pixels = torch.from_numpy(images[1][:8]).permute(0, 3, 1, 2).double()
    exact = classifier.double()
    with torch.inference_mode():
        truth = torch.softmax(exact.network((pixels - exact.mean) / exact.std), dim=1).numpy()
    assert np.abs(truth - answers[:8]).max() < 3e-5  # a third of the tolerance of parity


def test_every_large_architecture_has_what_calibration_needs():
    for name, architecture in architectures.ARCHITECTURES.items():
        if not architecture.trained_here:
            with torch.device("meta"):
                head = architecture.network(CLASSES).get_submodule(architecture.head)
            assert isinstance(head, torch.nn.Linear), name
            assert head.bias is not None, name
