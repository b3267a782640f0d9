"""bfloat16, which numpy lacks: the upper half of a float32."""

from __future__ import annotations

import numpy as np


def bits(values: np.ndarray) -> np.ndarray:
    """float32 → uint16 of the nearest bfloat16 (ties to the even one), as hardware rounds; NaN stays NaN."""
    wide = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = ((wide + (((wide >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded)


def floats(bits: np.ndarray) -> np.ndarray:
    """uint16 → float32, exactly."""
    return (bits.astype(np.uint32) << 16).view(np.float32)
