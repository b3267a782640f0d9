"""Images brought to the size and the channels that a model takes."""

from __future__ import annotations

import numpy as np
from PIL import Image

MODES = {1: "L", 3: "RGB"}  # Pillow's, by channels; it makes gray of colours by ITU-R 601-2's luma


def resized(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """An image as uint8 [H, W, C]: its centre in the proportions asked for, resized by Pillow's bilinear filter, which
    averages where it shrinks."""
    height, width, channels = shape
    scale = min(image.width / width, image.height / height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (image.width - across) // 2, (image.height - down) // 2
    centre = image.convert(MODES[channels]).crop((left, top, left + across, top + down))
    return np.asarray(centre.resize((width, height), Image.Resampling.BILINEAR), np.uint8).reshape(shape)


def enlarged(images: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """uint8 images [N, H, W, 3] as uint8 [N, *shape]."""
    return np.stack([resized(Image.fromarray(image), shape) for image in images])
