"""What TorchServe's process starts with."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from models import child_environment
from models.problem import Problem
from serving.engines.torchserve import java, server


def test_java_opens_file_names_with_any_letter_whatever_the_shell_s_locale(tmp_path):
    shell = {**os.environ, "LC_ALL": "C", "_JAVA_OPTIONS": "-Dsun.jnu.encoding=ANSI_X3.4-1968"}
    done = subprocess.run(
        [java.find().executable, "-XshowSettings:properties", "-version"],
        env=child_environment.measured(shell),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    settings = dict(line.strip().partition(" = ")[::2] for line in done.stderr.splitlines())
    assert (settings["sun.jnu.encoding"], settings["file.encoding"]) == ("UTF-8", "UTF-8")


def noexec(monkeypatch, *places: Path) -> None:
    """Have these folders lie on mounts with noexec: only root may mount."""
    flags = dict.fromkeys(places, os.ST_NOEXEC)
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_flag=flags.get(place, 0)))


def test_the_library_for_unix_sockets_lies_where_it_can_be_loaded(tmp_path, monkeypatch):
    scratch, configuration = tmp_path / "scratch", tmp_path / "configuration"
    for folder in (scratch, configuration):
        folder.mkdir()

    def library() -> str:
        command = server.command_line(java.find(), configuration, tmp_path, scratch)
        (found,) = (word for word in command if word.startswith("-Dio.netty.native.workdir="))
        return found.partition("=")[2]

    assert library() == str(scratch)
    noexec(monkeypatch, scratch)
    assert library() == str(configuration)
    noexec(monkeypatch, scratch, configuration)
    with pytest.raises(Problem, match=rf"^{scratch}: on a mount with noexec, .* TMPDIR"):
        library()
