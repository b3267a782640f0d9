"""Export to a torch.export program, PyTorch's successor of TorchScript."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from models import whole_file
from models.architectures import ImageClassifier


def export(classifier: ImageClassifier, path: Path) -> None:
    """Write ``classifier`` (in evaluation mode) as a program (.pt2): input ``images``, with a free batch size."""
    classifier = copy.deepcopy(classifier).requires_grad_(False)  # who loads it to serve wants no gradients
    path.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        batch = torch.export.Dim("batch")
        program = torch.export.export(classifier, (classifier.example(),), dynamic_shapes=({0: batch},))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    whole_file.write_bytes(path, buffer.getbuffer())


def load(path: Path) -> torch.fx.GraphModule:
    """Load what `export` wrote, as a module: uint8 images [N, H, W, C] -> float32 probabilities [N, classes]."""
    with _quiet():
        return torch.export.load(path).module()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's warnings off the terminal: none of them is about the user's model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
