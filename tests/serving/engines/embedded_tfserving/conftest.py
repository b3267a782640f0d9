"""The recordings' models, and servers on them that several tests share."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.engines.embedded_tfserving.embedded import Embedded, running

ROOT = Path(__file__).resolve().parents[4]

# As the recordings' config/models.txt and config/batching.txt.
MODELS = """
model_config_list {{
  config {{ name: "cnn" base_path: "{folder}/cnn" model_platform: "tensorflow"
    model_version_policy {{ all {{}} }}
    version_labels {{ key: "stable" value: 1 }} version_labels {{ key: "canary" value: 2 }} }}
  config {{ name: "misc" base_path: "{folder}/misc" model_platform: "tensorflow" }}
  config {{ name: "slow" base_path: "{folder}/slow" model_platform: "tensorflow" }}
}}
"""
BATCHING = """
max_batch_size { value: 32 } batch_timeout_micros { value: 5000 }
num_batch_threads { value: 2 } max_enqueued_batches { value: 4 }
"""


@pytest.fixture(scope="session")
def models_folder(tmp_path_factory) -> Path:
    """The folder with cnn, misc and slow."""
    folder = tmp_path_factory.mktemp("recorded")
    command = [sys.executable, "-m", "tests.serving.engines.embedded_tfserving.make_models", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return folder / "models"


@pytest.fixture(scope="session")
def recorded_server(models_folder: Path, tmp_path_factory) -> Iterator[Embedded]:
    """Started as the recorded server was, without batching."""
    folder = tmp_path_factory.mktemp("recorded-server")
    config = folder / "models.txt"
    config.write_text(MODELS.format(folder=models_folder))
    flags = [f"--model_config_file={config}", "--allow_version_labels_for_unavailable_models=true"]
    with running(folder, *flags, environment={"TF_ENABLE_ONEDNN_OPTS": "0"}) as server:
        yield server


@pytest.fixture(scope="session")
def batching_server(models_folder: Path, tmp_path_factory) -> Iterator[Embedded]:
    """One model, batching with the recordings' default parameters."""
    folder = tmp_path_factory.mktemp("batching-server")
    parameters = folder / "batching.txt"
    parameters.write_text(BATCHING)
    flags = ["--model_name=cnn", f"--model_base_path={models_folder / 'cnn'}", "--rest_api_num_threads=4"]
    with running(folder, *flags, "--enable_batching", f"--batching_parameters_file={parameters}") as server:
        yield server
