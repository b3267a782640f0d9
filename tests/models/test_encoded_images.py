"""JPEG and PNG files, decoded by each side's own decoder: what both make of them, and what both refuse."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models import image_decoding, image_folder, tensorflow_decoding
from models.encoding import Encoding
from models.precision import Precision
from models.problem import Problem
from models.tensorflow_quietly import tf

SHAPE = (24, 32, 3)
SIZES = ((24, 32), (31, 47), (97, 60), (9, 200), (300, 400))
MODES = ("RGB", "L", "1", "P", "RGBA", "LA")


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Slopes, edges and noise, uint8 [height, width, 3]."""
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [127 + 100 * np.sin(columns / (7 + place) + rows / 23) for place in range(3)]
    pixels = np.stack(waves, axis=2) + np.random.default_rng(seed).normal(0, 12, (height, width, 3))
    pixels[height // 3 : height // 2, width // 3 : width // 2] = (220, 30, 90)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def file(pixels: np.ndarray, kind: str, mode: str = "RGB", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, kind, **options)
    return content.getvalue()


@pytest.fixture(scope="module", params=[SHAPE, (33, 47, 1)], ids=["colours", "gray"])
def both(request):
    """What PyTorch's side and TensorFlow's make of one file."""
    shape, strings = request.param, [tf.TensorSpec([None], tf.string)]
    graph = tf.function(lambda files: tensorflow_decoding.decoded(files, shape), strings, autograph=False)

    def decode(content: bytes) -> tuple[np.ndarray, np.ndarray]:
        return image_decoding.decoded(content, shape), graph(tf.constant([content])).numpy()[0]

    return decode


def test_every_jpeg_becomes_the_same_image_on_both_sides_bit_for_bit(both):
    for height, width in SIZES:
        pixels = photo(height, width)
        for quality in (40, 90):
            for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
                for progressive in (False, True):
                    written: dict[str, Any] = {
                        "quality": quality,
                        "subsampling": subsampling,
                        "progressive": progressive,
                    }
                    ours, theirs = both(file(pixels, "JPEG", **written))
                    np.testing.assert_array_equal(theirs, ours, f"{height}x{width} {written}")
        ours, theirs = both(file(pixels, "JPEG", "L"))
        np.testing.assert_array_equal(theirs, ours)


@pytest.mark.parametrize("mode", MODES)
def test_every_png_becomes_the_same_image_on_both_sides_bit_for_bit(both, mode):
    for height, width in SIZES:
        ours, theirs = both(file(photo(height, width), "PNG", mode))
        np.testing.assert_array_equal(theirs, ours, f"{height}x{width}")


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(0, 9))
def test_any_size_is_brought_to_the_model_s_by_the_same_arithmetic(height, width, seed):
    pixels = photo(height, width, seed)
    theirs = tensorflow_decoding.fitted(tf.constant(pixels), *SHAPE).numpy()
    np.testing.assert_array_equal(theirs, image_decoding.fitted(pixels, *SHAPE[:2]))


def test_it_is_pillow_s_antialiased_bilinear_filter_of_the_centre():
    pixels = photo(300, 500)
    theirs = Image.fromarray(pixels).crop((50, 0, 450, 300)).resize((32, 24), Image.Resampling.BILINEAR)
    difference = np.abs(image_decoding.fitted(pixels, 24, 32).astype(int) - np.asarray(theirs, int))
    assert difference.max() <= 1  # Pillow rounds between rows and columns as well
    assert (image_decoding.fitted(np.full((300, 500, 3), 255, np.uint8), 24, 32) == 255).all()
    assert image_decoding.fitted(pixels[:24, :32], 24, 32).tobytes() == pixels[:24, :32].tobytes()


def turned(orientation: int, byteorder: str) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    exif[0x0112] = orientation
    exif.endian = byteorder
    return file(photo(24, 32), "JPEG", exif=exif)


def deep() -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.full((24, 32), 40_000, np.uint16)).save(content, "PNG")
    return content.getvalue()


WHOLE = {kind: file(photo(60, 70), kind) for kind in ("JPEG", "PNG")}
REFUSED = {
    "CMYK": (file(photo(24, 32), "JPEG", "CMYK"), "an image in CMYK: send RGB or gray"),
    "16 bits": (deep(), "16 bits: send RGB or gray with 8 bits a channel"),
    "turned": (turned(6, "<"), "its EXIF orientation turns it"),
    "turned, big-endian": (turned(8, ">"), "its EXIF orientation turns it"),
    "truncated JPEG": (WHOLE["JPEG"][: len(WHOLE["JPEG"]) // 2], "a damaged image"),
    "truncated PNG": (WHOLE["PNG"][: len(WHOLE["PNG"]) // 2], "a damaged image"),
    "header alone": (WHOLE["PNG"][:20], "(no JPEG or PNG|a damaged) image"),
    "damaged": (WHOLE["PNG"][:80] + b"\0" * 200 + WHOLE["PNG"][280:], "a damaged image"),
    "GIF": (file(photo(24, 32), "GIF", "P"), "no JPEG or PNG image"),
    "text": (b"<html>", "no JPEG or PNG image"),
    "nothing": (b"", "no JPEG or PNG image"),
    "too large": (file(np.zeros((4097, 4097, 3), np.uint8), "PNG", "L"), "16,785,409 pixels: send an image of at most"),
}


@pytest.fixture(scope="module")
def graph():
    strings = [tf.TensorSpec([None], tf.string)]
    return tf.function(lambda files: tensorflow_decoding.decoded(files, SHAPE), strings, autograph=False)


@pytest.mark.parametrize("name", REFUSED)
def test_what_one_side_refuses_the_other_does(name, graph):
    content, said = REFUSED[name]
    with pytest.raises(ValueError, match=said):
        image_decoding.decoded(content, SHAPE)
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        graph(tf.constant([content]))
    assert "\ufffd" not in caught.value.message  # nothing of the file


def test_an_upright_photo_with_exif_is_taken(both):
    ours, theirs = both(turned(1, "<"))
    np.testing.assert_array_equal(theirs, ours)


def test_files_of_a_folder_are_kept_as_they_are(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").write_bytes(WHOLE["JPEG"])
    found = image_folder.read(tmp_path, SHAPE, 10, Encoding.JPEG)
    assert found.encoded == (WHOLE["JPEG"],) * 2
    assert found.images[1].tobytes() == image_decoding.decoded(WHOLE["JPEG"], SHAPE).tobytes()


@pytest.mark.parametrize("name", ["CMYK", "turned", "truncated JPEG", "text"])
def test_a_file_that_servers_would_refuse_is_named_before_anything_is_made(tmp_path, name):
    (tmp_path / "photo.jpg").write_bytes(REFUSED[name][0])
    with pytest.raises(Problem, match=r"photo\.jpg: (an image in CMYK|its EXIF|a damaged|no JPEG file)") as caught:
        image_folder.read(tmp_path, SHAPE, 10, Encoding.JPEG)
    assert "\n" not in str(caught.value)


def test_a_file_of_the_other_format_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(WHOLE["PNG"])
    with pytest.raises(Problem, match=r"a\.png: no JPEG file, and encoding = 'jpeg'; save it as one, or take it out"):
        image_folder.read(tmp_path, SHAPE, 10, Encoding.JPEG)


def test_lossless_files_are_held_to_what_tensors_are():
    assert Encoding.PNG.tolerance(Precision.FP32) == Encoding.NONE.tolerance(Precision.FP32) == 1e-4
    assert Encoding.JPEG.tolerance(Precision.FP32) == 2**-10
    assert Encoding.JPEG.tolerance(Precision.BF16) == Precision.BF16.tolerance
