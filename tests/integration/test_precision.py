"""A comparison in bfloat16, from nothing to its report, on both servers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.analysis import summary
from models import bundle as bundles
from models.precision import Precision
from tests.integration.briefly import BRIEFLY

pytestmark = [pytest.mark.exhaustive, pytest.mark.timeout(600)]
ROOT = Path(__file__).resolve().parents[2]


def compare(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loadtest", "compare", "--experiment", "smoke", *BRIEFLY, *arguments]
    command += ["--artifacts", str(folder / "artifacts"), "--results", str(folder / "results")]
    return subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


def test_both_servers_answer_from_bfloat16_graphs_and_the_report_says_so(tmp_path):
    done = compare(tmp_path, "--set", "profile.precision=bf16")
    assert done.returncode == 0, done.stdout + done.stderr
    bundle = bundles.load(tmp_path / "artifacts" / "convnet" / "1")
    assert bundle.precision is Precision.BF16
    figures = summary.read(tmp_path / "results" / "latest")
    parity = figures.parity
    assert (parity.proven, parity.tolerance) == (True, Precision.BF16.tolerance)
    assert {target.precision for target in figures.targets} == {Precision.BF16}
    # Both lie nearer to eager PyTorch in bfloat16 than float32's tolerance allows to float32.
    assert parity.from_fp32 is not None
    assert parity.from_fp32.max_abs_diff > Precision.FP32.tolerance
    served = {name: max(one.max_abs_diff or 0.0 for one in found.values()) for name, found in parity.wire.items()}
    assert served["pytorch"] < 1e-6  # the same kernels
    assert served["tensorflow"] <= Precision.BF16.tolerance
    said = "Computed in bf16: probabilities lie up to"
    assert said in " ".join(done.stdout.split())
    assert said in (tmp_path / "results" / "latest" / "report.md").read_text()


def test_a_variable_that_would_undo_float32_is_refused_before_anything_is_made(tmp_path):
    done = compare(tmp_path, TORCH_ALLOW_TF32_CUBLAS_OVERRIDE="1")
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: TORCH_ALLOW_TF32_CUBLAS_OVERRIDE=1 in the environment: PyTorch would heed it")
    assert not (tmp_path / "artifacts").exists()
