"""A run is one process's at a time."""

from __future__ import annotations

import pytest

from loadtest.experiment.file import Experiment
from loadtest.experiment.measure import measure
from loadtest.experiment.run_folder import RunFolder
from models.problem import Problem
from tests.models.test_in_use import another


def test_a_second_command_in_the_same_results_says_that_the_run_is_going_on(tmp_path):
    going_on = RunFolder.open(tmp_path, Experiment(), "")
    before = sorted(tmp_path.rglob("*"))
    with another(going_on.path) as first:
        with pytest.raises(
            Problem, match=rf"^{going_on.path}: this run is going on \(process {first.pid}\); .*--fresh"
        ):
            measure(Experiment(), [], tmp_path, False, lambda _: pytest.fail("it would start servers"), str)
    assert {path.name for path in tmp_path.rglob("*")} - {path.name for path in before} == {".in-use"}
    assert not going_on.has_environment
