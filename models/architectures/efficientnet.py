"""EfficientNet (Tan and Le, EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks, 2019).

Without the paper's stochastic depth: it acts in training only, and has no weights.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.architectures.conv_norm import conv_norm

# The paper's table 1: expansion, kernel, stride of the first block, output channels, blocks.
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
LAST_CHANNELS = 1280


class SqueezeExcitation(nn.Module):
    """Scales each channel by what two 1x1 convolutions make of the channels' means."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = nn.SiLU(inplace=True)
        self.scale_activation = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))


class MBConv(nn.Module):
    """MobileNetV2's inverted residual with SiLU and a squeeze-and-excitation before the projection."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [conv_norm(inputs, hidden, 1, nn.SiLU)] if expansion != 1 else []
        self.block = nn.Sequential(
            *expand,
            conv_norm(hidden, hidden, kernel, nn.SiLU, stride=stride, groups=hidden),
            SqueezeExcitation(hidden, inputs // 4),
            conv_norm(hidden, outputs, 1),
        )
        self.shortcut = stride == 1 and inputs == outputs

    @property
    def last_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm that ends the branch; None without a shortcut."""
        return self.block[-1][1] if self.shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x) if self.shortcut else self.block(x)


class EfficientNet(nn.Module):
    """A convolution, the stages of MBConv, a 1x1 convolution, the mean over the image, a dense layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels = 32
        stages: list[nn.Module] = [conv_norm(3, channels, 3, nn.SiLU, stride=2)]
        for expansion, kernel, stride, outputs, depth in STAGES:
            first = MBConv(channels, outputs, kernel, stride, expansion)
            rest = [MBConv(outputs, outputs, kernel, 1, expansion) for _ in range(depth - 1)]
            stages.append(nn.Sequential(first, *rest))
            channels = outputs
        stages.append(conv_norm(channels, LAST_CHANNELS, 1, nn.SiLU))
        self.features = nn.Sequential(*stages)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST_CHANNELS, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


def efficientnet_b0(classes: int) -> nn.Module:
    """The baseline of the family, for images of 224x224."""
    return EfficientNet(classes)
