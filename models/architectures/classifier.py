"""The wrapper that puts preprocessing, layout and softmax into the exported graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.declaration import ChannelOrder, Layout, Output, Steps

AS_THEY_COME = Steps()


class ImageClassifier(nn.Module):
    """The servable: uint8 images [N, H, W, C] -> float32 probabilities [N, classes].

    ``mean`` and ``std`` are those that the network was trained with, per channel in its own order, in pixel values
    0-255; ``image_shape`` is (H, W, C) of one image; ``steps`` come before the normalisation; ``output``: what the
    network gives. Images are resized bilinearly with pixel centres kept (half pixels) and, where they shrink, averaged
    (antialias), as torchvision does by default; values are not rounded.
    """

    mean: Tensor
    std: Tensor
    order: Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float],
        std: Sequence[float],
        image_shape: tuple[int, int, int] = (32, 32, 3),
        steps: Steps = AS_THEY_COME,
        output: Output = Output.LOGITS,
    ) -> None:
        super().__init__()
        self.network = network
        self.image_shape = image_shape
        self.steps = steps
        self.output = output
        self.memory_format = torch.preserve_format  # the images' own order: channels last
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).view(1, -1, 1, 1))
        if steps.channel_order is ChannelOrder.BGR:
            self.register_buffer("order", torch.tensor([2, 1, 0]), persistent=False)

    def example(self, images: int = 2) -> Tensor:
        """Black images of the shape that it takes, uint8 [images, H, W, C]; two, as torch.export reserves batches of 1
        for graphs without a free batch size."""
        return torch.zeros(images, *self.image_shape, dtype=torch.uint8)

    def logits(self, images: Tensor) -> Tensor:
        """What the network gives for them, float32 [N, classes]: class scores before the softmax, mostly."""
        pixels = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=self.memory_format)
        if self.steps != AS_THEY_COME:
            pixels = self._prepared(pixels)
        normalised = (pixels - self.mean) / self.std
        if self.steps.layout is Layout.NHWC:
            normalised = normalised.permute(0, 2, 3, 1).contiguous()
        scores: Tensor = self.network(normalised)
        return scores

    def forward(self, images: Tensor) -> Tensor:
        scores = self.logits(images)
        return torch.softmax(scores, dim=1) if self.output is Output.LOGITS else scores

    def _prepared(self, pixels: Tensor) -> Tensor:
        """float32 [N, C, H, W] resized, cropped and in the network's order of channels."""
        if self.steps.resize:
            pixels = functional.interpolate(pixels, self.steps.resize, mode="bilinear", antialias=True)
        if self.steps.crop:
            (whole_height, whole_width), (height, width) = self.steps.resize or self.image_shape[:2], self.steps.crop
            top, left = round((whole_height - height) / 2), round((whole_width - width) / 2)
            pixels = pixels[:, :, top : top + height, left : left + width]
        if self.steps.channel_order is ChannelOrder.BGR:
            pixels = pixels.index_select(1, self.order)
        return pixels
