"""What blocks with a shortcut have in common."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import nn


@runtime_checkable
class Residual(Protocol):
    """A block whose output is its input, or a projection of it, and a branch."""

    @property
    def last_norm(self) -> nn.BatchNorm2d | None:
        """The batch norm that ends the branch; None in a block without a shortcut."""
