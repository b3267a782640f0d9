"""Every family of the house through every export, the parity gate, and both servers. Long by nature: VGG has 0.5 GB of
weights, six times in a bundle."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from models import architectures, pipeline, recipe, training
from models.progress import Progress
from serving import wire_parity
from serving.profile import ServingProfile
from serving.runtimes.process import launch

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(1500)]
PROFILE = ServingProfile(max_batch_size=16)


@pytest.mark.parametrize("model", sorted(architectures.ARCHITECTURES))
def test_passes_the_gate_and_wire_parity_on_both_servers(model, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe, "LARGE_IMAGES", 48)
    settings = training.Settings(epochs=training.EPOCHS["digits"])
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
        for target in ("pytorch", "tensorflow"):
            with launch.start(target, bundle, PROFILE, tmp_path / target, startup_timeout_s=240) as running:
                found = wire_parity.check(running.target, bundle.reference)
            assert set(found) == {"grpc", "rest"}
            assert all(agreement.samples == len(best) for agreement in found.values())
    finally:
        shutil.rmtree(tmp_path, ignore_errors=True)
