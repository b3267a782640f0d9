"""The user's own images: a folder of JPEG and PNG files, in sub-folders named after their classes or in none.

Files of other kinds and hidden ones are passed over. EXIF orientation is applied, gray becomes RGB for models of three
channels and colours become gray for those of one, transparency is dropped; what has no such plain meaning (CMYK, 16
bits a channel) is refused. Pillow decodes. Where clients send the files themselves, servers decode them (see
`models.image_decoding`): then what a server would refuse, or has another format, is refused here.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from models import enlargement, image_decoding
from models.encoding import Encoding
from models.problem import Problem

SUFFIXES = (".jpg", ".jpeg", ".png")
PLAIN_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
PNG_BIT_DEPTH = 24  # the byte of a PNG file that holds it
ORIENTATION = 0x0112  # the EXIF tag
MOST_BYTES = 2**28  # of files that are sent as they are, which a bundle holds
MAGIC = {Encoding.JPEG: b"\xff\xd8\xff", Encoding.PNG: b"\x89PNG\r\n\x1a\n"}


@dataclass(frozen=True)
class ImageFolder:
    """Some images of a folder, spread evenly over all of them.

    images       uint8 [N, H, W, C]
    labels       int64 [N], places in `class_names`; None in a folder without sub-folders
    class_names  the sub-folders' names, sorted
    found        how many images the folder holds
    digest       SHA-256 of the names and contents of those that were read
    encoded      the files themselves, where clients send such
    """

    name: str
    images: np.ndarray
    labels: np.ndarray | None
    class_names: tuple[str, ...]
    found: int
    digest: str
    encoded: tuple[bytes, ...] = ()


def read(folder: Path, shape: tuple[int, int, int], most: int, encoding: Encoding = Encoding.NONE) -> ImageFolder:
    """Read up to ``most`` images, brought to ``shape`` (H, W, C); ``encoding``: what clients send of them. Raises
    `Problem` naming the file at fault."""
    if not folder.is_dir():
        raise Problem(f"IMAGES={folder}: no such folder")
    paths = sorted(path for path in folder.rglob("*") if _is_image(path.relative_to(folder)) and path.is_file())
    if not paths:
        raise Problem(f"IMAGES={folder}: no image there; put JPEG or PNG files in it, or in sub-folders of it")
    labelled = [len(path.relative_to(folder).parts) > 1 for path in paths]
    if any(labelled) and not all(labelled):
        raise Problem(
            f"{paths[labelled.index(False)]}: has no label while others have; put every image of {folder} in a "
            "sub-folder named after its class, or none"
        )
    class_names = tuple(sorted({path.relative_to(folder).parts[0] for path in paths})) if all(labelled) else ()
    chosen = [paths[place] for place in np.linspace(0, len(paths) - 1, min(most, len(paths))).astype(int)]
    digest, images, encoded = hashlib.sha256(), [], []
    for path in chosen:
        content = path.read_bytes()
        digest.update(f"{path.relative_to(folder).as_posix()} {hashlib.sha256(content).hexdigest()}\n".encode())
        if encoding is Encoding.NONE:
            images.append(enlargement.resized(_decoded(path, content), shape))
        else:
            images.append(_as_served(path, content, shape, encoding))
            encoded.append(content)
    labels = None
    if class_names:
        labels = np.array([class_names.index(path.relative_to(folder).parts[0]) for path in chosen], np.int64)
    if sum(map(len, encoded)) > MOST_BYTES:
        raise Problem(f"IMAGES={folder}: files of more than {MOST_BYTES >> 20} MB in all; bring smaller ones, or fewer")
    name = folder.resolve().name
    return ImageFolder(name, np.stack(images), labels, class_names, len(paths), digest.hexdigest(), tuple(encoded))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in path.parts)


def _decoded(path: Path, content: bytes) -> Image.Image:
    """The picture upright in RGB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content), formats=("JPEG", "PNG"))
            if image.mode not in PLAIN_MODES or (image.format == "PNG" and content[PNG_BIT_DEPTH] > 8):
                kind = f"{image.mode} of 16 bits" if image.format == "PNG" else image.mode
                raise Problem(f"{path}: a picture in {kind}; save it as RGB or gray with 8 bits a channel")
            upright = ImageOps.exif_transpose(image)
            return upright.convert("RGB")
    except UnidentifiedImageError:
        raise Problem(f"{path}: no JPEG or PNG picture; delete it or save it again") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Problem(f"{path}: a picture too large to decode; make it smaller") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # Pillow raises all of them for damaged files
        raise Problem(f"{path}: a damaged picture ({error}); delete it or save it again") from None


def _as_served(path: Path, content: bytes, shape: tuple[int, int, int], encoding: Encoding) -> np.ndarray:
    """The pixels that servers make of a file, uint8 [H, W, C]."""
    if not content.startswith(MAGIC[encoding]):
        raise Problem(
            f"{path}: no {encoding.upper()} file, and encoding = '{encoding}'; save it as one, or take it out"
        )
    try:
        pixels = image_decoding.decoded(content, shape)
    except ValueError as error:
        raise Problem(f"{path}: {error}") from None
    if Image.open(io.BytesIO(content)).getexif().get(ORIENTATION, 1) != 1:
        raise Problem(f"{path}: its EXIF orientation turns it, which no decoder of a server heeds; save it upright")
    return pixels
