"""ResNet (He et al., Deep Residual Learning for Image Recognition, 2015): for ImageNet, and the form for CIFAR.

A bottleneck has its stride in the 3x3 convolution ("v1.5"), as torchvision's and NVIDIA's have it; the paper's has it
in the first 1x1. Where the shape changes, shortcuts are 1x1 convolutions (the paper's option B), for CIFAR as well.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, width, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the branch."""
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """Convolutions 1x1 to ``width`` channels, 3x3, and 1x1 to four times as many, beside a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * self.expansion
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride)

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        """The batch norm that ends the branch."""
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(nn.Module):
    """A stem, stages of blocks (each but the first halves the sides), the mean over the image, and a dense layer.

    ``stem``: channels, kernel and stride of the first convolution; ``pooled``: a 3x3 pool of stride 2 follows it.
    ``depths`` and ``widths``: blocks and channels of each stage.
    """

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: Sequence[int],
        widths: Sequence[int],
        classes: int,
        *,
        stem: tuple[int, int, int],
        pooled: bool,
    ) -> None:
        super().__init__()
        channels, kernel, stride = stem
        self.conv1 = nn.Conv2d(3, channels, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pooled else nn.Identity()
        self._stages = []
        for number, (depth, width) in enumerate(zip(depths, widths, strict=True), start=1):
            first = block(channels, width, stride=1 if number == 1 else 2)
            channels = width * block.expansion
            rest = [block(channels, width, stride=1) for _ in range(depth - 1)]
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            self._stages.append(f"layer{number}")
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in self._stages:
            x = self.get_submodule(stage)(x)
        return self.fc(self.avgpool(x).flatten(1))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def resnet18(classes: int) -> nn.Module:
    """18 layers of basic blocks, for images of 224x224."""
    return ResNet(BasicBlock, (2, 2, 2, 2), (64, 128, 256, 512), classes, stem=(64, 7, 2), pooled=True)


def resnet50(classes: int) -> nn.Module:
    """50 layers of bottlenecks, for images of 224x224."""
    return ResNet(Bottleneck, (3, 4, 6, 3), (64, 128, 256, 512), classes, stem=(64, 7, 2), pooled=True)


def resnet20(classes: int) -> nn.Module:
    """The paper's form for CIFAR: 20 layers of basic blocks, for images of 32x32."""
    return ResNet(BasicBlock, (3, 3, 3), (16, 32, 64), classes, stem=(16, 3, 1), pooled=False)
