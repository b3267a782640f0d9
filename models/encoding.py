"""How clients send images: as tensors of pixels, or as the files that they are in. Imports the standard library only:
servers' containers read it, too."""

from __future__ import annotations

from enum import StrEnum

from models.precision import Precision

INPUT = "encoded_images"  # what bundles call their second input
# One black pixel, as a PNG file, which is taken wherever a JPEG file is.
BLANK = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a4944415478da6360000000020001e527defc"
    "0000000049454e44ae426082"
)


class Encoding(StrEnum):
    """What a request carries of an image.

    NONE  its pixels, uint8 [H, W, C]
    JPEG  the bytes of a JPEG file; PNG: those of a PNG file. The servers decode it, and bring it to the model's size
    """

    NONE = "none"
    JPEG = "jpeg"
    PNG = "png"

    @property
    def content_type(self) -> str:
        """The media type of such a file; empty: there is none."""
        return "" if self is Encoding.NONE else f"image/{self}"

    def tolerance(self, precision: Precision) -> float:
        """The largest |Δp| between a server that decodes such images itself and eager PyTorch on Pillow's pixels;
        docs/models.md derives it."""
        return max(precision.tolerance, TOLERANCES.get(self, 0.0))


# JPEG's standard leaves decoders some freedom: as much as one value in a hundred, off by one, moves a trained network.
# PNG is lossless, so that its images are answered as tensors are.
TOLERANCES = {Encoding.JPEG: 2**-10}
