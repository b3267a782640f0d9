"""MobileNetV2 (Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018)."""

from __future__ import annotations

from torch import Tensor, nn

from models.architectures.conv_norm import conv_norm

# The paper's table 2: expansion, output channels, blocks, stride of the first one.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
LAST_CHANNELS = 1280


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1 without activation; a shortcut where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        expand = [conv_norm(inputs, hidden, 1, nn.ReLU6)] if expansion != 1 else []
        depthwise = conv_norm(hidden, hidden, 3, nn.ReLU6, stride=stride, groups=hidden)
        self.conv = nn.Sequential(*expand, depthwise, *conv_norm(hidden, outputs, 1))
        self.shortcut = stride == 1 and inputs == outputs

    @property
    def last_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm that ends the branch; None without a shortcut."""
        return self.conv[-1] if self.shortcut else None

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.shortcut else self.conv(x)


class MobileNetV2(nn.Module):
    """A convolution, the stages of inverted residuals, a 1x1 convolution, the mean over the image, a dense layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        channels = 32
        layers: list[nn.Module] = [conv_norm(3, channels, 3, nn.ReLU6, stride=2)]
        for expansion, outputs, blocks, stride in STAGES:
            for block in range(blocks):
                layers.append(InvertedResidual(channels, outputs, stride if block == 0 else 1, expansion))
                channels = outputs
        layers.append(conv_norm(channels, LAST_CHANNELS, 1, nn.ReLU6))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(LAST_CHANNELS, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def mobilenet_v2(classes: int) -> nn.Module:
    """Width 1.0, for images of 224x224."""
    return MobileNetV2(classes)
