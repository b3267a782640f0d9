"""A network that a user brings, which is no architecture of the house: what it is, and what made it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from models import checkpoints, declaration, examination, factories, training
from models.architectures import ImageClassifier
from models.bundle import Around, Weights
from models.checkpoints import Checkpoint
from models.declaration import Output, Preprocessing, Shape
from models.own_files import Files
from models.problem import Problem
from models.training import Trained


@dataclass(frozen=True)
class Brought:
    """A network with its weights, found able to be served.

    said        what brought it, as a user reads it in messages: "MODEL=nets.small:build"
    classifier  with preprocessing and softmax, in evaluation mode; uint8 [N, H, W, C] -> float32 [N, classes]
    classes     how many
    weights     whose they are
    record      what made it, as plain values for the manifest; a bundle of an equal record can be used again
    files       that it is in, where it came as a file; ``around``: what Tandem's own graph does around it
    """

    said: str
    classifier: ImageClassifier
    classes: int
    weights: Weights
    record: dict[str, Any]
    files: Files | None = None
    around: tuple[Around, ...] = ()

    @property
    def image_shape(self) -> Shape:
        """(H, W, C) of one image, as clients send it."""
        return self.classifier.image_shape


def from_factory(
    model: str,
    shape: Shape | None,
    preprocessing: Preprocessing,
    output: Output,
    checkpoint: Checkpoint | None,
    seed: int,
) -> Brought:
    """Call a user's factory, give its network the checkpoint's weights, and examine it. Raises `Problem`."""
    if shape is None:
        raise Problem(f"MODEL={model}: say the size of its images, as INPUT=224x224x3 (height, width, channels)")
    what = f"MODEL={model}"
    network = _network(model, seed)
    if checkpoint is not None:
        checkpoints.fill(checkpoint, model, network)
    with factories.said(f"{what}: eval() failed"):
        classifier = wrapped(network, shape, preprocessing, output)
    classes = examination.classes(what, classifier)
    record = {
        "factory": model,
        "source": factories.sources(model),
        "state": _state(network.state_dict()),
        **declared(shape, preprocessing, output),
    }
    weights = Weights.FACTORY if checkpoint is None else Weights.CHECKPOINT
    return Brought(what, classifier, classes, weights, record)


def wrapped(network: nn.Module, shape: Shape, preprocessing: Preprocessing, output: Output) -> ImageClassifier:
    """A network, put into evaluation mode, behind its preprocessing. Raises `Problem` where that cannot be done."""
    mean, std = preprocessing.normalisation(shape[2])
    classifier = ImageClassifier(network, mean, std, shape, preprocessing.steps(shape), output)
    # Users' networks flatten with view(), which images that lie channels last refuse.
    classifier.memory_format = torch.contiguous_format
    classifier.eval()
    return classifier


def declared(shape: Shape, preprocessing: Preprocessing, output: Output) -> dict[str, Any]:
    """What a user says of a network, as plain values for the manifest."""
    return {
        "input": list(shape),
        "preprocessing": preprocessing.record(shape),
        "declared": preprocessing.declared,
        "output": output.value,
    }


def load(checkpoint: Path, record: Mapping[str, Any]) -> Trained:
    """The classifier of a bundle again, its weights from the bundle's checkpoint and its network from the factory.

    record  the manifest's, as `Brought` has it
    Raises `Problem` where the factory is not to be found any more or makes another network.
    """

    def build(_: Mapping[str, Any], __: int) -> ImageClassifier:
        network = _network(record["factory"], seed=0)
        shape = (record["input"][0], record["input"][1], record["input"][2])
        preprocessing = Preprocessing(**{key: _tuple(value) for key, value in record["declared"].items()})
        return wrapped(network, shape, preprocessing, declaration.output(record["output"]))

    return training.load(checkpoint, build)


def _network(model: str, seed: int) -> nn.Module:
    """What the factory makes, on the CPU. Raises `Problem` also for layers without a size yet."""
    network = factories.call(model, seed)
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        if is_lazy(tensor):
            raise Problem(f"MODEL={model}: {name} has no size yet (a lazy layer); run it once in the factory")
    return network.to("cpu")


def _state(tensors: Mapping[str, Any]) -> str:
    """SHA-256 over a state dict."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        digest.update(f"{name}\n".encode())
        if isinstance(value, Tensor):
            digest.update(f"{value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy())
        else:
            digest.update(repr(value).encode())
    return digest.hexdigest()


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
