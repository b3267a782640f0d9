from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from serving.__main__ import main
from serving.engines.engine import Ports
from serving.profile import ServingProfile


@pytest.mark.parametrize("verb", [[], ["serve"], ["parity"]])
def test_help_is_instant(verb):
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "serving", *verb, "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "usage: python -m serving" in done.stdout
    assert not re.search(r"\| +(numpy|torch|tensorflow|grpc)$", done.stderr, re.MULTILINE)
    assert time.perf_counter() - start < 10


def test_no_bundle_is_one_line(tmp_path, capsys):
    assert main(["serve", "--artifacts", str(tmp_path)]) == 1
    assert capsys.readouterr().err == (
        f"error: {tmp_path}/convnet: no exported bundle; run make export, or name one with --bundle\n"
    )


def test_a_model_is_served_once(bundle, capsys):
    assert main(["serve", *["--bundle", str(bundle.folder)] * 2]) == 1
    assert capsys.readouterr().err.startswith("error: models convnet, convnet: name each once")


def test_an_impossible_profile_is_one_line(bundle, capsys):
    assert main(["serve", "--bundle", str(bundle.folder), "--max-batch-size", "0"]) == 1
    assert "profile.max_batch_size = 0" in capsys.readouterr().err


def test_parity_against_targets_that_are_not_there(bundle, tmp_path, capsys):
    assert main(["parity", "--bundle", str(bundle.folder), "--targets", str(tmp_path / "targets.json")]) == 1
    assert "no list of targets" in capsys.readouterr().err


def test_each_engine_has_its_flags_and_the_old_name_of_target_still_works(bundle, tmp_path, monkeypatch):
    """What `serve` hands on, without a server."""
    asked: dict[str, object] = {}

    def run(bundles, profile, folder, **options):
        asked.update(options, models=[one.model for one in bundles], profile=profile)
        return 0

    program = tmp_path / "tensorflow_model_server"
    program.touch(mode=0o755)
    monkeypatch.setattr("serving.serve.run", run)
    ports = ["--pytorch-grpc-port", "7000", "--pytorch-metrics-port", "7002", "--embedded-tfserving-rest-port", "8501"]
    chosen = ["--target", "pytorch", "--stack", "embedded-tfserving", "--tensorflow-model-server", str(program)]
    assert main(["serve", "--bundle", str(bundle.folder), "--threads", "3", "--cores", "0", *ports, *chosen]) == 0
    assert asked == {
        "models": ["convnet"],
        "profile": ServingProfile(threads=3),
        "targets": ["pytorch", "embedded-tfserving"],
        "ports": {
            "pytorch": Ports(rest=0, grpc=7000, metrics=7002),
            "embedded-tfserving": Ports(rest=8501, grpc=0, metrics=0),
        },
        "cores": (0,),
        "programs": {"tensorflow-serving": program},
    }


def test_a_program_that_is_none_is_one_line(bundle, tmp_path, capsys):
    missing = tmp_path / "tensorflow_model_server"
    assert main(["serve", "--bundle", str(bundle.folder), "--tensorflow-model-server", str(missing)]) == 1
    assert capsys.readouterr().err == f"error: --tensorflow-model-server {missing}: no executable file there\n"
