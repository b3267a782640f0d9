"""What a command line shows of what goes wrong: one line; and what Ctrl-C leaves: nothing."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models import problem
from models.problem import Problem

ROOT = Path(__file__).resolve().parents[2]


def failing(error: BaseException):
    def main() -> int:
        raise error

    return main


def refused(code: int, file: str | None) -> OSError:
    return OSError(code, os.strerror(code), file)


def with_cause() -> RuntimeError:
    error = RuntimeError("the writer failed")
    error.__cause__ = refused(errno.ENOSPC, None)
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Problem("a.toml:3: no"), "error: a.toml:3: no\n"),
        (
            refused(errno.ENOSPC, "results/x"),
            "error: results/x: no space is left there: make room; then give the same command again\n",
        ),
        (
            with_cause(),
            "error: a file that was to be written: no space is left there: make room; then give the same command "
            "again\n",
        ),
        (
            RuntimeError("[enforce fail at inline_container.cc:668] . PytorchStreamWriter failed: file write failed"),
            "error: a file could not be written ([enforce fail at inline_container.cc:668] . PytorchStreamWriter "
            "failed: file write failed): no space is left there: make room; then give the command again\n",
        ),
        (refused(errno.EROFS, "out"), "error: out: it is on a read-only file system: name another folder\n"),
    ],
)
def test_what_the_user_can_mend_is_one_line(capsys, error, line):
    assert problem.run(failing(error)) == 1
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("error", [RuntimeError("a bug"), refused(errno.EPERM, None), FileNotFoundError(2, "x", "y")])
def test_what_he_cannot_mend_is_not_hidden(error):
    with pytest.raises(type(error)):
        problem.run(failing(error))


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        errors="replace",
        timeout=60,
        check=False,
    )


def test_a_file_that_may_not_grow_is_one_line_that_names_it_and_leaves_nothing_half_written(tmp_path):
    code = f"""
import pathlib, resource, signal, sys
from models import problem, whole_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
path = pathlib.Path({str(tmp_path)!r}) / "summary.json"
sys.exit(problem.run(lambda: whole_file.write_bytes(path, bytes(10_000)) and 0))
"""
    done = python(code)
    assert done.returncode == 1
    path = tmp_path / "summary.json"
    assert done.stderr.startswith(f"error: {path}: no file may be as large (ulimit -f): allow more")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_a_letter_is_no_traceback(encoding):
    code = "from models import problem; import sys; sys.exit(problem.run(lambda: print('5 µs → 6') or 0))"
    done = python(code, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert (done.returncode, done.stderr) == (0, "")


LAUNCHED = """
import pathlib, sys, time
from models import problem
from serving.runtimes.process.launch import RunningTarget
from serving.runtimes.process.server_process import ServerProcess
import tempfile

def main():
    made = tempfile.TemporaryDirectory(prefix="tandem-", dir=sys.argv[1])
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    process = ServerProcess("deaf", [sys.executable, "-c", deaf], pathlib.Path(sys.argv[1]) / "log")
    with RunningTarget(None, process, made.cleanup):
        process.wait_until(lambda: "deaf" in process.last_lines(), 20)
        print("up", process.pid, flush=True)
        time.sleep(60)

sys.exit(problem.run(main))
"""


def test_ctrl_c_three_times_leaves_nothing_and_does_not_wait_for_a_server_that_does_not_listen(tmp_path):
    command = [sys.executable, "-c", LAUNCHED, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        word, pid = process.stdout.readline().split()
        assert word == "up"
        began = time.monotonic()
        while process.poll() is None:  # again and again, as somebody does who has no patience
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
            assert time.monotonic() - began < 20
        said = process.stderr.read()
    assert said == "stopped\n"
    assert process.returncode in (130, -signal.SIGINT)  # the latter of a Ctrl-C after all is done
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    assert not Path(f"/proc/{pid}").exists()
    assert time.monotonic() - began < 9  # the grace is ten seconds
