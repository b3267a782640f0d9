"""What a newcomer meets first: make's help, and set-up scripts that say in one line what they cannot do."""

import os
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
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


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}")
    (folder / name).chmod(0o755)


LOCKED = "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)"


def busy_package_manager(folder: Path, attempts: int) -> str:
    """A PATH on which apt-get finds its lock held so many times; time does not pass on it."""
    program(folder, "dpkg-query", "exit 1\n")
    program(folder, "sleep", f'echo "$1" >> {folder}/slept\n')
    program(folder, "id", "echo 0\n")
    counted = f'echo x >> {folder}/called\n[ "$(wc -l < {folder}/called)" -gt {attempts} ] && exit 0\n'
    program(folder, "apt-get", f"{counted}echo '{LOCKED}' >&2\nexit 100\n")
    return f"{folder}:{os.environ['PATH']}"


def test_a_package_manager_in_use_is_waited_for(tmp_path):
    """A fake one: the real one's lock would be held for every other test as well."""
    done = call("setup/debian-packages", "tandem-package", PATH=busy_package_manager(tmp_path / "bin", 3))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "Installing Debian packages: tandem-package",
        "The package manager is in use by process 4711 (apt-get); waiting for it, two minutes at most",
    ]
    assert (tmp_path / "bin" / "slept").read_text() == "2\n" * 3


def test_it_is_waited_for_no_longer_than_two_minutes(tmp_path):
    done = call("setup/debian-packages", "tandem-package", PATH=busy_package_manager(tmp_path / "bin", 1000))
    assert done.returncode == 0
    assert sum(map(int, (tmp_path / "bin" / "slept").read_text().split())) == 120
    assert done.stderr.splitlines()[-1].endswith("run: sudo apt-get install tandem-package")


@pytest.fixture
def checkout(tmp_path) -> Path:
    """What make and the set-up scripts need, apart from this checkout."""
    for part in ("setup", "models"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text("")
    return tmp_path


def make(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    here = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}  # this machine's own
    given = {**here, **environment}
    return subprocess.run(
        ["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=120, check=False, env=given
    )


def tiny_wheel(folder: Path) -> None:
    """A package with one module, as pip would find it on an index."""
    folder.mkdir()
    with zipfile.ZipFile(folder / "tandem_tiny-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tandem_tiny.py", "")
        wheel.writestr("tandem_tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tandem-tiny\nVersion: 1\n")
        wheel.writestr(
            "tandem_tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tandem_tiny-1.dist-info/RECORD", "")


@pytest.mark.slow
@pytest.mark.beside
def test_a_python_that_is_gone_is_made_anew_and_gets_its_packages_whatever_pip_s_settings_say(checkout):
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/no/such/python")
    (checkout / ".venv" / "bin" / "pip").touch(mode=0o755)
    (checkout / ".venv" / ".installed-runtime").touch()
    (checkout / "requirements.lock").write_text("tandem-tiny==1\n")
    tiny_wheel(checkout / "index")
    elsewhere = checkout / "elsewhere"
    # Where packages are found is the user's to say, and where they go is not.
    (checkout / "pip.conf").write_text(
        f"[global]\nno-index = true\nfind-links = {checkout / 'index'}\n[install]\ntarget = {elsewhere}\nuser = true\n"
    )
    given = {"PIP_CONFIG_FILE": str(checkout / "pip.conf"), "PIP_TARGET": str(elsewhere), "PIP_USER": "1"}
    python = os.path.realpath(sys.executable)
    done = make(checkout, ".venv/.installed-runtime", f"PYTHON={python}", PYTHONHOME="/x", PYTHONSAFEPATH="1", **given)
    assert done.returncode == 0, done.stderr
    assert "The Python of .venv is gone; making it anew" in done.stdout
    found = subprocess.run([checkout / ".venv/bin/python", "-I", "-c", "import tandem_tiny, pip"], check=False)
    assert found.returncode == 0
    assert not elsewhere.exists()
    assert "up to date" in make(checkout, ".venv/.installed-runtime", f"PYTHON={python}").stdout


@pytest.mark.parametrize(
    ("target", "variable", "value", "words"),
    [
        ("report", "RUN", "my runs/a", ["report", "my runs/a"]),
        ("report", "AGAINST", "it's $$(id); x", ["--against", "it's $(id); x"]),
        ("gate", "RUN", "my runs/a", ["gate", "my runs/a"]),
        ("compare", "EXPERIMENT", "my files/a.toml", ["--experiment", "my files/a.toml"]),
        ("compare", "MODEL", "my model", ["--model", "my model"]),
        ("export", "PRECISION", "fp 16", ["--precision", "fp 16"]),
        ("loadtest-worker", "MASTER", "a b", ["--master", "a b"]),
        ("deploy", "REGISTRY", "a b", ["--registry", "a b"]),
    ],
)
def test_a_value_reaches_a_command_as_it_is(target, variable, value, words):
    shown = call("make", "-n", target, f"{variable}={value}").stdout
    line = next(line for line in shown.splitlines() if "-m " in line and ".venv/bin/python -m" in line)
    found = shlex.split(line)
    at = found.index(words[0])
    assert found[at : at + 2] == words


def test_a_worker_without_a_master_is_told_which_variable_is_missing():
    done = call("make", "loadtest-worker")
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == (
        "error: MASTER is not given: make loadtest-worker MASTER=HOST, the machine that runs the experiment"
    )
