"""Why a network cannot be held to itself in a shorter precision: where its numbers leave the range, and whether it is
decided by how kernels round, which each of them does in its own way."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models import training
from models.architectures import ImageClassifier
from models.precision import Precision
from models.problem import Problem

SUMS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)


@dataclass(frozen=True)
class Amplified:
    """Another rounding of the sums of ``layer`` (None: of all layers together) moves a probability by ``moved``."""

    layer: str | None
    moved: float


def amplified(classifier: ImageClassifier, images: np.ndarray, tolerance: float) -> Amplified | None:
    """The first layer of which another rounding alone moves a probability of ``images`` uint8 [N, H, W, C] by more than
    ``tolerance``: each of its sums by up to half a unit in the last place, at random. None where not even all layers
    together do so: then two kernels that round correctly must agree.

    ``classifier``: one of `reduced_precision.at`, not in float32.
    """
    layers = {name: module for name, module in _network(classifier).named_modules() if isinstance(module, SUMS)}
    expected = training.predict(classifier, images)

    def moved(*chosen: nn.Module) -> float:
        draws = torch.Generator().manual_seed(0)
        with ExitStack() as hooks:
            for module in chosen:
                hooks.callback(module.register_forward_hook(_rounded_otherwise(draws)).remove)
            return float(np.abs(training.predict(classifier, images) - expected).max())

    together = moved(*layers.values())
    if not together > tolerance:
        return None
    for name, module in layers.items():
        if (alone := moved(module)) > tolerance:
            return Amplified(name, alone)
    return Amplified(None, together)


def limit(precision: Precision, classifier: ImageClassifier, images: np.ndarray, seen: str) -> Problem | None:
    """What to raise where two kernels do not agree on ``images``, ``seen`` how, and that is no fault of an export: it
    names the layer that rounding decides. None where rounding decides nothing."""
    found = amplified(classifier, images, precision.tolerance)
    if found is None:
        return None
    layer = f"of layer {found.layer}" if found.layer else "of all layers"
    return Problem(
        f"precision = '{precision}': the model amplifies rounding: the sums {layer}, rounded otherwise by half a unit "
        f"in the last place, move a probability by {found.moved:.2g}, so that no two kernels need agree, {seen}; use "
        "fp32, or trained weights in place of seeded ones; nothing was exported"
    )


def out_of_range(classifier: ImageClassifier, images: np.ndarray) -> str | None:
    """The first layer whose outputs for ``images`` hold infinity or NaN; None where there is none."""
    found: list[str] = []

    def look(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                found.append(name)

        return hook

    with ExitStack() as hooks:
        for name, module in _network(classifier).named_modules():
            if name and not any(module.children()):
                hooks.callback(module.register_forward_hook(look(name)).remove)
        training.predict(classifier, images)
    return found[0] if found else None


def _network(classifier: ImageClassifier) -> nn.Module:
    """The user's own within `reduced_precision.Reduced`."""
    network: nn.Module = classifier.network.network
    return network


def _rounded_otherwise(draws: torch.Generator) -> Callable[..., Tensor]:
    def hook(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        half = torch.finfo(output.dtype).eps / 2
        shift = (torch.rand(output.shape, generator=draws) * 2 - 1) * half
        return (output.float() * (1 + shift)).to(output.dtype)

    return hook
