"""The wrapper that puts normalisation and layout into the exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ImageClassifier(nn.Module):
    """The servable: uint8 images [N, H, W, 3] -> float32 probabilities [N, classes].

    ``mean`` and ``std`` are those that the network was trained with, per channel, in pixel values 0-255;
    ``image_shape`` is (H, W, C) of one image.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        image_shape: tuple[int, int, int] = (32, 32, 3),
    ) -> None:
        super().__init__()
        self.network = network
        self.image_shape = image_shape
        self.memory_format = torch.preserve_format  # the images' own order: channels last
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))

    def example(self, images: int = 2) -> Tensor:
        """Black images of the shape that it takes, uint8 [images, H, W, C]; two, as torch.export reserves batches of 1
        for graphs without a free batch size."""
        return torch.zeros(images, *self.image_shape, dtype=torch.uint8)

    def logits(self, images: Tensor) -> Tensor:
        """Class scores before the softmax, float32 [N, classes]."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=self.memory_format)
        return self.network((pixels - self.mean) / self.std)

    def forward(self, images: Tensor) -> Tensor:
        return torch.softmax(self.logits(images), dim=1)
