"""What a run keeps of wire parity: once for each target and model, also when it goes on after an interruption."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from loadtest.experiment.file import Experiment
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.parity_gate import ParityGate
from serving import wire_parity
from tests.serving.targets import target

ONE, OTHER = target("pytorch"), replace(target("tensorflow"), max_batch_size=1)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The targets (and models) that were asked, in turn; each answers right."""
    found: list[str] = []

    def check(one, reference, *, protocols):
        found.append(f"{one.name} {one.model}")
        with np.load(reference) as saved:
            expected = saved["probabilities"]
        return {protocol: wire_parity.compare(expected, expected, "here") for protocol in protocols}

    monkeypatch.setattr(wire_parity, "check", check)
    return found


def test_each_target_is_proven_once_in_a_run_that_goes_on(bundle, tmp_path, asked):
    folder = RunFolder.open(tmp_path, Experiment(), "digest")
    for one in (ONE, OTHER, ONE):
        ParityGate(folder, [bundle], ["grpc", "rest"]).prove(one, lambda _: None)
    assert asked == ["pytorch convnet", "tensorflow convnet"]
    saved = json.loads((folder.path / "wire-parity.json").read_text())
    assert set(saved) == {"samples", "tolerance", "targets"}
    assert saved["tolerance"] == 1e-4
    agreement = saved["targets"]["tensorflow"]["rest"]
    assert (agreement["samples"], agreement["max_abs_diff"], agreement["top1_agreement"]) == (
        saved["samples"],
        0.0,
        1.0,
    )
    assert len(agreement["examples"]) == wire_parity.EXAMPLES
    assert [one["name"] for one in json.loads((folder.path / "targets.json").read_text())] == ["tensorflow", "pytorch"]
    assert (folder.path / "wire-samples.npz").exists()


def test_of_several_models_each_is_proven_on_every_target(bundle, tmp_path, asked):
    folder = RunFolder.open(tmp_path, Experiment(), "digest")
    other = replace(bundle, manifest={**bundle.manifest, "model": "lenet"})
    for one in (ONE, OTHER, OTHER):
        ParityGate(folder, [bundle, other], ["grpc"]).prove(one, lambda _: None)
    assert asked == ["pytorch convnet", "pytorch lenet", "tensorflow convnet", "tensorflow lenet"]
    saved = json.loads((folder.path / "wire-parity.json").read_text())
    assert set(saved) == {"models"}
    assert {model: set(one["targets"]) for model, one in saved["models"].items()} == {
        "convnet": {"pytorch", "tensorflow"},
        "lenet": {"pytorch", "tensorflow"},
    }
