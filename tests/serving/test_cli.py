from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.problem import Problem
from serving.__main__ import main
from serving.cores import split_cores
from serving.engines import programs
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


def test_onednn_is_true_false_or_the_default(bundle, capsys):
    assert main(["serve", "--bundle", str(bundle.folder), "--onednn", "on"]) == 1
    assert "profile.onednn = 'on': use true, false or 'default'" in capsys.readouterr().err


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
    tuning = ["--threads", "3", "--onednn", "false", "--cores", "0"]
    assert main(["serve", "--bundle", str(bundle.folder), *tuning, *ports, *chosen]) == 0
    assert asked == {
        "models": ["convnet"],
        "profile": ServingProfile(threads=3, onednn=False),
        "targets": ["pytorch", "embedded-tfserving"],
        "ports": {
            "pytorch": Ports(rest=0, grpc=7000, metrics=7002),
            "embedded-tfserving": Ports(rest=8501, grpc=0, metrics=0),
        },
        "cores": (0,),
        "programs": {"tensorflow-serving": program},
    }
    # By default the servers leave cores to a load generator.
    for given, cores in ((), split_cores(sorted(os.sched_getaffinity(0)))[0]), (("--cores", "all"), ()):
        assert main(["serve", "--bundle", str(bundle.folder), *given]) == 0
        assert asked["cores"] == cores


def test_a_program_that_is_none_is_one_line(bundle, tmp_path, capsys):
    missing = tmp_path / "tensorflow_model_server"
    assert main(["serve", "--bundle", str(bundle.folder), "--tensorflow-model-server", str(missing)]) == 1
    assert capsys.readouterr().err == f"error: --tensorflow-model-server {missing}: no executable file there\n"


def test_a_program_is_named_from_the_working_folder_or_by_its_name_on_the_path(tmp_path, monkeypatch):
    """What `serve` hands on is right wherever the server then runs."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    program = folder / "tensorflow_model_server"
    program.touch(mode=0o755)

    def named(given: str) -> dict[str, Path]:
        parser = argparse.ArgumentParser()
        programs.add_flags(parser)
        return programs.named(parser.parse_args(["--tensorflow-model-server", given]))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(folder))
    for given in ("a folder/tensorflow_model_server", "./a folder/tensorflow_model_server", str(program)):
        assert named(given) == {"tensorflow-serving": program}
    assert named("~/tensorflow_model_server") == {"tensorflow-serving": program}
    with pytest.raises(Problem, match="--tensorflow-model-server a folder: no executable file there"):
        named("a folder")
    with pytest.raises(Problem, match="no executable file there"):
        named("tensorflow_model_server")
    monkeypatch.setenv("PATH", str(folder))
    assert named("tensorflow_model_server") == {"tensorflow-serving": program}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--tensorflow-grpc-port=8500", "--tensorflow-rest-port=8500"],
            "--tensorflow-rest-port 8500: --tensorflow-grpc-port is the same port; choose another for one of them",
        ),
        (
            ["--pytorch-rest-port=8501", "--tensorflow-metrics-port=8501"],
            "--tensorflow-metrics-port 8501: --pytorch-rest-port is the same port; choose another for one of them",
        ),
    ],
)
def test_equal_ports_are_refused_at_once_by_name(given, message, capsys):
    assert main(["serve", "--bundle", "/nowhere", *given]) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


def test_metrics_may_be_where_the_rest_api_is(bundle, monkeypatch):
    asked: dict[str, object] = {}
    monkeypatch.setattr("serving.serve.run", lambda *_, **options: asked.update(options) or 0)
    same = ["--tensorflow-rest-port=8501", "--tensorflow-metrics-port=8501"]
    assert main(["serve", "--bundle", str(bundle.folder), "--target", "tensorflow", *same]) == 0
    assert asked["ports"] == {"tensorflow": Ports(rest=8501, grpc=0, metrics=8501)}
