"""The CNNs that can be trained, and the wrapper that puts normalisation and layout into the exported graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from models.problem import Problem

# name -> builds the network: float32 [N, 3, 32, 32], normalised -> logits [N, classes]
ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {}


def architecture(name: str) -> Callable[[Callable[[int], nn.Module]], Callable[[int], nn.Module]]:
    """Decorator: register the function that builds the network ``name`` for a number of classes."""

    def register(build: Callable[[int], nn.Module]) -> Callable[[int], nn.Module]:
        ARCHITECTURES[name] = build
        return build

    return register


@architecture("convnet")
def convnet(classes: int) -> nn.Module:
    """Conv 5x5x64, ReLU, MaxPool 2, Dense."""
    return nn.Sequential(
        nn.Conv2d(3, 64, kernel_size=5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 14 * 14, classes),
    )


@architecture("lenet")
def lenet(classes: int) -> nn.Module:
    """LeNet-5 (LeCun et al. 1998) on three channels: two times Conv 5x5, tanh and mean pooling; three dense layers."""
    return nn.Sequential(
        nn.Conv2d(3, 6, kernel_size=5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, kernel_size=5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, classes),
    )


class ImageClassifier(nn.Module):
    """The servable: uint8 images [N, H, W, 3] -> float32 probabilities [N, classes].

    ``mean`` and ``std`` are the training split's, per channel, in pixel values 0-255.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.memory_format = torch.preserve_format  # the images' own order: channels last
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax, float32 [N, classes]."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=self.memory_format)
        return self.network((pixels - self.mean) / self.std)

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.logits(images), dim=1)


def build(
    name: str, classes: int, mean: Sequence[float] = (0.0,) * 3, std: Sequence[float] = (1.0,) * 3
) -> ImageClassifier:
    """A new, untrained classifier; raises `Problem` for an unknown architecture."""
    if name not in ARCHITECTURES:
        raise Problem(f"model {name!r} is unknown: use one of {', '.join(sorted(ARCHITECTURES))}")
    return ImageClassifier(ARCHITECTURES[name](classes), mean, std)
