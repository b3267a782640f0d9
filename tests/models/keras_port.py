"""A small residual network in PyTorch, and the same in Keras, ported by hand as a user ports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from torch import nn

from models.architectures import ImageClassifier
from models.architectures.resnet import BasicBlock, ResNet

MEAN, STD = (120.0, 110.0, 100.0), (60.0, 61.0, 62.0)
CLASSES = 5


def classifier() -> ImageClassifier:
    """The PyTorch side: a stem with a pool, two blocks, the second of which halves the image; fixed random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResNet(BasicBlock, (1, 1), (8, 16), CLASSES, stem=(8, 3, 1), pooled=True)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 2.0)
                nn.init.normal_(module.bias, std=0.3)
    made = ImageClassifier(network, MEAN, STD).eval()
    with (
        torch.no_grad()
    ):  # each class's logits get mean 0 and deviation 2, so that the best class is not always the same
        logits = made.logits(torch.from_numpy(images()))
        scale = 2 / logits.std(dim=0)
        network.fc.bias.copy_((network.fc.bias - logits.mean(dim=0)) * scale)
        network.fc.weight.mul_(scale[:, None])
    return made


def images(count: int = 24) -> np.ndarray:
    """Pictures of large blocks, uint8 [count, 32, 32, 3]: unlike noise they get unlike answers."""
    coarse = np.random.default_rng(3).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


def model(
    weights: dict[str, torch.Tensor],
    *,
    same: Sequence[str] = (),
    bgr: bool = False,
    scaled: bool = True,
    softmax: bool = True,
    order: Sequence[int] = range(CLASSES),
) -> keras.Model:
    """The Keras side, of the network's state dict.

    same     names of convolutions that are padded as TensorFlow's "same" has it, which differs from PyTorch's padding=1
             where the stride is 2
    bgr      whether it is for images in BGR
    scaled   whether the normalisation is part of it
    softmax  whether it gives probabilities
    order    of the classes
    """
    loads: list[tuple[keras.layers.Layer, list[np.ndarray]]] = []

    def value(key: str) -> np.ndarray:
        return weights[key].numpy()

    def add(layer: keras.layers.Layer, values: list[np.ndarray], x: Any) -> Any:
        loads.append((layer, values))
        return layer(x)

    def convolution(key: str, x: Any, stride: int = 1) -> Any:
        kernel = value(f"{key}.weight")
        padded = kernel.shape[2] == 3
        if padded and key not in same:
            x = keras.layers.ZeroPadding2D(1)(x)
        padding = "same" if padded and key in same else "valid"
        name = key.replace(".", "_")
        layer = keras.layers.Conv2D(len(kernel), kernel.shape[2], stride, padding, use_bias=False, name=name)
        return add(layer, [kernel.transpose(2, 3, 1, 0)], x)

    def norm(key: str, x: Any) -> Any:
        parts = [value(f"{key}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        return add(keras.layers.BatchNormalization(epsilon=1e-5, name=key.replace(".", "_")), parts, x)

    def block(key: str, x: Any, stride: int) -> Any:
        y = keras.layers.ReLU()(norm(f"{key}.bn1", convolution(f"{key}.conv1", x, stride)))
        y = norm(f"{key}.bn2", convolution(f"{key}.conv2", y))
        if stride != 1:
            x = norm(f"{key}.downsample.1", convolution(f"{key}.downsample.0", x, stride))
        return keras.layers.ReLU()(keras.layers.Add()([y, x]))

    given = keras.Input((32, 32, 3))
    x = given[..., ::-1] if bgr else given
    if scaled:
        x = keras.layers.Normalization(mean=MEAN, variance=np.square(STD))(x)
    x = keras.layers.ReLU()(norm("bn1", convolution("conv1", x)))
    # Padded with zeros, which ReLU's outputs never are below.
    x = keras.layers.MaxPooling2D(3, 2)(keras.layers.ZeroPadding2D(1)(x))
    x = block("layer2.0", block("layer1.0", x, 1), 2)
    x = keras.layers.GlobalAveragePooling2D()(x)
    head = keras.layers.Dense(CLASSES, activation="softmax" if softmax else None, name="fc")
    x = add(head, [value("fc.weight")[list(order)].T, value("fc.bias")[list(order)]], x)
    made = keras.Model(given, x)
    for layer, values in loads:
        layer.set_weights(values)
    return made


def export(folder: Path, side: ImageClassifier, **changes: Any) -> Path:
    """Write `model` as users of Keras do; returns the folder."""
    model(side.network.state_dict(), **changes).export(folder, verbose=False)
    return folder


def lenet(weights: dict[str, torch.Tensor]) -> keras.Model:
    """LeNet of the house, without normalisation, to logits."""

    def of(layer: int) -> list[np.ndarray]:
        return [weights[f"{layer}.weight"].numpy(), weights[f"{layer}.bias"].numpy()]

    layers = keras.layers
    made = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(6, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Permute((3, 1, 2)),  # PyTorch flattens channels first
            layers.Flatten(),
            layers.Dense(120, activation="tanh"),
            layers.Dense(84, activation="tanh"),
            layers.Dense(len(of(11)[1])),
        ]
    )
    values = []
    for layer in (0, 3, 7, 9, 11):
        kernel, bias = of(layer)
        values += [kernel.transpose(2, 3, 1, 0) if kernel.ndim == 4 else kernel.T, bias]
    made.set_weights(values)
    return made
