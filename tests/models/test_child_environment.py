"""What children inherit of a shell's variables, and that no child is started with all of them."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from models import child_environment

ROOT = Path(__file__).resolve().parents[2]
STARTS = {("subprocess", "run"), ("subprocess", "Popen"), ("subprocess", "check_output"), ("subprocess", "call")}
SHELL = {
    "PATH": "/usr/bin",
    "HOME": "/home/me",
    "TANDEM_ENGINES": "",
    "LOCUST_RUN_TIME": "3s",
    "LOCUST_MODE_MASTER": "1",
    "JAVA_TOOL_OPTIONS": "-Xmx16m",
    "_JAVA_OPTIONS": "-Xint",
    "TS_NUMBER_OF_NETTY_THREADS": "1",
    "PYTHONPATH": "/mine",
    "PYTHONOPTIMIZE": "2",
    "TF_XLA_FLAGS": "--tf_xla_auto_jit=2",
    "PYTORCH_JIT": "0",
    "OMP_NUM_THREADS": "7",
    "GEVENT_LOOP": "libuv",
    "PIP_TARGET": "/x",
    "PIP_USER": "1",
    "PIP_INDEX_URL": "https://index",
    "http_proxy": "http://proxy:1",
    "HTTPS_PROXY": "http://proxy:1",
    "DOCKER_HOST": "unix:///x",
    "DOCKER_DEFAULT_PLATFORM": "linux/arm64",
    "COMPOSE_PROFILES": "more",
    "KUBECONFIG": "/k",
    "GIT_DIR": "/other/.git",
    "LC_ALL": "de_DE.ISO-8859-1",
    "LANGUAGE": "de",
    "AWS_PROFILE": "me",
}


def test_what_is_measured_gets_what_a_program_needs_and_nothing_else():
    assert child_environment.measured(SHELL) == {
        "PATH": "/usr/bin",
        "HOME": "/home/me",
        "TANDEM_ENGINES": "",
        "LC_ALL": "C.UTF-8",
        "PYTHONUTF8": "1",
    }


def test_a_user_may_have_variables_kept_and_engines_of_his_own_are_found():
    asked = {**SHELL, "TANDEM_KEEP": "AWS_PROFILE, MISSING", "TANDEM_ENGINES": "mine"}
    assert child_environment.measured(asked).items() >= {"AWS_PROFILE": "me", "PYTHONPATH": "/mine"}.items()
    assert "MISSING" not in child_environment.measured(asked)


def test_a_tool_keeps_its_user_s_settings_and_loses_what_would_have_it_do_something_else():
    found = child_environment.tool(SHELL)
    kept = {"PATH", "HOME", "http_proxy", "HTTPS_PROXY", "DOCKER_HOST", "KUBECONFIG", "AWS_PROFILE", "TANDEM_ENGINES"}
    assert found.keys() - {"LC_ALL", "PYTHONUTF8", "KUBERC", "KUBECTL_KUBERC"} == kept
    assert (found["LC_ALL"], found["KUBERC"]) == ("C.UTF-8", "off")


def test_pip_keeps_the_way_to_its_index_and_the_export_the_user_s_modules():
    pip = child_environment.pip(SHELL)
    assert pip.items() >= {"PIP_INDEX_URL": "https://index", "HTTPS_PROXY": "http://proxy:1"}.items()
    assert not pip.keys() & {"PIP_TARGET", "PIP_USER", "PYTHONPATH"}
    export = child_environment.export(SHELL)
    assert export.items() >= {"PYTHONPATH": "/mine", "OMP_NUM_THREADS": "7", "http_proxy": "http://proxy:1"}.items()
    assert not export.keys() & {"PYTORCH_JIT", "TF_XLA_FLAGS", "PYTHONOPTIMIZE", "PIP_TARGET"}


def test_the_export_cleans_its_own_environment_before_it_loads_anything():
    code = "from models import child_environment; child_environment.clean(); import os; print(sorted(os.environ))"
    given = {**SHELL, "PATH": os.environ["PATH"], "PYTHONPATH": "", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=given, capture_output=True, text=True, check=True, timeout=60
    )
    names = set(ast.literal_eval(done.stdout))
    assert {"HOME", "http_proxy", "OMP_NUM_THREADS"} <= names
    assert not names & {"PYTORCH_JIT", "TF_XLA_FLAGS", "LOCUST_RUN_TIME", "PIP_TARGET"}


@pytest.mark.parametrize("room", ["models", "serving", "loadtest"])
def test_every_child_is_given_an_environment(room):
    """Without ``env`` it would inherit the shell's."""
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) in STARTS
        and "env" not in [keyword.arg for keyword in node.keywords]
    ]
    assert found == []
