"""Encoded images as the PyTorch side takes them: decoded by Pillow, and their centre brought to the model's size.

Part of the TorchServe archive of a bundle that takes encoded images, so it imports nothing of Tandem. The TensorFlow
side (`models.tensorflow_decoding`) does the same by TensorFlow's own decoders, bit for bit in all but the decoding:

refused   what is no JPEG and no PNG file, or a damaged one; CMYK and other colour spaces, 16 bits a channel, an EXIF
          orientation that turns a JPEG (neither side's decoder heeds it), more than `MOST_PIXELS`
colours   gray becomes RGB, transparency is dropped; for models of one channel colours become gray by ITU-R 601-2, in
          Pillow's integers: (19595 R + 38470 G + 7471 B + 2^15) / 2^16, rounded down
centre    the largest part in the proportions asked for, in the middle
resize    bilinear with half-pixel centres and antialias, separable: a triangle as wide as what becomes a pixel, as in
          Pillow and torchvision. Weights are multiples of 2^-20, so that every product and sum is exact in double
          precision, in whatever order it is computed; the result is rounded once, halves up
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError  # noqa: F401  the formats' decoders

FORMATS = ("JPEG", "PNG")
PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
MODES = {1: "L", 3: "RGB"}
MOST_PIXELS = 2**24
PNG_BIT_DEPTH = 24  # the byte of a PNG file that holds it
# EXIF stands in a JPEG file's first segments; its orientation is tag 0x0112, one SHORT: 1 upright, 2 to 8 turned.
EXIF, EXIF_WITHIN = b"Exif\0\0", 2**16
TURNED = re.compile(
    rb"(?s)(?:II\x2a\x00.*\x12\x01\x03\x00\x01\x00\x00\x00[\x02-\x08]\x00"
    rb"|MM\x00\x2a.*\x01\x12\x00\x03\x00\x00\x00\x01\x00[\x02-\x08])"
)
UNIT = 2.0**20  # one, as a weight of the resizing


def decoded(content: bytes, shape: Sequence[int]) -> np.ndarray:
    """The image of a JPEG or PNG file as uint8 [H, W, C], which ``shape`` is. ValueError says what is wrong."""
    height, width, channels = shape
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # there is a bound of our own
            image = Image.open(io.BytesIO(content), formats=FORMATS)
            _check(image, content)
            pixels = np.array(image.convert(MODES[channels]), np.uint8)
    except UnidentifiedImageError:
        raise ValueError("no JPEG or PNG image") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels: send a smaller image") from None
    except (OSError, SyntaxError, EOFError) as error:  # Pillow raises all of them for damaged files
        raise ValueError(f"a damaged image ({error})") from None
    return fitted(pixels.reshape(*pixels.shape[:2], channels), height, width)


def _check(image: Image.Image, content: bytes) -> None:
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(f"{image.width * image.height:,} pixels: send an image of at most {MOST_PIXELS:,}")
    deep = image.format == "PNG" and content[PNG_BIT_DEPTH] > 8
    if deep or image.mode not in PLAIN_MODES:
        kind = f"{image.mode} of 16 bits" if deep else image.mode
        raise ValueError(f"an image in {kind}: send RGB or gray with 8 bits a channel")
    start = content.find(EXIF, 0, EXIF_WITHIN) if image.format == "JPEG" else -1
    if start >= 0 and TURNED.match(content, start + len(EXIF), EXIF_WITHIN):
        raise ValueError("its EXIF orientation turns it, which no decoder heeds: send it upright")


def fitted(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The centre of uint8 pixels [h, w, C] as uint8 [height, width, C]."""
    rows, columns, channels = pixels.shape
    down, across = rows, columns
    if rows * width > columns * height:
        down = max(1, columns * height // width)
    else:
        across = max(1, rows * width // height)
    top, left = (rows - down) // 2, (columns - across) // 2
    centre = pixels[top : top + down, left : left + across]
    if (down, across) == (height, width):
        return np.ascontiguousarray(centre)
    values = torch.from_numpy(np.ascontiguousarray(centre)).to(torch.float64)
    values = torch.sparse.mm(_weights(down, height), values.reshape(down, -1))
    values = values.reshape(height, across, channels).transpose(0, 1).reshape(across, -1)
    values = torch.sparse.mm(_weights(across, width), values)
    values = values.reshape(width, height, channels).transpose(0, 1)
    resized: np.ndarray = torch.floor(values / UNIT**2 + 0.5).to(torch.uint8).contiguous().numpy()
    return resized


def _weights(size: int, length: int) -> Any:
    """What each of ``size`` pixels adds to each of ``length``, a sparse matrix [length, size] of whole numbers that
    stand for multiples of 1 / `UNIT`."""
    scale = size / length
    support = max(scale, 1.0)
    taps = 2 * math.ceil(support) + 1
    centre = (torch.arange(length, dtype=torch.float64) + 0.5) * scale
    place = torch.floor(centre - support)[:, None] + torch.arange(taps, dtype=torch.float64)
    weight = torch.clamp(1.0 - (place + 0.5 - centre[:, None]).abs() / support, min=0.0)
    weight = torch.where((place >= 0) & (place < size), weight, 0.0)
    # Whole numbers first: their sum does not hang on the order of adding, as that of fractions does.
    weight = torch.round(weight * UNIT)
    weight = torch.round(weight * UNIT / weight.sum(dim=1, keepdim=True))
    rows = torch.arange(length).repeat_interleave(taps)
    columns = place.clamp(0, size - 1).flatten().to(torch.int64)
    return torch.sparse_coo_tensor(
        torch.stack([rows, columns]), weight.flatten(), (length, size), check_invariants=False
    )
