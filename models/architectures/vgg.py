"""VGG (Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2014)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

POOL = 0  # among the channels of the convolutions


class VGG(nn.Module):
    """3x3 convolutions and pools, and three dense layers on the 7x7 that is left of an image of 224x224."""

    def __init__(self, channels: Sequence[int], classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for outputs in channels:
            if outputs == POOL:
                layers.append(nn.MaxPool2d(2))
            else:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = outputs
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(inputs * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(),
            nn.Linear(4096, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def vgg11(classes: int) -> nn.Module:
    """Configuration A of the paper's table 1, for images of 224x224."""
    return VGG((64, POOL, 128, POOL, 256, 256, POOL, 512, 512, POOL, 512, 512, POOL), classes)
