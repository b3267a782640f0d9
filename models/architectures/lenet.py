"""LeNet-5 (LeCun et al., Gradient-Based Learning Applied to Document Recognition, 1998)."""

from __future__ import annotations

from torch import nn


def lenet(classes: int) -> nn.Module:
    """On three channels of 32x32: two times Conv 5x5, tanh and mean pooling; three dense layers."""
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
