"""What a newcomer meets first: make's help, and set-up scripts that say in one line what they cannot do."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def call(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **environment}
    )


def as_nobody(*command: str) -> list[str]:
    """The command as a user without rights (a no-op where the suite itself runs without)."""
    prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    return [*(prefix if os.geteuid() == 0 else []), *command]


def test_make_alone_lists_every_target_with_what_it_does():
    shown = call("make").stdout
    targets = ("compare", "train", "export", "serve", "loadtest", "report", "test", "clean")
    for target in (*targets, "bench-loadgen", "bench-embedded"):
        assert f"make {target} " in shown


def test_make_images_push_is_one_run_that_builds_and_pushes():
    shown = call("make", "-n", "images", "push", "REGISTRY=registry.example.com/team", "ARGS=--embedded").stdout
    (run,) = [line for line in shown.splitlines() if "-m serving images" in line]
    assert run.split()[-4:] == ["--registry", "'registry.example.com/team'", "--push", "--embedded"]
    assert "--push" not in call("make", "-n", "images").stdout


def test_debian_packages_that_are_there_need_nothing():
    done = call("setup/debian-packages", "dpkg", "coreutils")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_rights_one_line_says_what_to_install_and_the_run_goes_on():
    done = call(*as_nobody("setup/debian-packages", "tandem-no-such-package"))
    assert done.returncode == 0
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.endswith("sudo apt-get install tandem-no-such-package")


def test_what_the_full_suite_requires_is_an_error_where_it_cannot_be_had():
    done = call(*as_nobody("setup/debian-packages", "--require", "tandem-no-such-package"))
    assert done.returncode == 1


def test_another_python_is_refused_in_one_line(tmp_path):
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\nexit 1\n")
    other.chmod(0o755)
    done = call("setup/venv", str(other), "requirements.lock", str(tmp_path / "stamp"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "is not Python 3.11" in line
    assert not (tmp_path / "stamp").exists()


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_locks_pin_everything_that_pyproject_asks_for(lock):
    pinned = {line.split("==")[0].lower() for line in (ROOT / lock).read_text().splitlines() if "==" in line}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = list(project["dependencies"])
    if lock == "requirements-dev.lock":
        asked += project["optional-dependencies"]["dev"]
    names = {"".join(c if c.isalnum() or c in "-_." else " " for c in one).split()[0].lower() for one in asked}
    assert names <= pinned


def test_both_locks_agree():
    def versions(lock: str) -> dict[str, str]:
        lines = (line.split() for line in (ROOT / lock).read_text().splitlines() if "==" in line)
        return dict(words[0].split("==") for words in lines if words and "==" in words[0])

    runtime, dev = versions("requirements.lock"), versions("requirements-dev.lock")
    assert runtime.items() <= dev.items()
