"""Every family of the house through every export and the parity gate. Long by nature: VGG has 0.5 GB of weights."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from models import architectures, pipeline, recipe, training
from models.progress import Progress

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(900)]


@pytest.mark.parametrize("model", sorted(architectures.ARCHITECTURES))
def test_exports_and_passes_the_gate(model, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "LARGE_IMAGES", 48)
    settings = training.Settings(epochs=1)
    try:
        bundle = pipeline.export(model, "digits", settings, tmp_path, None, Progress())
        assert bundle.weights == ("trained" if bundle.input_shape == (32, 32, 3) else "seeded")
        figures = bundle.manifest["parity"]
        assert set(figures["exports"]) >= {"torchscript", "torch_export", "onnx", "savedmodel"}
        assert all(figure.get("top1_agreement", 1.0) == 1.0 for figure in figures["exports"].values())
        with np.load(bundle.reference) as reference:
            best = reference["probabilities"].argmax(axis=1)
        assert len(np.unique(best)) >= 5  # top-1 agreement says something: the best class is not always the same
        assert bundle.manifest["reference"]["images"] == len(best) == figures["samples"]
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
