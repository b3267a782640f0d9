"""A user's TorchScript file as the PyTorch side: loaded, asked what it takes, and put behind its preprocessing.

Loading one builds tensors and a graph of TorchScript's own operations; it runs no pickle of arbitrary Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from models import brought, declaration, examination, own_files, torchscript
from models.architectures import ImageClassifier
from models.brought import Brought
from models.bundle import Around, Bundle, Weights
from models.declaration import Output, Preprocessing, Shape
from models.own_files import Files
from models.problem import Problem


class WireClassifier(ImageClassifier):
    """A network that takes images as clients send them, uint8 [N, H, W, C], and does all the rest itself."""

    def __init__(self, network: torch.nn.Module, image_shape: Shape, output: Output = Output.PROBABILITIES) -> None:
        channels = image_shape[2]
        super().__init__(network, (0.0,) * channels, (1.0,) * channels, image_shape, output=output)

    def logits(self, images: Tensor) -> Tensor:
        """What the network gives for them."""
        scores: Tensor = self.network(images)
        return scores


def read(files: Files, shape: Shape | None, preprocessing: Preprocessing | None, output: Output | None) -> Brought:
    """Load a TorchScript file and examine it.

    It takes images as they come where it answers uint8 [N, H, W, C] and no ``preprocessing`` is declared; else floats
    behind it. Raises `Problem`, one line with the way out, for a file that is damaged or no classifier of such images.
    """
    what = f"TORCHSCRIPT={files.path}"
    if shape is None:
        raise Problem(f"{what}: say the size of its images, as INPUT=224x224x3 (height, width, channels)")
    network = _load(what, files)
    if preprocessing is None and _takes_the_wire(network, shape):
        classifier: ImageClassifier = WireClassifier(network, shape, output or Output.PROBABILITIES).eval()
        around: tuple[Around, ...] = (Around.SOFTMAX,) if classifier.output is Output.LOGITS else ()
    else:
        preprocessing = preprocessing or Preprocessing()
        classifier = brought.wrapped(network, shape, preprocessing, output or Output.LOGITS)
        around = _around(classifier)
    classes = examination.classes(what, classifier)
    record = {
        "torchscript": files.digest,
        **brought.declared(shape, preprocessing or Preprocessing(), classifier.output),
    }
    return Brought(what, classifier, classes, Weights.FILE, record, files, around)


def served(bundle: Bundle) -> ImageClassifier:
    """The classifier of a bundle again, from its own TorchScript file, which speaks the wire."""
    classifier = WireClassifier(torchscript.load(bundle.torchscript), bundle.input_shape)
    classifier.eval()
    return classifier


def _load(what: str, files: Files) -> torch.jit.ScriptModule:
    try:
        network = torchscript.load(files.path)
    except Exception as error:  # torch raises many kinds
        raise Problem(
            f"{what}: not a TorchScript archive, or a damaged one ({_line(error)}); {own_files.WRITE_TORCHSCRIPT}"
        ) from None
    for name, tensor in _constants(network):
        if tensor.is_floating_point() and bool(torch.isnan(tensor).any()):
            raise Problem(f"{what}: weight {name} holds NaN; use weights from before that")
    return network


def _constants(network: torch.jit.ScriptModule) -> Iterator[tuple[str, Tensor]]:
    """Weights that freezing has put into the graph."""
    for node in network.forward.graph.findAllNodes("prim::Constant", True):
        if node.hasAttribute("value") and node.kindOf("value") == "t":
            yield node.output().debugName(), node.t("value")


def _takes_the_wire(network: torch.jit.ScriptModule, shape: Shape) -> bool:
    """Whether it answers two images as clients send them with a row each: a network for floats fails on these."""
    try:
        with torch.no_grad():
            scores: Any = network(torch.zeros(2, *shape, dtype=torch.uint8))
    except Exception:  # whatever its graph raises
        return False
    return isinstance(scores, Tensor) and scores.is_floating_point() and scores.shape[:1] == (2,)


def _around(classifier: ImageClassifier) -> tuple[Around, ...]:
    around = [Around.CAST, Around.NORMALISED]
    if classifier.steps.layout is declaration.Layout.NCHW:
        around.append(Around.TRANSPOSED)
    if classifier.output is Output.LOGITS:
        around.append(Around.SOFTMAX)
    return tuple(around)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
