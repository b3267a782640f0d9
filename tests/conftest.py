"""What the whole suite shares: one real bundle, exported once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from models import bundle as bundles

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory) -> Path:
    """A folder of artifacts that holds one exported bundle of the digits data set."""
    folder = tmp_path_factory.mktemp("artifacts")
    command = [sys.executable, "-m", "models", "export", "--dataset", "digits", "--artifacts", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="session")
def bundle(artifacts: Path) -> bundles.Bundle:
    """The exported bundle of the digits data set."""
    return bundles.load(artifacts / "convnet" / "1")
