"""What an engine's library cannot compute is refused before any server is started."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.experiment.file import parse
from loadtest.experiment.measure import measure
from models.precision import Precision
from models.problem import Problem
from serving import serve
from serving.engines import kernels, registry
from serving.profile import ServingProfile

SHORT = ServingProfile(precision=Precision.BF16)
SAID = (
    r"^profile.precision = 'bf16': Triton computes with ONNX Runtime, which has no kernels for it on a CPU \(.*"
    r"/manifest.json: parity.left_out.onnx\); leave that target out, or use another precision$"
)


@pytest.fixture
def short(bundle):
    """A bundle in bfloat16, as this CPU's parity gate writes it."""
    parity = {**bundle.manifest["parity"], "left_out": {"onnx": {"why": "no-kernel", "detail": "NOT_IMPLEMENTED"}}}
    return replace(bundle, manifest={**bundle.manifest, "precision": "bf16", "parity": parity})


def test_it_is_of_the_engine_the_bundle_and_the_device(bundle, short):
    with pytest.raises(Problem, match=SAID):
        kernels.require(registry.engine("triton"), short, SHORT)
    kernels.require(registry.engine("triton"), short, replace(SHORT, device="gpu"))  # which was not asked
    kernels.require(registry.engine("triton"), bundle, ServingProfile())
    for engine in registry.all():
        assert engine.export in ("torchscript", "savedmodel", "onnx", "")
        if engine.export != "onnx":
            kernels.require(engine, short, SHORT)


def test_a_run_and_servers_with_such_a_target_are_refused_before_anything_is_started(short, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.runtimes.process.launch.require", lambda *_: None)  # Triton may not be here
    experiment = parse("targets = ['pytorch', 'triton']\n[profile]\nprecision = 'bf16'\n")
    with pytest.raises(Problem, match=SAID):
        measure(experiment, [short], tmp_path, False, lambda _: pytest.fail("it would start servers"), str)
    with pytest.raises(Problem, match=SAID), serve.started(short, SHORT, tmp_path, targets=["pytorch", "triton"]):
        pytest.fail("it would start servers")
    assert list(tmp_path.iterdir()) == []
