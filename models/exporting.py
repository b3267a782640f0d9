"""Exporters as this program calls them: in silence, with a line for what fails; and rehearsed before any training."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from models import (
    architectures,
    examination,
    factories,
    onnx_export,
    reduced_precision,
    torch_export,
    torchscript,
    torchserve_archive,
)
from models.declaration import UNDECLARED, Intake
from models.precision import Precision
from models.problem import Problem

TORCHSCRIPT, TORCH_EXPORT = "TorchScript (torch.jit.trace)", "torch.export"
ONNX = "ONNX (torch.onnx.export)"
FIX = "forward must be one fixed computation of tensors, whatever the images and their number (docs/models.md)"


@contextmanager
def quietly(whose: str, exporter: str) -> Iterator[None]:
    """Say in a line what an exporter raises about a network, in place of its remarks and listings.

    ``whose``: what brought the network, as a user reads it. Raises `Problem`.
    """
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with factories.said(f"{whose}: cannot be exported by {exporter}", FIX), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
                yield
    finally:
        logging.disable(disabled)


@contextmanager
def importing(whose: str, file: Path) -> Iterator[None]:
    """Name what the user brought, ``whose``, in place of the ONNX ``file`` that was made of it and does not stay."""
    try:
        yield
    except Problem as problem:
        raise Problem(f"{whose}: {str(problem).removeprefix(f'{file}: ')}", problem.details) from None


def rehearse(model: str, classes: int, precision: Precision, intake: Intake = UNDECLARED) -> None:
    """Take an architecture, untrained, through every exporter and the importer, so that what cannot be served is said
    before minutes of training. What they write is thrown away. Raises `Problem`."""
    whose = f"model {model}"
    torchserve_archive.require_name(model)
    untrained = architectures.build(model, classes, intake=intake)
    untrained.eval()
    examination.classes(whose, untrained)
    classifier = reduced_precision.at(untrained, precision)
    with tempfile.TemporaryDirectory(prefix="tandem-rehearsal-") as name:
        folder = Path(name)
        with quietly(whose, TORCHSCRIPT):
            torchscript.export(classifier, folder / "model.pt")
        with quietly(whose, TORCH_EXPORT):
            torch_export.export(classifier, folder / "model.pt2")
        with quietly(whose, ONNX):
            onnx_export.export(classifier, folder / "model.onnx")
        from models import savedmodel  # takes seconds to import TensorFlow

        with importing(whose, folder / "model.onnx"):
            savedmodel.export(folder / "model.onnx", folder / "savedmodel")
