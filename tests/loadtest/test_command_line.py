"""The verbs of `python -m loadtest`, and how those that measure end."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest import __main__ as command_line
from loadtest.experiment.verb import Verb, no_arguments
from models.problem import Problem
from tests.loadtest.runs.build import TF_SERVING, TORCHSERVE, write_run


def test_every_verb_is_registered_under_its_name():
    for name, module in command_line.MODULES.items():
        assert importlib.import_module(module).VERB.name == name


def test_the_list_of_verbs_says_what_each_does(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for module in command_line.MODULES.values():
        verb = importlib.import_module(module).VERB
        assert f"{verb.name} {verb.help}" in shown


def test_an_unknown_verb_is_answered_with_those_there_are(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["bench"])
    assert "'bench-aa'" in capsys.readouterr().err


def test_a_verb_is_reached_without_importing_the_others():
    code = (
        "import sys; from loadtest.__main__ import main\n"
        "try: main(['worker', '--help'])\n"
        "except SystemExit: sys.exit('loadtest.experiment.compare' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=False).returncode == 0


@pytest.fixture
def stub(monkeypatch):
    """Registers a verb `stub` that does what it is given."""

    def register(run):
        module = sys.modules[__name__]
        monkeypatch.setattr(module, "VERB", Verb("stub", "for this test", no_arguments, run), raising=False)
        monkeypatch.setitem(command_line.MODULES, "stub", __name__)

    return register


def test_what_a_verb_measured_is_reported_and_shown(stub, tmp_path, capsys):
    run = write_run(tmp_path / "run", {"pytorch": TORCHSERVE, "tensorflow": TF_SERVING})
    stub(lambda options: run)
    assert command_line.main(["stub"]) == 0
    assert (run / "summary.json").exists()
    assert "run/report.html" in capsys.readouterr().out.replace("\n", "")


def test_a_verb_s_status_and_its_problem_are_the_program_s(stub, capsys):
    stub(lambda options: 3)
    assert command_line.main(["stub"]) == 3

    def fail(options: object) -> Path:
        raise Problem("model = 'x': use convnet")

    stub(fail)
    assert command_line.main(["stub"]) == 1
    assert capsys.readouterr().err == "error: model = 'x': use convnet\n"
