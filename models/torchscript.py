"""Export to TorchScript: traced and frozen."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from models import whole_file
from models.architectures import ImageClassifier


def export(classifier: ImageClassifier, path: Path) -> None:
    """Trace ``classifier`` (in evaluation mode), freeze it and save it; the batch size stays free."""
    with warnings.catch_warnings(), torch.no_grad():
        # TorchScript is deprecated in this torch, and it is the only format that TorchServe loads without model code.
        warnings.simplefilter("ignore", DeprecationWarning)
        traced = torch.jit.trace(classifier, classifier.example())
        content = torch.jit.freeze(traced).save_to_buffer()
    path.parent.mkdir(parents=True, exist_ok=True)
    whole_file.write_bytes(path, content)


def load(path: Path) -> torch.jit.ScriptModule:
    """Load what `export` wrote, on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path), map_location="cpu").eval()
