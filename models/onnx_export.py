"""Export to ONNX through torch.export, with a free batch size."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from models import torchscript, whole_file
from models.architectures import ImageClassifier

INPUT, OUTPUT = "images", "probabilities"
BFLOAT16_OPSET = 22  # from which on convolutions and pools take it


def export(classifier: ImageClassifier, path: Path) -> None:
    """Write ``classifier`` (in evaluation mode) as ONNX: input ``images``, output ``probabilities``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        content = _program(classifier).model_proto.SerializeToString()
    whole_file.write_bytes(path, content)


def export_torchscript(source: Path, path: Path, example: torch.Tensor) -> None:
    """Write a TorchScript file that speaks the wire as ONNX; ``example``: images of the shape that it takes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        # The exporter of before torch.export, which is deprecated: the newer one takes no ScriptModules (torch 2.13).
        torch.onnx.export(
            torchscript.load(source),
            (example,),
            str(path),
            dynamo=False,
            dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            input_names=[INPUT],
            output_names=[OUTPUT],
        )


def graph(classifier: ImageClassifier) -> torch.fx.GraphModule:
    """The ATen graph that `export` translates; its node names are the ONNX file's value names."""
    with _quiet():
        return _program(classifier).exported_program.module()


def _program(classifier: ImageClassifier) -> Any:
    classifier = copy.deepcopy(classifier)
    # Strides of channels-last images make torch.export write a global pool as index arithmetic on memory.
    classifier.memory_format = torch.contiguous_format
    short = any(parameter.dtype is torch.bfloat16 for parameter in classifier.parameters())
    return torch.onnx.export(
        classifier,
        (classifier.example(),),
        dynamo=True,
        opset_version=BFLOAT16_OPSET if short else None,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=[INPUT],
        output_names=[OUTPUT],
        external_data=False,
        verbose=False,
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's remarks off the terminal: none of them is about the user's model."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
        sys.stdout.flush()
