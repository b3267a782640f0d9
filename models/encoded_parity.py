"""The parity gate's part for encoded images: the TensorFlow side decodes files as the PyTorch side does, or the export
fails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from models import parity
from models.bundle import Bundle
from models.encoding import Encoding
from models.problem import Problem
from models.progress import Progress

EXPORT = "savedmodel_encoded"
AT_ONCE = 32


def check(
    bundle: Bundle, files: Sequence[bytes], labels: np.ndarray, reference: np.ndarray, progress: Progress
) -> dict[str, Any]:
    """Run ``files`` through the SavedModel's signature for encoded images; ``reference``: eager PyTorch's probabilities
    of what Pillow makes of them. Returns the manifest's entry, with a tolerance of its own.

    Raises `Problem` naming the first file that is answered otherwise.
    """
    from models import savedmodel  # takes seconds to import TensorFlow: only once it is needed

    predict = savedmodel.load(bundle.savedmodel / str(bundle.version), savedmodel.ENCODED_SIGNATURE)
    given = np.empty(len(files), object)
    given[:] = list(files)
    parts = []
    with progress.bar("parity", total=len(files), unit="files") as bar:
        for start in range(0, len(files), AT_ONCE):
            parts.append(predict(given[start : start + AT_ONCE]))
            bar.advance(len(parts[-1]), EXPORT)
    probabilities, tolerance = np.concatenate(parts), bundle.encoding.tolerance(bundle.precision)
    found = parity.compare(probabilities, reference, tolerance)
    if found.first_different is not None:
        raise Problem(
            f"parity: {EXPORT}: TensorFlow makes another image than Pillow of {bundle.encoding.upper()} file "
            f"{found.first_different} of the reference: max |Δp| {found.max_abs_diff:.2g} (tolerance {tolerance:g}), "
            f"top-1 agreement {found.top1_agreement:.2%}; nothing was exported"
        )
    return {
        "accuracy": float((probabilities.argmax(axis=1) == labels).mean()),
        "max_abs_diff": found.max_abs_diff,
        "top1_agreement": found.top1_agreement,
        "tolerance": tolerance,
    }


def files(reference: Any) -> list[bytes]:
    """The files of a bundle's opened reference.npz; empty where its clients send tensors."""
    if "encoded" not in reference:
        return []
    return [piece.tobytes() for piece in np.split(reference["encoded"], reference["offsets"][1:-1])]


def arrays(files: Sequence[bytes]) -> dict[str, np.ndarray]:
    """What a bundle's reference.npz holds of them, as `serving.reference_file` reads it."""
    return {
        "encoded": np.frombuffer(b"".join(files), np.uint8),
        "offsets": np.cumsum([0, *map(len, files)]),
    }


def record(encoding: Encoding, files: Sequence[bytes], written: dict[str, int | str]) -> dict[str, Any]:
    """The manifest's entry; ``written``: how Tandem wrote them, empty for the user's own."""
    sizes = list(map(len, files))
    return {
        "format": encoding.value,
        **written,
        "bytes": {"mean": round(sum(sizes) / len(sizes)), "least": min(sizes), "most": max(sizes)},
    }
