"""Images brought to the size that a model takes."""

from __future__ import annotations

import numpy as np
from PIL import Image


def resized(image: Image.Image, height: int, width: int) -> np.ndarray:
    """An RGB image as uint8 [height, width, 3]: its centre in the proportions asked for, resized by Pillow's bilinear
    filter, which averages where it shrinks."""
    scale = min(image.width / width, image.height / height)
    across, down = max(1, round(width * scale)), max(1, round(height * scale))
    left, top = (image.width - across) // 2, (image.height - down) // 2
    centre = image.crop((left, top, left + across, top + down))
    return np.asarray(centre.resize((width, height), Image.Resampling.BILINEAR), np.uint8)


def enlarged(images: np.ndarray, height: int, width: int) -> np.ndarray:
    """uint8 images [N, H, W, 3] as uint8 [N, height, width, 3]."""
    return np.stack([resized(Image.fromarray(image), height, width) for image in images])
