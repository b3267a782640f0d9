"""What a bundle is made from: an architecture, where its weights come from, and the images that prove and load it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from models import (
    architectures,
    brought,
    checkpoints,
    declaration,
    enlargement,
    image_decoding,
    image_encoding,
    image_folder,
    own_files,
    own_torchscript,
)
from models.architectures import Architecture
from models.brought import Brought
from models.bundle import Weights
from models.checkpoints import Checkpoint
from models.datasets import IMAGE_SHAPE, Dataset
from models.declaration import UNDECLARED, Intake, Output, Preprocessing, Shape
from models.encoding import Encoding
from models.image_folder import ImageFolder
from models.own_files import Files
from models.problem import Problem
from models.training import Settings

# Of images larger than those of the data sets: enough for parity, few enough for minutes on two cores.
LARGE_IMAGES = 200
LARGE_BYTES = 2**28  # of all of them: fewer, where they are huge
CALIBRATION_IMAGES = 64
PUBLISHED_CLASSES = 1000  # of ImageNet, where nothing else says how many
NO_LABEL = -1


@dataclass(frozen=True)
class Own:
    """What the user brings.

    checkpoint  weights (CHECKPOINT)
    images      a folder of images (IMAGES)
    classes     a text file with the name of a class a line (CLASSES)
    input, preprocessing, output  what clients send, what is done to it, and what the model gives; None: not said
    savedmodel  the TensorFlow side, a SavedModel's folder (SAVEDMODEL)
    torchscript, onnx  a model whose source is not here, as files (TORCHSCRIPT, ONNX)
    """

    checkpoint: Path | None = None
    images: Path | None = None
    classes: Path | None = None
    input: Shape | None = None
    preprocessing: Preprocessing | None = None
    output: Output | None = None
    savedmodel: Path | None = None
    torchscript: Path | None = None
    onnx: Path | None = None


@dataclass(frozen=True)
class Reference:
    """The images of parity and of the load.

    images  uint8 [N, H, W, C], ``labels`` int64 [N], places in ``class_names`` or all `NO_LABEL`
    record  the manifest's ``reference`` entry: images, of how many, resized from what (None: from files of many sizes)
    encoded the files that ``images`` were decoded from, where clients send such
    """

    images: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    record: dict[str, Any]
    encoded: tuple[bytes, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether accuracy can be told."""
        return bool((self.labels != NO_LABEL).all())


@dataclass(frozen=True)
class Recipe:
    """Read by `read`; what it names exists and can be read.

    model    the servable's name, and the architecture's where no network is ``brought``
    brought  a network that is no architecture of the house, with its weights
    intake   what is declared of the images of an architecture of the house
    encoding what clients send of an image
    """

    model: str
    dataset: str
    settings: Settings
    checkpoint: Checkpoint | None = None
    folder: ImageFolder | None = None
    class_names: tuple[str, ...] | None = None
    brought: Brought | None = None
    savedmodel: Files | None = None
    onnx: Files | None = None
    intake: Intake = UNDECLARED
    encoding: Encoding = Encoding.NONE

    @property
    def architecture(self) -> Architecture:
        """The network of the house and the size of its images."""
        return architectures.named(self.model)

    @property
    def said(self) -> str:
        """What its network is, as a user reads it in messages."""
        return self.brought.said if self.brought else f"model {self.model}"

    @property
    def image_shape(self) -> Shape:
        """(H, W, C) of one image."""
        if self.brought is not None:
            return self.brought.image_shape
        return self.intake.shape or self.architecture.image_shape

    @property
    def weights(self) -> Weights:
        """Where the weights come from."""
        if self.brought is not None:
            return self.brought.weights
        if self.checkpoint is not None:
            return Weights.CHECKPOINT
        return Weights.TRAINED if self.architecture.trained_here else Weights.SEEDED

    @property
    def needs_dataset(self) -> bool:
        """Whether anything is taken from the data set."""
        return self.folder is None or self.weights is Weights.TRAINED

    @property
    def images_of(self) -> str:
        """Whose images prove and load the model: the data set's name, or the folder's."""
        return self.dataset if self.needs_dataset or self.folder is None else self.folder.name

    def to_dict(self) -> dict[str, Any]:
        """What decides a bundle's weights and images, as plain values for its manifest."""
        decides = {
            Weights.TRAINED: self.settings.to_dict(),
            Weights.SEEDED: {"seed": self.settings.seed},
            Weights.CHECKPOINT: {"checkpoint": self.checkpoint.sha256 if self.checkpoint else None},
            Weights.FACTORY: {"seed": self.settings.seed},
            Weights.FILE: {},
        }
        return {
            **decides[self.weights],
            "weights": self.weights.value,
            "images": self.folder.digest if self.folder else None,
            "classes": list(self.class_names) if self.class_names else None,
            "own": self.brought.record if self.brought else None,
            "preprocessing": self.intake.record,
            "savedmodel": self.savedmodel.digest if self.savedmodel else None,
            "onnx": self.onnx.digest if self.onnx else None,
            "encoding": self.encoding.value,
        }

    def names(self, data: Dataset | None) -> tuple[str, ...]:
        """The classes' names, in the order of the logits. Raises `Problem` where the model has another number."""
        if self.weights is Weights.TRAINED:
            assert data is not None
            return data.class_names
        names = self.class_names or (self.folder.class_names if self.folder else data.class_names if data else ())
        if self.brought is not None:
            count, what = self.brought.classes, f"{self.brought.said}: gives {self.brought.classes} classes"
        elif self.checkpoint is not None:
            count = checkpoints.classes(self.checkpoint, self.model)
            what = f"CHECKPOINT={self.checkpoint.path}: {self.architecture.head}.weight is for {count} classes"
        else:
            count, what = len(names) or PUBLISHED_CLASSES, ""
        if not names:
            return tuple(f"class {number}" for number in range(count))
        if len(names) != count:
            whose = "CLASSES" if self.class_names else f"IMAGES={self.folder.name}" if self.folder else self.dataset
            raise Problem(
                f"{what}, and {whose} has {len(names)}; name them in CLASSES=labels.txt, one a line, or bring images "
                "without sub-folders as IMAGES=folder"
            )
        return names

    def reference(self, data: Dataset | None) -> Reference:
        """The images and their labels. Raises `Problem` for a label that is no class."""
        names = self.names(data)
        shape = self.image_shape
        if self.folder is not None:
            labels = _labels(self.folder, names)
            record = {"images": len(labels), "of": self.folder.found, "folder": self.folder.name, "resized_from": None}
            return Reference(self.folder.images, labels, names, record, self.folder.encoded)
        assert data is not None
        images, labels = data.test.images, data.test.labels
        encoded: tuple[bytes, ...] = ()
        if shape != IMAGE_SHAPE or self.encoding is not Encoding.NONE:
            chosen = np.random.default_rng(0).permutation(len(labels))[: _most(shape, self.encoding)]
            images, labels = enlargement.enlarged(images[chosen], shape), labels[chosen]
        if self.encoding is not Encoding.NONE:
            encoded = image_encoding.encoded(images, self.encoding)
            images = np.stack([image_decoding.decoded(file, shape) for file in encoded])
        resized_from = None if shape == IMAGE_SHAPE else list(IMAGE_SHAPE[:2])
        record = {"images": len(labels), "of": len(data.test.labels), "folder": None, "resized_from": resized_from}
        if set(data.class_names) <= set(names):
            labels = np.array([names.index(name) for name in data.class_names], np.int64)[labels]
        else:
            labels = np.full(len(labels), NO_LABEL, np.int64)
        return Reference(images, labels, names, record, encoded)

    def calibration(self, data: Dataset | None) -> np.ndarray:
        """Images that seeded weights are calibrated on, uint8 [N, H, W, 3]; of a data set, from its training split."""
        if self.folder is not None:
            return self.folder.images[:CALIBRATION_IMAGES]
        assert data is not None
        chosen = np.random.default_rng(0).permutation(len(data.train.labels))[:CALIBRATION_IMAGES]
        return enlargement.enlarged(data.train.images[chosen], self.image_shape)


def read(model: str, dataset: str, settings: Settings, own: Own, encoding: Encoding = Encoding.NONE) -> Recipe:
    """Read what the user brings. Raises `Problem` naming the file at fault and the fix."""
    if own.savedmodel is not None and encoding is not Encoding.NONE:
        raise Problem(
            f"encoding = '{encoding}': SAVEDMODEL={own.savedmodel} is served as it comes, and takes no "
            "such files; leave one of them out"
        )
    return replace(_read(model, dataset, settings, own, encoding), encoding=encoding)


def _read(model: str, dataset: str, settings: Settings, own: Own, encoding: Encoding) -> Recipe:
    checkpoint = checkpoints.read(own.checkpoint) if own.checkpoint else None
    class_names = _class_names(own.classes) if own.classes else None
    savedmodel = own_files.savedmodel(own.savedmodel) if own.savedmodel else None
    onnx = own_files.onnx(own.onnx) if own.onnx else None
    if own.torchscript is not None:
        if checkpoint is not None or declaration.is_factory(model):
            raise Problem(
                f"TORCHSCRIPT={own.torchscript}: holds network and weights; leave CHECKPOINT and "
                "MODEL=package.module:factory out, or TORCHSCRIPT"
            )
        file = own_files.torchscript(own.torchscript)
        network = own_torchscript.read(file, own.input, own.preprocessing, own.output)
        name, folder = declaration.servable_of(own.torchscript), _folder(own.images, network.image_shape, encoding)
        return Recipe(name, dataset, settings, None, folder, class_names, network, savedmodel, onnx)
    if onnx is not None and checkpoint is None and not declaration.is_factory(model):
        raise Problem(
            f"ONNX={own.onnx}: TorchServe needs the same model in PyTorch, which no ONNX file becomes; bring that, "
            "too: TORCHSCRIPT=file.pt, CHECKPOINT=file.pth with MODEL, or MODEL=package.module:factory"
        )
    if declaration.is_factory(model):
        preprocessing, output = own.preprocessing or Preprocessing(), own.output or Output.LOGITS
        network = brought.from_factory(model, own.input, preprocessing, output, checkpoint, settings.seed)
        folder = _folder(own.images, network.image_shape, encoding)
        return Recipe(
            declaration.servable(model), dataset, settings, checkpoint, folder, class_names, network, savedmodel, onnx
        )
    architecture = architectures.named(model)
    intake = _intake(model, own)
    if own.classes and architecture.trained_here and not own.checkpoint:
        raise Problem(f"CLASSES={own.classes}: {model} is trained on {dataset}, whose classes have names; leave it out")
    if checkpoint is not None:
        checkpoints.classifier(checkpoint, model, [0.0] * 3, [1.0] * 3)  # every key and shape
    folder = _folder(own.images, intake.shape or architecture.image_shape, encoding)
    return Recipe(model, dataset, settings, checkpoint, folder, class_names, None, savedmodel, onnx, intake)


def _intake(model: str, own: Own) -> Intake:
    """What is declared of the images of a network of the house. Raises `Problem` for what does not fit it."""
    architecture = architectures.named(model)
    if own.output is not None:
        raise Problem(f"OUTPUT={own.output}: {model} is a network of the house, which gives logits; leave it out")
    shape = None if own.input == architecture.image_shape else own.input
    if shape is not None and architecture.trained_here and own.checkpoint is None:
        raise Problem(
            f"INPUT={declaration.written(shape)}: {model} is trained on images of "
            f"{declaration.written(architecture.image_shape)}; leave INPUT out, or bring a CHECKPOINT"
        )
    intake = Intake(shape, own.preprocessing or Preprocessing())
    architectures.require_fit(model, intake)
    return intake


def _folder(path: Path | None, shape: Shape, encoding: Encoding) -> ImageFolder | None:
    return image_folder.read(path, shape, _most(shape, encoding), encoding) if path else None


def _most(shape: Shape, encoding: Encoding) -> int:
    """How many images of this shape are read: enough for parity, and no more than fit into memory several times.
    Files go to a server one by one."""
    if encoding is Encoding.NONE and math.prod(shape) <= math.prod(IMAGE_SHAPE):
        return 10 * LARGE_IMAGES
    return min(LARGE_IMAGES, max(1, LARGE_BYTES // math.prod(shape)))


def _labels(folder: ImageFolder, names: tuple[str, ...]) -> np.ndarray:
    if folder.labels is None:
        return np.full(len(folder.images), NO_LABEL, np.int64)
    for name in folder.class_names:
        if name not in names:
            raise Problem(
                f"IMAGES={folder.name}/{name}: the model has no class of that name; rename the sub-folder, name the "
                "classes in CLASSES=labels.txt, or put the images in no sub-folder"
            )
    labels: np.ndarray = np.array([names.index(name) for name in folder.class_names], np.int64)[folder.labels]
    return labels


def _class_names(path: Path) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise Problem(f"CLASSES={path}: {why}; name a text file with the name of a class a line") from None
    if len(names) < 2:
        raise Problem(f"CLASSES={path}: {len(names)} names; a classifier has two classes or more, one a line")
    return names
