"""The CNNs that can be compared by name, one file a family; `build` wraps one into the servable that is exported.

Modules are named as torchvision names those of the same network, so that its checkpoints load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import nn

from models.architectures.classifier import ImageClassifier
from models.architectures.convnet import convnet
from models.architectures.densenet import densenet121
from models.architectures.efficientnet import efficientnet_b0
from models.architectures.lenet import lenet
from models.architectures.mobilenet import mobilenet_v2
from models.architectures.resnet import resnet18, resnet20, resnet50
from models.architectures.vgg import vgg11
from models.declaration import UNDECLARED, Intake, Layout, written
from models.problem import Problem

__all__ = ["ARCHITECTURES", "Architecture", "ImageClassifier", "build", "named", "require_fit"]


@dataclass(frozen=True)
class Architecture:
    """A network that is known by name.

    network  builds it for a number of classes: float32 [N, 3, side, side], normalised -> logits [N, classes]
    head     the module that gives the logits, an `nn.Linear`
    side     height and width of its images, in pixels
    """

    network: Callable[[int], nn.Module]
    head: str
    side: int = 224

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        return self.side, self.side, 3

    @property
    def trained_here(self) -> bool:
        """Whether it is trained, in minutes; else its weights are a checkpoint's, or drawn from a seed."""
        return self.side <= 32


ARCHITECTURES = {
    "convnet": Architecture(convnet, head="4", side=32),
    "densenet121": Architecture(densenet121, head="classifier"),
    "efficientnet_b0": Architecture(efficientnet_b0, head="classifier.1"),
    "lenet": Architecture(lenet, head="11", side=32),
    "mobilenet_v2": Architecture(mobilenet_v2, head="classifier.1"),
    "resnet18": Architecture(resnet18, head="fc"),
    "resnet20": Architecture(resnet20, head="fc", side=32),
    "resnet50": Architecture(resnet50, head="fc"),
    "vgg11": Architecture(vgg11, head="classifier.6"),
}


def named(name: str) -> Architecture:
    """The architecture of that name; raises `Problem` for an unknown one."""
    if name not in ARCHITECTURES:
        raise Problem(f"model {name!r} is unknown: use one of {', '.join(sorted(ARCHITECTURES))}")
    return ARCHITECTURES[name]


def require_fit(name: str, intake: Intake) -> None:
    """Raises `Problem` where what is declared of images would give the network others than it takes."""
    architecture, preprocessing = named(name), intake.preprocessing
    shape, side = intake.shape or architecture.image_shape, architecture.side
    if shape[2] != architecture.image_shape[2]:
        raise Problem(f"input = '{written(shape)}': {name} takes images of 3 channels; use {side}x{side}x3")
    if preprocessing.normalises:
        preprocessing.normalisation(shape[2])
    steps = preprocessing.steps(shape)
    if steps.layout is not Layout.NCHW:
        raise Problem(f"preprocessing.layout = '{steps.layout}': {name} takes channels first; leave it out")
    height, width = steps.crop or steps.resize or shape[:2]
    if (height, width) != (side, side):
        said = "preprocessing" if steps.crop or steps.resize else f"input = '{written(shape)}'"
        raise Problem(
            f"{said}: {name} takes {side}x{side} images, and these would be {height}x{width}; bring them to it, such "
            f"as with resize = [{side}] and centre_crop = [{side}] in [preprocessing]"
        )


def build(
    name: str,
    classes: int,
    mean: Sequence[float] = (0.0,) * 3,
    std: Sequence[float] = (1.0,) * 3,
    intake: Intake = UNDECLARED,
) -> ImageClassifier:
    """A new, untrained classifier; ``mean`` and ``std`` where ``intake`` declares no others.

    Raises `Problem` for an unknown architecture.
    """
    architecture, preprocessing = named(name), intake.preprocessing
    shape = intake.shape or architecture.image_shape
    if preprocessing.normalises:
        mean, std = preprocessing.normalisation(shape[2])
    return ImageClassifier(architecture.network(classes), mean, std, shape, preprocessing.steps(shape))
