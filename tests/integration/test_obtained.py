"""A clean clone, a registry that holds the image, and one command: TensorFlow Serving is what is measured.

The program in the image says what the real one says when it is asked for its version, and else is the embedded server:
the real one cannot be had where these tests run. Everything before it is as it would be with the real one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docker.registry_process import Made, push, registry_running

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.timeout(400)]

ROOT = Path(__file__).resolve().parents[2]
FILE = "/usr/bin/tensorflow_model_server"
PROGRAM = f"""#!/bin/sh
if [ "$1" = --version ]; then
    echo "TensorFlow ModelServer: 2.20.0"
    echo "TensorFlow Library: 2.20.0"
    exit
fi
exec {sys.executable} -m serving.engines.embedded_tfserving "$@"
"""


def clone(folder: Path) -> Path:
    """What is committed here and what is not yet, without what anyone made of it; the image is not pinned by digest, as
    nobody but its publisher can make one of that digest."""
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", ROOT, folder], check=True)
    changed = subprocess.run(
        ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, changed.stdout.split("\0")):
        there, here = folder / name, ROOT / name
        there.unlink(missing_ok=True)
        if here.is_file():
            there.parent.mkdir(parents=True, exist_ok=True)
            there.write_bytes(here.read_bytes())
    pins = folder / "docker" / "base-images.env"
    pins.write_text(re.sub(r"^(TENSORFLOW_SERVING_DIGEST)=.*$", r"\1=", pins.read_text(), flags=re.MULTILINE))
    return folder


def test_one_command_on_a_clean_clone_measures_tensorflow_serving(artifacts, tmp_path):
    here = clone(tmp_path / "clone")
    pins = (here / "docker" / "base-images.env").read_text()
    (name,) = re.findall(r"^TENSORFLOW_SERVING_IMAGE=(.*)$", pins, re.MULTILINE)
    layers = [Made({"/etc/os-release": b"ID=ubuntu\n"}), Made({FILE: PROGRAM.encode()}, f"COPY . {FILE}")]
    with registry_running(tmp_path) as registry:
        push(registry, name, layers)
        cache = str(tmp_path / "cache")
        environment = {**os.environ, "REGISTRY_MIRROR": registry, "XDG_CACHE_HOME": cache, "PATH": os.defpath}
        del environment["TFSERVING"]
        folders = ["--artifacts", str(artifacts), "--results", str(tmp_path / "results")]
        settings = [word for one in ("ladder.repetitions=1", "ladder.duration_s=1.0") for word in ("--set", one)]
        done = subprocess.run(
            [sys.executable, "-m", "loadtest", "compare", "--experiment", "smoke", *folders, *settings],
            cwd=here,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=390,
            check=False,
        )
    assert done.returncode == 0, done.stdout
    assert done.stdout.index("TensorFlow Serving 2.20.0 (tensorflow 2.20.0) is in") < done.stdout.index("run    ")
    assert "stand-in" not in done.stdout
    (run,) = (path for path in (tmp_path / "results").iterdir() if not path.is_symlink())
    summary = json.loads((run / "summary.json").read_text())
    (target,) = [one for one in summary["targets"] if one["name"] == "tensorflow"]
    assert (target["engine"], target["engine_version"]) == ("tensorflow-serving", "2.20.0 (tensorflow 2.20.0)")
    assert not target["stands_in_for"]
    assert not [one for one in summary["warnings"] if one["type"] == "stand-in"]
    report = (run / "report.md").read_text()
    assert "TensorFlow Serving" in report
    assert "embedded" not in report
