"""The first minutes on a GPU: what is checked where there is none, what each line of its table says, and its status."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from loadtest.bench import gpu_check
from loadtest.bench.gpu_checks import Checked, GpuCheck, Outcome, Setup, Step, Why, precisions, setup
from loadtest.experiment.meter_records import DeviceUse, Gpu, Gpus, GpuUse, WhyNoGpus
from loadtest.experiment.meters import Meters
from models.precision import Precision

ROOT = Path(__file__).resolve().parents[3]
T4 = Gpus(found=(Gpu(index=0, name="NVIDIA T4", uuid="GPU-1"),), used=0)
NONE = Gpus(why_none=WhyNoGpus.NO_LIBRARY)


def here(device: str, gpus: Gpus = T4, torch: str = "2.13.0") -> Setup:
    return Setup(device, "resnet50" if device == "gpu" else "convnet", 2.0, gpus, torch)


@pytest.mark.parametrize(
    ("gpus", "torch", "device", "mismatched"),
    [
        (T4, "2.13.0", "gpu", False),
        (T4, "2.13.0+cu126", "gpu", False),
        (T4, "2.13.0+cpu", "cpu", True),
        (NONE, "2.13.0+cpu", "cpu", False),
        (NONE, "2.13.0", "cpu", False),
        (Gpus(found=T4.found, visible="-1"), "2.13.0", "cpu", False),
    ],
)
def test_where_it_computes_hangs_on_the_gpu_and_on_pytorch_s_build(monkeypatch, gpus, torch, device, mismatched):
    monkeypatch.setattr(metadata, "version", lambda name: torch)
    found = setup(gpus)
    assert (found.device, found.is_mismatched) == (device, mismatched)
    said = gpu_check.introduced(found)
    assert f"checking on the {device.upper()}" in said
    assert ("this PyTorch is a build for CPUs" in said) == mismatched


def test_on_a_cpu_tf32_has_no_meaning_and_on_a_gpu_the_lower_precisions_follow_the_most_telling():
    assert precisions(here("cpu")) == (Precision.FP32, Precision.FP16, Precision.BF16)
    assert precisions(here("gpu")) == (Precision.FP32, Precision.FP16, Precision.TF32, Precision.BF16)


def checks(tmp_path: Path, setup: Setup, budget_s: float) -> list[Checked]:
    return GpuCheck(setup, Meters(setup.gpus, None, None), tmp_path, tmp_path, budget_s, say=lambda _: None).run()


def test_what_there_is_no_time_for_is_left_out_and_says_so(tmp_path):
    found = checks(tmp_path, here("gpu"), budget_s=0)
    assert found[0] == Checked(Step.PACKAGES, Outcome.PASSED)
    assert [(one.precision, one.outcome, one.why) for one in found[1:]] == [
        (one, Outcome.LEFT_OUT, Why.TIME) for one in precisions(here("gpu"))
    ]


@pytest.mark.parametrize(
    ("found", "outcome", "why"),
    [
        (here("cpu", NONE), Outcome.LEFT_OUT, Why.NO_GPU),
        (here("cpu", T4, "2.13.0+cpu"), Outcome.FAILED, Why.CPU_TORCH),
    ],
)
def test_a_machine_without_a_gpu_is_no_failure_and_a_gpu_that_the_packages_do_not_know_is(
    tmp_path, found, outcome, why
):
    assert checks(tmp_path, found, budget_s=0)[0] == Checked(Step.PACKAGES, outcome, why=why)


def test_a_network_that_cannot_be_exported_fails_and_its_servers_are_left_out(tmp_path):
    (tmp_path / "artifacts").write_text("no folder")
    asked = Setup("cpu", "no-such-network", 2.0, NONE, "2.13.0+cpu")
    check = GpuCheck(asked, Meters(NONE, None, None), tmp_path / "artifacts", tmp_path, 60.0, say=lambda _: None)
    check._at(Precision.FP32)
    assert [(one.step, one.outcome, one.why) for one in check.found] == [
        (Step.EXPORT, Outcome.FAILED, None),
        (Step.SERVED, Outcome.LEFT_OUT, Why.NOT_EXPORTED),
        (Step.SERVED, Outcome.LEFT_OUT, Why.NOT_EXPORTED),
    ]


def test_the_table_says_what_was_measured_why_not_and_how_many():
    use = DeviceUse(seconds=5.0, gpu=GpuUse(utilisation=0.97, memory_bytes=3 * 2**30, power_w=68.0))
    found = [
        Checked(Step.PACKAGES, Outcome.PASSED),
        Checked(Step.SERVED, Outcome.PASSED, Precision.FP16, "pytorch", figure=4.9e-4, allowed=2**-7),
        Checked(Step.STALLS, Outcome.FAILED, Precision.FP16, "tensorflow", figure=31.0, allowed=10.0, use=use),
        Checked(Step.THROUGHPUT, Outcome.PASSED, Precision.FP16, "pytorch", figure=1480.0, allowed=205.0),
        Checked(Step.TOGETHER, Outcome.LEFT_OUT, Precision.FP32, why=Why.NO_GPU),
        Checked(Step.SERVED, Outcome.FAILED, Precision.TF32, "pytorch", said="TorchServe died: out of memory"),
    ]
    lines = gpu_check.table(found).splitlines()

    def line(*words: str) -> str:
        (one,) = [one for one in lines if all(word in one for word in words)]
        return one

    assert "largest |Δp| 4.9 × 10⁻⁴, allowed 7.8 × 10⁻³" in line("right over the wire", "fp16")
    stalls = line("stalls", "TensorFlow", "FAILED")
    assert "31.0 times the median, allowed 10.0; GPU busy 97 %; 3.00 GiB in use; 68.0 W" in stalls
    assert "1,480 images/s (Triton, fp16: T4 2,050, A100 3,600)" in line("throughput")
    assert "left out" in line("both servers", "this machine shows no NVIDIA GPU")
    assert "TorchServe died: out of memory" in line("tf32")
    assert lines[-1] == "3 passed, 2 failed, 1 left out"


@pytest.mark.exhaustive
def test_on_a_cpu_it_goes_as_far_as_that_says_anything(artifacts, tmp_path):
    """With time for one precision; the network is that which is exported already."""
    command = [sys.executable, "-m", "loadtest", "gpu-check", "--artifacts", str(artifacts), "--budget", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "checking on the CPU with convnet" in done.stdout
    assert len(re.findall(r"^\[ *\d+ s\] fp32: ", done.stdout, re.MULTILINE)) == 5  # progress
    table = done.stdout.splitlines()
    for server in ("PyTorch", "TensorFlow"):
        (served,) = [one for one in table if "right over the wire" in one and server in one]
        assert " passed " in served
        (stalls,) = [one for one in table if "stalls" in one and server in one]
        assert "times the median" in stalls
    assert len([one for one in table if "the time was spent" in one]) == 2
    assert "0 failed" in table[-1]
