"""Whether a disk has room for a bundle, asked before minutes of training."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from models.precision import Precision
from models.problem import Problem
from models.recipe import Recipe

ARCHIVED = 0.9  # of weights, which hardly compress


def require(artifacts: Path, recipe: Recipe, classes: int, precision: Precision) -> None:
    """Raise `Problem` where fewer bytes are free below ``artifacts`` than the files of a bundle take at the least, of a
    model of so many ``classes``."""
    least, free = _least(recipe, classes, precision), shutil.disk_usage(_existing(artifacts)).free
    if free < least:
        raise Problem(
            f"{artifacts}: {free / 1e6:,.1f} MB are free there, and the bundle of {recipe.model} takes "
            f"{least / 1e6:,.1f} MB at least: make room; then give the same command again"
        )


def _least(recipe: Recipe, classes: int, precision: Precision) -> float:
    """Bytes: the weights once as they are, and once in each export."""
    own = recipe.brought.files if recipe.brought else None
    exports = 2 + ARCHIVED  # TorchScript, its archive, ONNX
    exports += 0 if own else 1  # torch.export
    exports += 0 if recipe.savedmodel else 1  # SavedModel
    share = 1.0 if precision.exported is Precision.FP32 else 0.5
    return _weights(recipe, classes) * (1 + exports * share)


def _weights(recipe: Recipe, classes: int) -> int:
    if recipe.brought is not None and recipe.brought.files is not None:  # frozen into its graph
        return recipe.brought.files.path.stat().st_size
    if recipe.brought is not None:
        tensors = recipe.brought.classifier.state_dict()
    elif recipe.checkpoint is not None:
        tensors = dict(recipe.checkpoint.weights)
    else:
        with torch.device("meta"):  # of which nothing is drawn, or takes memory
            tensors = recipe.architecture.network(classes).state_dict()
    return sum(tensor.nbytes for tensor in tensors.values())


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return next(one for one in (folder, *folder.parents) if one.exists())
