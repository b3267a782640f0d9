"""A deeper network than Tandem serves, for tests: what mobile and residual CNNs are made of."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.architectures import ImageClassifier


def _conv(inputs: int, outputs: int, activation: nn.Module, **options: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False, **options), nn.BatchNorm2d(outputs), activation
    )


class _SqueezeExcite(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze = nn.Conv2d(channels, 4, 1)
        self.excite = nn.Conv2d(4, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.excite(torch.relu(self.squeeze(self.pool(x))))
        return x * nn.functional.hardsigmoid(scale)


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            _conv(channels, channels, nn.Hardswish(), groups=channels),
            _SqueezeExcite(channels),
            nn.Conv2d(channels, channels, 1),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.block(x))


class _TwoWays(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grouped = _conv(channels, channels, nn.SiLU(), groups=4, stride=2)
        self.pooled = nn.AvgPool2d(3, stride=2, padding=1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.grouped(x), self.pooled(x)], dim=1)


def resnet_tiny(classes: int) -> nn.Module:
    """Residual adds, batch norm, depthwise and grouped convolutions, squeeze-and-excite, concatenation, global pool."""
    return nn.Sequential(
        _conv(3, 16, nn.ReLU6(), stride=2),
        nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True),
        _Residual(16),
        _TwoWays(16),
        _Residual(32),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32, classes),
    )


def untrained(classes: int = 10) -> ImageClassifier:
    """The network with fixed random weights and batch statistics, in evaluation mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = resnet_tiny(classes)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
                nn.init.uniform_(module.weight, 0.5, 2.0)
                nn.init.normal_(module.bias, std=0.3)
    return ImageClassifier(network, (70.0, 71.0, 72.0), (90.0, 91.0, 92.0)).eval()
