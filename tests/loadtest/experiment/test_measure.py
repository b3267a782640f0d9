"""A run is one process's at a time."""

from __future__ import annotations

import pytest

from loadtest.experiment.file import Experiment
from loadtest.experiment.measure import measure, require_protocols
from loadtest.experiment.run_folder import RunFolder
from models.bundle import Bundle
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


@pytest.mark.parametrize(
    ("own", "content", "refused"),
    [
        ({"savedmodel": {"name": "port", "sha256": {}, "around": []}}, b"serving_default", True),
        ({"savedmodel": {"name": "port", "sha256": {}, "around": []}}, b"serving_default serving_bytes", False),
        ({"savedmodel": {"name": "port", "sha256": {}, "around": ["cast"]}}, b"", False),
        ({}, b"", False),
    ],
    ids=["as it came", "with a signature for bytes", "behind Tandem's", "Tandem's"],
)
def test_a_user_s_savedmodel_that_takes_no_bytes_is_refused_before_any_server(own, content, refused, tmp_path):
    bundle = Bundle(tmp_path, {"version": 1, "own_files": own})
    (bundle.savedmodel / "1").mkdir(parents=True)
    (bundle.savedmodel / "1" / "saved_model.pb").write_bytes(content)
    require_protocols(Experiment(), bundle)
    asked = Experiment(protocols=("rest", "rest-binary"))
    if not refused:
        require_protocols(asked, bundle)
        return
    with pytest.raises(
        Problem, match=r"^protocols has rest-binary, for tensorflow: SAVEDMODEL=port is served as it came"
    ):
        require_protocols(asked, bundle)
