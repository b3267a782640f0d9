"""What a user says of a model of their own: sizes, names, preprocessing."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import declaration
from models.declaration import LARGEST, PRESETS, ChannelOrder, Layout, Preprocessing, Steps
from models.problem import Problem

SIDES = st.integers(1, 2048)
SHAPES = st.tuples(SIDES, SIDES, st.sampled_from([1, 3]))


@given(SHAPES)
def test_a_size_is_read_as_it_is_written(shape):
    assert declaration.image_shape(declaration.written(shape)) == shape


@given(st.text(alphabet="0123456789xX× -.:", max_size=16) | st.text(max_size=8))
def test_any_other_text_is_refused_in_one_line(text):
    try:
        height, width, channels = declaration.image_shape(text)
    except Problem as problem:
        assert str(problem).startswith("input = ")
        assert "\n" not in str(problem)
    else:
        assert height >= 1
        assert width >= 1
        assert channels in (1, 3)
        assert height * width * channels <= LARGEST


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("224", "input = '224': use HEIGHTxWIDTHxCHANNELS in pixels, such as 224x224x3"),
        ("224x224", "use HEIGHTxWIDTHxCHANNELS"),
        ("-1x2x3", "use HEIGHTxWIDTHxCHANNELS"),
        ("0x224x3", "an image has a row and a column at least"),
        ("224x0x3", "an image has a row and a column at least"),
        ("3x224x224", r"images have 3 channels \(RGB\) or 1 \(gray\)"),
        ("224x224x4", r"images have 3 channels \(RGB\) or 1 \(gray\)"),
        ("4096x4096x3", "too large for a request; at most 2048x2048x3"),
    ],
)
def test_what_does_not_fit_is_said(text, message):
    with pytest.raises(Problem, match=message):
        declaration.image_shape(text)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("nets.small:build", "build"),
        ("nets:Net.from_defaults", "Net_from_defaults"),
        ("nets:_make__net", "make_net"),
        ("nets:né", "n"),
        ("nets:é", "model"),
        ("resnet18", "resnet18"),
    ],
)
def test_a_servable_is_called_after_its_factory(model, name):
    assert declaration.servable(model) == name


@pytest.mark.parametrize("model", ["nets:", ":build", "nets:build()", "a:b:c", "nets.:build", "7b:x", "a b:c"])
def test_what_is_meant_to_be_a_factory_and_is_none_is_said(model):
    with pytest.raises(Problem, match=r"model = .*: use package.module:factory, such as nets.small:build, or a known"):
        declaration.is_factory(model)
    assert declaration.servable(model) == model  # an endpoint's own name


FLOATS = st.floats(-1e6, 1e6, allow_nan=False)
CHANNELS = st.sampled_from([1, 3])
DECLARATIONS = st.builds(
    Preprocessing,
    preset=st.sampled_from(["", "0-1", "-1-1", "none"]),
    scale=st.none() | st.floats(1e-6, 1e6),
    mean=st.lists(FLOATS, max_size=1).map(tuple),
    std=st.lists(st.floats(1e-6, 1e6), max_size=1).map(tuple),
    resize=st.lists(SIDES, max_size=2).map(tuple),
    channel_order=st.sampled_from(["", "rgb", "bgr"]),
    layout=st.sampled_from(["", "nchw", "nhwc"]),
)


@given(DECLARATIONS)
def test_a_declaration_is_read_as_it_is_written(declared):
    assert declaration.preprocessing(declared.to_text()) == declared


@given(DECLARATIONS, st.integers(0, 255), CHANNELS)
def test_normalisation_in_pixel_values_is_the_declared_arithmetic(declared, pixel, channels):
    preset = PRESETS[declared.preset or "0-1"]
    scale = preset.scale if declared.scale is None else declared.scale
    (mean, std) = ((declared.mean or preset.mean)[0], (declared.std or preset.std)[0])
    means, stds = declared.normalisation(channels)
    assert len(means) == len(stds) == channels
    assert math.isclose((pixel - means[0]) / stds[0], (pixel * scale - mean) / std, rel_tol=1e-6, abs_tol=1e-6 / std)


@given(DECLARATIONS, SHAPES)
def test_whole_images_are_what_resizing_leaves(declared, shape):
    if shape[2] == 1 and declared.channel_order == "bgr":
        with pytest.raises(Problem, match=r"preprocessing.channel_order = 'bgr': input has one channel; leave it out"):
            declared.steps(shape)
        return
    steps = declared.steps(shape)
    if len(declared.resize) == 1:
        assert steps.resize is not None
        assert min(steps.resize) == declared.resize[0]
        assert (steps.resize[0] - steps.resize[1]) * (shape[0] - shape[1]) >= 0
    else:
        assert steps.resize == (declared.resize or None)
    assert steps.crop is None


def test_presets_and_keys_beside_them():
    assert Preprocessing(preset="imagenet").normalisation(3)[0] == pytest.approx([123.675, 116.28, 103.53])
    assert Preprocessing(preset="-1-1").normalisation(1) == (pytest.approx([127.5]), pytest.approx([127.5]))
    assert Preprocessing().normalisation(1) == ([0.0], [255.0])
    assert Preprocessing(preset="none").normalisation(3) == ([0.0] * 3, [1.0] * 3)
    assert Preprocessing(preset="imagenet", mean=(0.5,)).normalisation(3)[0] == pytest.approx([127.5] * 3)
    steps = Preprocessing(resize=(256,), centre_crop=(224,), channel_order="bgr", layout="nhwc").steps((300, 400, 3))
    assert steps == Steps((256, 341), (224, 224), ChannelOrder.BGR, Layout.NHWC)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("imagenett", "preprocessing.preset = 'imagenett': use imagenet, 0-1, -1-1, none"),
        ('{channel_order = "gbr"}', "preprocessing.channel_order = 'gbr': use rgb, bgr"),
        ('{layout = "hwc"}', "preprocessing.layout = 'hwc': use nchw, nhwc"),
        ("{scale = 0}", "preprocessing.scale = 0.0: use a number above 0"),
        ("{scale = inf}", "preprocessing.scale = inf: use a number above 0"),
        ("{std = [1, 0, 1]}", r"preprocessing.std = \[1.0, 0.0, 1.0\]: it divides: use numbers above 0"),
        ("{mean = [1, 2]}", "preprocessing.mean = .*: use one number for each channel, or one for all"),
        ("{resize = [0]}", r"preprocessing.resize = \[0\]: use \[height, width\] in pixels, or one length"),
        ("{centre_crop = [1, 2, 3]}", "preprocessing.centre_crop = "),
        ("{crop = 224}", "preprocessing.crop: unknown key; known keys: preset, scale, mean, std, resize, centre_crop"),
        ("{scale = 'x'}", "preprocessing: Expected"),
        ("{scale", "preprocessing = {scale: not an inline table of TOML"),
    ],
)
def test_an_impossible_declaration_names_its_key(text, message):
    with pytest.raises(Problem, match=message):
        declaration.preprocessing(text)


def test_what_does_not_fit_the_images_is_said():
    with pytest.raises(Problem, match=r"preprocessing.preset = 'imagenet': is for 3 channels, and input has 1; use"):
        Preprocessing(preset="imagenet").normalisation(1)
    with pytest.raises(Problem, match=r"preprocessing.mean = \[1.0, 2.0, 3.0\]: is for 3 channels, and input has 1; g"):
        Preprocessing(mean=(1.0, 2.0, 3.0)).normalisation(1)
    with pytest.raises(Problem, match=r"preprocessing.centre_crop = \[40\]: images are 33x47 there; use no more"):
        Preprocessing(centre_crop=(40,)).steps((33, 47, 1))
