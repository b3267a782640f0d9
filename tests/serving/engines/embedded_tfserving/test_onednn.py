"""oneDNN is on or off as TensorFlow itself decides, unless the variable says otherwise; the log says which."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.engines.embedded_tfserving import ENGINE
from serving.engines.engine import Switch
from tests.serving.engines.embedded_tfserving.embedded import Embedded, running

pytestmark = [pytest.mark.slow, pytest.mark.beside]

# For these TensorFlow has it on by default (tensorflow/core/util/port.cc).
MADE_FOR_IT = {"avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"}


def said(server: Embedded) -> tuple[Switch, ...]:
    return ENGINE.in_force(server.log.read_text())


def test_without_the_variable_the_cpu_decides(batching_server):
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = set(next(line for line in lines if line.startswith("flags")).split())
    assert Switch("oneDNN", bool(flags & MADE_FOR_IT)) in said(batching_server)


def test_the_variable_turns_it_off(recorded_server):
    assert Switch("oneDNN", False) in said(recorded_server)
    assert Switch("TF32", True) in said(recorded_server)  # as TensorFlow has it where nobody says otherwise


def test_a_variable_turns_it_on_and_another_one_tf32_off(models_folder, tmp_path):
    flags = ["--model_name=cnn", f"--model_base_path={models_folder / 'cnn'}"]
    with running(tmp_path, *flags, environment={"TF_ENABLE_ONEDNN_OPTS": "1", "NVIDIA_TF32_OVERRIDE": "0"}) as server:
        assert said(server) == (Switch("oneDNN", True), Switch("TF32", False))
