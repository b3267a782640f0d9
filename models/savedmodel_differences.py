"""Says in one line how a user's SavedModel differs from the PyTorch side: what is wrong with the whole, else the first
layer that it makes otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from models import onnx_bisection
from models.bundle import Around, Bundle
from models.problem import Problem

FEW = 16  # images that show an order of channels or classes


def problem(
    bundle: Bundle,
    predict: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    reference: np.ndarray,
    sample: int,
    tolerance: float,
    figures: str,
) -> Problem:
    """What to tell of a SavedModel that leaves the ``reference`` first at ``sample``; ``figures``: by how much."""
    name = bundle.own_files["savedmodel"]["name"]
    chosen = [sample, *range(min(FEW, len(images)))]
    some, wanted = images[chosen], reference[chosen]
    found = (
        _other_channels(predict, some, wanted, tolerance)
        or _other_classes(bundle, predict(some), wanted, tolerance)
        or _other_layer(bundle, images[sample : sample + 1], tolerance)
    )
    return Problem(
        f"parity: SAVEDMODEL={name} is not the model of the PyTorch side: {found}; sample {sample} of the reference is "
        f"the first to differ, {figures}; nothing was exported"
    )


def _other_channels(
    predict: Callable[[np.ndarray], np.ndarray], images: np.ndarray, wanted: np.ndarray, tolerance: float
) -> str | None:
    if images.shape[3] != 3 or not _agree(predict(np.ascontiguousarray(images[..., ::-1])), wanted, tolerance):
        return None
    return (
        "it agrees once red and blue change places: it is for BGR images, and these are RGB; reverse the channels in "
        "its graph, before all else (x[..., ::-1])"
    )


def _other_classes(bundle: Bundle, answers: np.ndarray, wanted: np.ndarray, tolerance: float) -> str | None:
    apart = np.abs(answers[:, :, None].astype(np.float64) - wanted[:, None, :]).max(axis=0)  # [theirs, ours]
    order = apart.argmin(axis=1)
    if len(set(order)) != len(order) or apart[np.arange(len(order)), order].max() > tolerance:
        return None
    moved = [number for number, other in enumerate(order) if number != other]
    if not moved:
        return None
    first, names = moved[0], bundle.class_names
    return (
        f"its classes stand in another order ({len(moved)} of {len(order)}): its class {first} is {names[order[first]]}"
        f", class {order[first]} of the other side; order its last layer as CLASSES has them"
    )


def _other_layer(bundle: Bundle, image: np.ndarray, tolerance: float) -> str:
    folder = bundle.savedmodel / str(bundle.version)
    difference = onnx_bisection.first_difference(bundle.onnx, folder, image, tolerance, imported=False)
    if difference is None:
        return "no single layer's output differs, only the whole"
    around = bundle.own_files["savedmodel"]["around"]
    if Around.CAST in around and Around.NORMALISED not in around and not difference.layers:
        return f"{difference.words()} (its input got pixels 0-255; if it wants others, scale them in its graph)"
    return difference.words()


def _agree(answers: np.ndarray, wanted: np.ndarray, tolerance: float) -> bool:
    return bool((np.abs(answers.astype(np.float64) - wanted) <= tolerance).all())
