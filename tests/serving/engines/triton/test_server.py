"""What keeps Triton from running here, said in one line before anything starts."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

from models.problem import Problem
from serving.engines.triton import ENGINE, torchscript
from serving.engines.triton.server import CARRIES
from serving.runtimes.process import own_program

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def program(tmp_path) -> Path:
    """The program in an unpacked wheel that holds nothing else but the stub of this Python."""
    home = tmp_path / "pytriton" / "tritonserver"
    (home / "python_backend_stubs" / PYTHON).mkdir(parents=True)
    (tmp_path / "nvidia_pytriton-0.7.0.dist-info").mkdir()
    return home / "bin" / "tritonserver"


def test_its_version_is_that_of_the_pinned_wheel_with_the_library_s(program, monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda _: None)
    assert ENGINE.version(program).startswith("2.51.0 (Python backend, onnxruntime 1.")
    assert torchscript.ENGINE.version(program).startswith("2.51.0 (Python backend, torch 2.13.0")
    assert ENGINE.download
    assert own_program.pinned(ENGINE.download).partition("==")[2] in CARRIES


def test_without_its_wheel_the_command_that_fetches_it_is_named():
    with pytest.raises(Problem, match="Triton is not installed here: make triton fetches it"):
        torchscript.ENGINE.version(None)


def test_another_python_than_the_wheel_has_a_stub_for_is_told(program):
    (program.parents[1] / "python_backend_stubs" / PYTHON).rmdir()
    with pytest.raises(Problem, match=rf"Python backend is not for Python {PYTHON}"):
        ENGINE.version(program)


def test_a_python_without_its_library_is_told_with_the_fix(program, monkeypatch):
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(Problem, match=r"libpython3\.\d+\.so\.1\.0 is not here, .* apt-get install libpython3"):
        ENGINE.version(program)
