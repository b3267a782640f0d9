from __future__ import annotations

import re
import subprocess
import sys
import time

import pytest

from serving.__main__ import main


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
