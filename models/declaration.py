"""What a user declares of a model of their own: its factory, the size of its images, what is done to their pixels, and
what comes out. Imports no deep-learning library."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from pathlib import PurePath
from typing import Any

import msgspec

from models.problem import Problem

Shape = tuple[int, int, int]  # (H, W, C) of one image

FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
SIZE = re.compile(r"(\d{1,6})x(\d{1,6})x(\d{1,6})")
CHANNELS = {1: "gray", 3: "RGB"}
# Values of one image: as JSON it still passes the servers' limits of 100 MB for a request.
LARGEST = 2048 * 2048 * 3


class Output(StrEnum):
    """What a network gives for an image: scores that a softmax makes probabilities of, or these."""

    LOGITS = "logits"
    PROBABILITIES = "probabilities"


class ChannelOrder(StrEnum):
    """In which order a network takes the channels; images come as RGB."""

    RGB = "rgb"
    BGR = "bgr"


class Layout(StrEnum):
    """In which order a network takes the axes of a batch."""

    NCHW = "nchw"
    NHWC = "nhwc"


@dataclass(frozen=True)
class Preset:
    """A usual normalisation: pixel values 0-255 times ``scale``, less ``mean``, divided by ``std``; the latter two for
    each channel, or one for all."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]


PRESETS = {
    "imagenet": Preset(1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),  # torchvision's models
    "0-1": Preset(1 / 255, (0.0,), (1.0,)),
    "-1-1": Preset(1 / 255, (0.5,), (0.5,)),
    "none": Preset(1.0, (0.0,), (1.0,)),
}
BY_DEFAULT = "0-1"  # as torchvision's ToTensor


@dataclass(frozen=True)
class Steps:
    """What is done to an image before it is normalised, and the layout that the network takes.

    resize, crop  (height, width) or None; in this order
    """

    resize: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    channel_order: ChannelOrder = ChannelOrder.RGB
    layout: Layout = Layout.NCHW


@dataclass(frozen=True)
class Preprocessing:
    """The table ``[preprocessing]``: what becomes of uint8 pixels before a network sees them, in both servers' graphs.

    preset         of `PRESETS`; the keys beside it win. None: "0-1"
    scale          pixel values 0-255 times this,
    mean, std      less and divided by these: one for each channel in the network's order, or one for all
    resize         before that: (height, width), or the length of the shorter side
    centre_crop    after it: (height, width), or one length for both
    channel_order  "rgb" or "bgr"
    layout         "nchw" or "nhwc"
    Raises `Problem`, starting with the dotted key at fault, for an impossible value.
    """

    preset: str = ""
    scale: float | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: tuple[int, ...] = ()
    centre_crop: tuple[int, ...] = ()
    channel_order: str = ""
    layout: str = ""

    def __post_init__(self) -> None:
        choices = {"preset": tuple(PRESETS), "channel_order": tuple(ChannelOrder), "layout": tuple(Layout)}
        for key, known in choices.items():
            if (value := getattr(self, key)) and value not in known:
                raise _wrong(key, value, f"use {', '.join(known)}")
        if self.scale is not None and not (math.isfinite(self.scale) and self.scale > 0):
            raise _wrong("scale", self.scale, "use a number above 0, such as 0.00392156862745098 (1/255)")
        for key in ("mean", "std"):
            values = getattr(self, key)
            if values and (len(values) not in (1, *CHANNELS) or not all(map(math.isfinite, values))):
                raise _wrong(key, values, "use one number for each channel, or one for all")
        if not all(value > 0 for value in self.std):
            raise _wrong("std", self.std, "it divides: use numbers above 0")
        for key in ("resize", "centre_crop"):
            sides = getattr(self, key)
            if sides and (len(sides) > 2 or not all(1 <= side <= 2**14 for side in sides)):
                raise _wrong(key, sides, "use [height, width] in pixels, or one length as [256]")

    @property
    def declared(self) -> dict[str, Any]:
        """The keys that were given, as plain values."""
        given = {key: value for key, value in asdict(self).items() if value not in ("", (), None)}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}

    @property
    def normalises(self) -> bool:
        """Whether it says how pixel values are normalised."""
        return bool(self.preset or self.scale is not None or self.mean or self.std)

    def to_text(self) -> str:
        """The declaration as `preprocessing` reads it."""
        return f"{{{', '.join(f'{key} = {json.dumps(value)}' for key, value in self.declared.items())}}}"

    def normalisation(self, channels: int) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of each channel in pixel values 0-255. Raises `Problem` where those declared are
        for another number of channels."""
        preset = PRESETS[self.preset or BY_DEFAULT]
        scale = preset.scale if self.scale is None else self.scale
        found = []
        for key in ("mean", "std"):
            given: tuple[float, ...] = getattr(self, key)
            values: tuple[float, ...] = given or getattr(preset, key)
            if len(values) not in (1, channels):
                fault, value = (key, list(given)) if given else ("preset", self.preset)
                fix = "give one for each" if given else "use 0-1, -1-1 or none, or give mean and std"
                raise _wrong(fault, value, f"is for {len(values)} channels, and input has {channels}; {fix}")
            found.append([value / scale for value in (values * channels)[:channels]])
        mean, std = found
        return mean, std

    def steps(self, shape: Shape) -> Steps:
        """What it means for images (H, W, C). Raises `Problem` where it cannot be done to them."""
        height, width, channels = shape
        if self.channel_order == ChannelOrder.BGR and channels == 1:
            raise _wrong("channel_order", self.channel_order, "input has one channel; leave it out")
        resize = _sides(self.resize, height, width)
        height, width = resize or (height, width)
        crop = None
        if self.centre_crop:
            crop = self.centre_crop[0], self.centre_crop[-1]
            if crop[0] > height or crop[1] > width:
                raise _wrong("centre_crop", list(self.centre_crop), f"images are {height}x{width} there; use no more")
        order = ChannelOrder(self.channel_order or ChannelOrder.RGB)
        return Steps(resize, crop, order, Layout(self.layout or Layout.NCHW))

    def record(self, shape: Shape) -> dict[str, Any]:
        """What is done to images (H, W, C), as plain values for a manifest."""
        mean, std = self.normalisation(shape[2])
        steps = self.steps(shape)
        return {
            "mean": mean,
            "std": std,
            "resize": list(steps.resize) if steps.resize else None,
            "centre_crop": list(steps.crop) if steps.crop else None,
            "channel_order": steps.channel_order.value,
            "layout": steps.layout.value,
        }


@dataclass(frozen=True)
class Intake:
    """What is declared of the images of a network that has a size and a normalisation of its own.

    shape          (H, W, C) as clients send them; None: as the network takes them
    preprocessing  what is done to them; where it says no normalisation, the network's own stays
    """

    shape: Shape | None = None
    preprocessing: Preprocessing = field(default_factory=Preprocessing)

    @property
    def record(self) -> dict[str, Any] | None:
        """As plain values for a manifest, of which `of` makes it again; None where nothing is declared."""
        if self == UNDECLARED:
            return None
        return {"input": list(self.shape) if self.shape else None, "declared": self.preprocessing.declared}

    @classmethod
    def of(cls, record: Mapping[str, Any] | None) -> Intake:
        """What `record` told of."""
        if record is None:
            return cls()
        shape = record["input"]
        return cls((shape[0], shape[1], shape[2]) if shape else None, _converted(record["declared"]))


UNDECLARED = Intake()


def preprocessing(text: str) -> Preprocessing:
    """Read a preset's name, or an inline table of TOML: ``{preset = "imagenet", channel_order = "bgr"}``.

    Raises `Problem`.
    """
    if not text.lstrip().startswith("{"):
        return Preprocessing(preset=text.strip())
    try:
        values = tomllib.loads(f"table = {text}")["table"]
    except tomllib.TOMLDecodeError as error:
        raise Problem(f"preprocessing = {text}: not an inline table of TOML ({error})") from None
    return _converted(values)


def _converted(values: Mapping[str, Any]) -> Preprocessing:
    known = [field.name for field in fields(Preprocessing)]
    for key in values:
        if key not in known:
            raise Problem(f"preprocessing.{key}: unknown key; known keys: {', '.join(known)}")
    try:
        return msgspec.convert(values, Preprocessing)
    except msgspec.ValidationError as error:
        raise Problem(f"preprocessing: {error}") from None


def output(text: str) -> Output:
    """Read what a network gives. Raises `Problem`."""
    try:
        return Output(text)
    except ValueError:
        raise Problem(f"output = {text!r}: use {', '.join(Output)}") from None


def image_shape(text: str) -> Shape:
    """Read the size of the images that clients send, "224x224x3" as (H, W, C). Raises `Problem`."""
    found = SIZE.fullmatch(text.strip().lower())
    if found is None:
        raise Problem(f"input = {text!r}: use HEIGHTxWIDTHxCHANNELS in pixels, such as 224x224x3")
    height, width, channels = map(int, found.groups())
    if not height or not width:
        raise Problem(f"input = {text!r}: an image has a row and a column at least")
    if channels not in CHANNELS:
        raise Problem(f"input = {text!r}: images have 3 channels (RGB) or 1 (gray)")
    if height * width * channels > LARGEST:
        raise Problem(f"input = {text!r}: too large for a request; at most 2048x2048x3, which is {LARGEST:,} values")
    return height, width, channels


def written(shape: Shape) -> str:
    """A shape as `image_shape` reads it."""
    return "x".join(map(str, shape))


def is_factory(model: str) -> bool:
    """Whether a model's name is that of a user's factory. Raises `Problem` for one that is meant to be and is none."""
    if ":" in model and not FACTORY.fullmatch(model):
        raise Problem(f"model = {model!r}: use package.module:factory, such as nets.small:build, or a known name")
    return ":" in model


def servable(model: str) -> str:
    """What a model is called on the servers and under artifacts/: a factory's own name, made safe."""
    if not FACTORY.fullmatch(model):
        return model
    return _safe(model.partition(":")[2])


def servable_of(file: PurePath) -> str:
    """What a model that came as a file is called on the servers and under artifacts/."""
    return _safe(file.stem)


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")[:64] or "model"


def _sides(given: tuple[int, ...], height: int, width: int) -> tuple[int, int] | None:
    """(height, width) of what is resized; one length is that of the shorter side, as in torchvision's Resize."""
    if not given:
        return None
    if len(given) == 2:
        return given[0], given[1]
    (shorter,) = given
    longer = max(1, int(shorter * max(height, width) / min(height, width)))
    return (shorter, longer) if height <= width else (longer, shorter)


def _wrong(key: str, value: object, fix: str) -> Problem:
    shown = list(value) if isinstance(value, tuple) else value
    return Problem(f"preprocessing.{key} = {shown!r}: {fix}")
