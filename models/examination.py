"""Whether a network that a user brings can be served: one answer for each image, the same each time, on its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import declaration, training
from models.architectures import ImageClassifier
from models.declaration import Output
from models.factories import said
from models.problem import Problem

IMAGES = 3
# Of scores; a batch of another size may be computed in another order.
TOLERANCE = 1e-4
# A row of probabilities in single precision, rounded by whatever made it.
SUM_TOLERANCE = 1e-3


def classes(what: str, classifier: ImageClassifier) -> int:
    """Run a classifier (in evaluation mode) on images of noise; returns how many classes its network tells apart.

    ``what`` names it, as "MODEL=nets.small:build". Raises `Problem` for a network that is none of a classifier, keeps
    state, draws at random, looks at other images of the batch, or fails on images of this size.
    """
    _check_weights(what, classifier)
    _check_mode(what, classifier)
    height, width, channels = classifier.image_shape
    noise = np.random.default_rng(0).integers(0, 256, (IMAGES, height, width, channels), np.uint8)
    images = torch.from_numpy(noise)
    before = _buffers(classifier)
    first = _scores(what, classifier, images)
    check_output(what, first.numpy(), classifier.output)
    again = _scores(what, classifier, images)
    _check_state(what, before, _buffers(classifier))
    alone = torch.cat([_scores(what, classifier, image) for image in images.split(1)])
    more = training.images_at_once(noise) - IMAGES
    others = np.random.default_rng(1).integers(0, 256, (more, height, width, channels), np.uint8)
    among_many = _scores(what, classifier, torch.cat([images, torch.from_numpy(others)]))[:IMAGES]
    _check_steady(what, first.numpy(), again.numpy(), [alone.numpy(), among_many.numpy()], TOLERANCE)
    return int(first.shape[1])


def hold(what: str, classifier: ImageClassifier, images: np.ndarray, first: np.ndarray, tolerance: float) -> None:
    """Hold a classifier against itself on the images that its exports are proven with, before any export is.

    ``first``: its probabilities for all of them, [N, classes]. They must be finite, come again within ``tolerance``,
    and those of an image be the same in a batch of its own. Raises `Problem`, starting with ``what``.
    """
    _check_finite(what, first)
    some = images[: training.images_at_once(images)]
    again = training.predict(classifier, some)
    alone = np.concatenate([training.predict(classifier, image[None]) for image in some[:IMAGES]])
    _check_steady(what, first[: len(some)], again, [alone], tolerance)


def check_output(what: str, scores: np.ndarray, output: Output) -> None:
    """Hold what a network gives, float32 [N, classes], to what it is said to be. Raises `Problem`."""
    _check_finite(what, scores)
    sums = scores.sum(axis=1, dtype=np.float64)
    negative, off = float(scores.min()), float(sums[np.abs(sums - 1).argmax()])
    proper = negative >= 0 and abs(off - 1) <= SUM_TOLERANCE
    if output is Output.PROBABILITIES and not proper:
        fault = f"holds {negative:.4g}" if negative < 0 else f"adds up to {off:.4g}"
        raise Problem(f"{what}: output = 'probabilities', and a row {fault}; use output = 'logits' for scores")
    if output is Output.LOGITS and proper:
        raise Problem(
            f"{what}: output = 'logits', and its rows are probabilities already (none below 0, each adds up to 1); use "
            "output = 'probabilities'"
        )


def _check_weights(what: str, classifier: ImageClassifier) -> None:
    for name, tensor in classifier.network.named_parameters():
        if not bool(torch.isfinite(tensor).all()):
            raise Problem(f"{what}: weight {name} holds NaN or infinity; use weights from before that")
    for name, tensor in classifier.network.named_buffers():  # masks hold infinity by right
        if bool(torch.isnan(tensor).any()):
            raise Problem(f"{what}: buffer {name} holds NaN; use weights from before that")


def _check_mode(what: str, classifier: ImageClassifier) -> None:
    for name, module in classifier.network.named_modules():
        if module.training:
            where = f"{name} ({type(module).__name__})" if name else type(module).__name__
            raise Problem(f"{what}: {where} stays in train mode after eval(); let train(False) reach it")


def _scores(what: str, classifier: ImageClassifier, images: Tensor) -> Tensor:
    size = declaration.written(classifier.image_shape)
    with torch.no_grad(), said(f"{what}: fails on a batch of {len(images)} with INPUT={size}"):
        scores: Any = classifier.logits(images)
    if not isinstance(scores, Tensor):
        raise Problem(f"{what}: returns {_described(scores)}; return one tensor [N, classes]")
    if scores.dtype != torch.float32:
        raise Problem(f"{what}: gives {str(scores.dtype).removeprefix('torch.')}; give float32 (module.float())")
    if scores.ndim != 2 or scores.shape[0] != len(images):
        shape = ", ".join(map(str, scores.shape))
        raise Problem(f"{what}: gives [{shape}] for {len(images)} images; give [N, classes], a row for each image")
    if scores.shape[1] < 2:
        raise Problem(f"{what}: gives {scores.shape[1]} value for an image; a classifier has two classes or more")
    return scores


def _described(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {', '.join(map(str, value))}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _buffers(classifier: ImageClassifier) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in classifier.network.named_buffers()}


def _check_state(what: str, before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    for name, tensor in after.items():
        if name not in before or not torch.equal(before[name], tensor):
            raise Problem(f"{what}: buffer {name} changes with every call; keep no state in evaluation")


def _check_finite(what: str, scores: np.ndarray) -> None:
    if not np.isfinite(scores).all():
        raise Problem(f"{what}: gives NaN or infinity; mend its weights, or its preprocessing")


def _check_steady(
    what: str, first: np.ndarray, again: np.ndarray, otherwise: Sequence[np.ndarray], tolerance: float
) -> None:
    """``otherwise``: what the first of the images give in batches of other sizes."""
    if not _agree(first, again, tolerance):
        raise Problem(
            f"{what}: two equal calls give different answers; drop out or draw only where self.training is True, and "
            "keep nothing from call to call"
        )
    if not all(_agree(first[: len(one)], one, tolerance) for one in otherwise):
        raise Problem(
            f"{what}: an image's answer depends on the other images of its batch; use no statistics of the batch in "
            "evaluation (servers put requests of different clients together)"
        )


def _agree(first: np.ndarray, second: np.ndarray, tolerance: float) -> bool:
    limit = tolerance * max(1.0, float(np.abs(first).max()))
    return bool((np.abs(first - second) <= limit).all())
