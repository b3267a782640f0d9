"""The user's own pictures, as they come from cameras, scanners and colleagues."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from models import image_folder
from models.problem import Problem

SHAPE = (8, 8, 3)
RED, BLUE = (200, 0, 0), (0, 0, 200)


def _picture(path, color=RED, size=(16, 16), mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).convert(mode).save(path, **options)


def _read(folder, most=100):
    return image_folder.read(folder, SHAPE, most)


def test_sub_folders_are_labels(tmp_path):
    _picture(tmp_path / "dog" / "a.png", RED)
    _picture(tmp_path / "cat" / "deep" / "b.JPG", BLUE, format="JPEG")
    (tmp_path / "cat" / "notes.txt").write_text("passed over")
    _picture(tmp_path / ".trash" / "c.png")
    found = _read(tmp_path)
    assert found.class_names == ("cat", "dog")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1]
    assert (found.images.shape, found.images.dtype, found.found) == ((2, *SHAPE), np.uint8, 2)
    assert np.abs(found.images[0].astype(int) - BLUE).max() <= 2
    assert (found.images[1] == RED).all()


def test_a_flat_folder_has_no_labels_and_is_thinned_out_evenly(tmp_path):
    for number in range(10):
        _picture(tmp_path / f"{number}.png", (number, 0, 0))
    found = _read(tmp_path, most=4)
    assert found.labels is None
    assert found.class_names == ()
    assert (found.images[:, 0, 0, 0].tolist(), found.found) == ([0, 3, 6, 9], 10)
    before = found.digest
    _picture(tmp_path / "3.png", BLUE)
    assert _read(tmp_path, most=4).digest != before


def test_the_centre_is_taken_and_camera_rotation_is_undone(tmp_path):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = RED
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: rotate by 90 degrees to see it so
    Image.fromarray(wide).save(tmp_path / "wide.png")
    upright = np.zeros((16, 16, 3), np.uint8)
    upright[8:] = BLUE  # below in the file; on the left once rotated clockwise
    Image.fromarray(upright).save(tmp_path / "rotated.png", exif=exif)
    rotated, centre = _read(tmp_path).images
    assert (centre == RED).all()
    assert (rotated[:, :3] == BLUE).all()
    assert not rotated[:, 5:].any()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1"])
def test_gray_palettes_and_transparency_become_rgb(tmp_path, mode):
    _picture(tmp_path / "a.png", (255, 255, 255), mode=mode)
    assert (_read(tmp_path).images == 255).all()


def _sixteen_bit(path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)


def _cmyk(path):
    _picture(path, mode="CMYK")


def _truncated(path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("scan.png", _sixteen_bit, r"scan.png: a picture in I;16 of 16 bits; save it as RGB or gray with 8 bits"),
        ("print.jpg", _cmyk, r"print.jpg: a picture in CMYK; save it as RGB"),
        ("half.jpg", _truncated, r"half.jpg: a damaged picture \(.*truncated"),
        ("half.png", _truncated, r"half.png: a damaged picture"),
        ("page.jpg", lambda path: path.write_text("<html>"), r"page.jpg: no JPEG or PNG picture; delete it"),
        ("empty.png", lambda path: path.touch(), r"empty.png: no JPEG or PNG picture"),
    ],
)
def test_a_picture_that_cannot_be_used_is_named(tmp_path, name, make, message):
    make(tmp_path / name)
    with pytest.raises(Problem, match=message):
        _read(tmp_path)


def test_folders_that_hold_no_set_of_images_are_named(tmp_path):
    with pytest.raises(Problem, match=r"IMAGES=.*nowhere: no such folder"):
        _read(tmp_path / "nowhere")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(Problem, match="no image there; put JPEG or PNG files in it"):
        _read(tmp_path)
    _picture(tmp_path / "cat" / "a.png")
    _picture(tmp_path / "loose.png")
    with pytest.raises(Problem, match=r"loose.png: has no label while others have"):
        _read(tmp_path)
