"""What is taken for TensorFlow Serving, and what is not: small programs that say what a real one was recorded to say,
or something else."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from models.problem import Problem
from serving.engines.tensorflow_serving import identity, server
from serving.engines.tensorflow_serving.identity import Program, identify

ROOT = Path(__file__).resolve().parents[4]
# Of tensorflow_model_server 2.20, recorded: `version` in startup.jsonl.
RECORDED = r"TensorFlow ModelServer: 2.20.0+dev.sha.bc7e9d2\nTensorFlow Library: 2.20.0\n"
VERSION = "2.20.0+dev.sha.bc7e9d2 (tensorflow 2.20.0)"
GLIBC = "/lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.38' not found"


def program(folder: Path, script: str) -> Path:
    path = folder / "tensorflow_model_server"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def refusal(folder: Path, script: str) -> str:
    with pytest.raises(Problem) as caught:
        identify(program(folder, script))
    message = str(caught.value)
    assert message.isprintable()  # and so it is one line
    assert message.startswith(f"{folder}/tensorflow_model_server ")
    return message


@pytest.mark.parametrize("where", ["", " >&2"])
def test_the_real_one_says_so_on_either_output(tmp_path, where):
    path = program(tmp_path, f'test "$*" = --version && printf "{RECORDED}"{where}')
    assert identify(path) == Program((str(path),), VERSION)


def test_log_lines_and_bytes_that_are_no_text_around_it_do_no_harm(tmp_path):
    path = program(tmp_path, rf'printf "\377\376 log" >&2; printf "WARNING: \300\n{RECORDED}\377"')
    assert identify(path).version == VERSION


def test_an_older_one_says_nothing_of_its_library(tmp_path):
    assert identify(program(tmp_path, 'echo "TensorFlow ModelServer: 1.14.0-rc0"')).version == "1.14.0-rc0"


def test_our_own_embedded_server_does_not_pass_for_it(tmp_path):
    wrapper = f'PYTHONPATH={ROOT} exec {sys.executable} -m serving.engines.embedded_tfserving "$@"'
    assert "is not TensorFlow Serving: its --version says 'embedded-tfserving: " in refusal(tmp_path, wrapper)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("true", "nothing"),
        (r'printf "\n  \n"', "nothing"),
        ("echo hello; echo world", "'hello'"),
        ("echo usage: it >&2", "'usage: it'"),
        ('echo "unlike TensorFlow ModelServer: 2.20.0"', "'unlike TensorFlow ModelServer: 2.20.0'"),
        ('echo "TensorFlow ModelServer:"', "'TensorFlow ModelServer:'"),
        (r'printf "\377\376\033[31mred\n"', "'\ufffd\ufffd\ufffd[31mred'"),
        ("yes", "'y'"),
    ],
)
def test_a_program_that_says_anything_else_is_refused(tmp_path, script, said):
    message = refusal(tmp_path, script)
    assert f"is not TensorFlow Serving: its --version says {said}, not 'TensorFlow ModelServer: ...'" in message


def test_what_it_says_is_cut_where_it_is_long(tmp_path):
    assert len(refusal(tmp_path, f"echo {'x' * 5000}")) < len(str(tmp_path)) + 500


@pytest.mark.parametrize(
    ("script", "why"),
    [
        (f'printf "{RECORDED}"; exit 3', "exit status 3"),
        (f'echo first >&2; echo "{GLIBC}" >&2; exit 1'.replace("`", r"\`"), f"exit status 1; it says '{GLIBC}'"),
        ("kill -11 $$", "killed by signal 11; it says nothing"),
    ],
)
def test_a_program_that_fails_is_refused_with_its_last_words(tmp_path, script, why):
    assert f"--version fails ({why}" in refusal(tmp_path, script)


def test_a_program_of_another_machine_is_refused(tmp_path):
    path = program(tmp_path, "")
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(57))
    with pytest.raises(Problem, match=r"--version fails \(Exec format error\)"):
        identify(path)


def test_a_program_that_does_not_end_is_stopped_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(identity, "TIMEOUT_S", 0.5)
    began = time.monotonic()
    marked = f"sleep 86399.{time.monotonic_ns() % 10**6:06}"
    assert "--version fails (no end after 0.5 s)" in refusal(tmp_path, f"{marked} & wait")
    assert time.monotonic() - began < 20
    left = [one for one in psutil.process_iter(["cmdline"]) if " ".join(one.info["cmdline"] or []) == marked]
    _, alive = psutil.wait_procs(left, timeout=10)  # the kernel ends what was killed when it has time for it
    assert not alive


def test_a_relative_path_counts_from_the_working_folder_and_stays_right_elsewhere(tmp_path, monkeypatch):
    path = program(tmp_path, f'printf "{RECORDED}"')
    monkeypatch.chdir(tmp_path)
    (found,) = server.find("tensorflow_model_server", Path("./tensorflow_model_server")).command
    assert found == str(path)
    monkeypatch.setenv("PATH", ".", prepend=":")
    assert server.find("tensorflow_model_server").command == (str(path),)
    monkeypatch.chdir("/")
    assert subprocess.run([found], capture_output=True, check=True).stdout.startswith(b"TensorFlow ModelServer")
