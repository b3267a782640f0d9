"""A package as a user might have one, outside the repository: residual blocks, squeeze-and-excite, gray images."""

from __future__ import annotations

from pathlib import Path

BLOCKS = '''
"""Blocks of a network."""
import torch
from torch import nn


class SqueezeExcite(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Linear(channels, channels // 4), nn.Linear(channels // 4, channels)

    def forward(self, x):
        weights = self.pool(x).view(x.size(0), -1)
        weights = torch.sigmoid(self.fc2(torch.relu(self.fc1(weights))))
        return x * weights.view(x.size(0), -1, 1, 1)


class Block(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.excite = SqueezeExcite(outside)
        self.shortcut = nn.Conv2d(inside, outside, 1, stride) if stride > 1 or inside != outside else nn.Identity()

    def forward(self, x):
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.excite(self.bn2(self.conv2(y))) + self.shortcut(x))
'''

NETWORK = '''
"""A small classifier of gray images."""
from torch import nn

from .blocks import Block


class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 5, 2)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2), nn.Dropout(0.2), Block(16, 16, 1))
        self.pool = nn.AvgPool2d(2, ceil_mode=True)
        self.head = nn.Linear(16 * 4 * 6, classes)

    def forward(self, x):
        x = self.pool(self.blocks(self.stem(x).relu()))
        return self.head(x.view(x.size(0), -1))


def small():
    """For images of 33x47."""
    return Small(classes=7)
'''


def write(folder: Path, name: str = "shopnets") -> str:
    """Write the package into ``folder``; returns what MODEL says of its factory. Its images are 33x47x1, 7 classes."""
    package = folder / name
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "blocks.py").write_text(BLOCKS)
    (package / "network.py").write_text(NETWORK)
    return f"{name}.network:small"
