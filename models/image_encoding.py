"""Images of a data set as the files that clients would have."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
from PIL import Image

from models.encoding import Encoding

# As most cameras and web sites write: chroma at half the width and height.
QUALITY, SUBSAMPLING = 90, "4:2:0"


def encoded(images: Iterable[np.ndarray], encoding: Encoding) -> tuple[bytes, ...]:
    """The bytes of a file for each of ``images``, uint8 [H, W, C]; the same for the same version of Pillow."""
    return tuple(_file(image, encoding) for image in images)


def options(encoding: Encoding) -> dict[str, int | str]:
    """How they are written, as plain values for a manifest."""
    return {"quality": QUALITY, "subsampling": SUBSAMPLING} if encoding is Encoding.JPEG else {}


def _file(image: np.ndarray, encoding: Encoding) -> bytes:
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    file = io.BytesIO()
    if encoding is Encoding.JPEG:
        picture.save(file, "JPEG", quality=QUALITY, subsampling=SUBSAMPLING)
    else:
        picture.save(file, "PNG")
    return file.getvalue()
