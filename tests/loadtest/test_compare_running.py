"""Which of the models that running servers hold an experiment is measured with, and what is refused before any load."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from loadtest.compare import load_running
from models.problem import Problem
from tests.serving.targets import target

PYTORCH, TENSORFLOW = target("pytorch"), target("tensorflow")


def lenet(one, **changes):
    return replace(one, model="lenet", **changes)


@pytest.mark.parametrize(
    ("targets", "overrides", "message"),
    [
        (
            [PYTORCH, lenet(PYTORCH), TENSORFLOW],
            {},
            "its targets must serve the same models in the same versions, not ",
        ),
        ([PYTORCH, replace(TENSORFLOW, version=2)], {}, "its targets must serve the same models in the same versions"),
        (
            [PYTORCH, lenet(PYTORCH, grpc="127.0.0.1:3")],
            {},
            "the models of pytorch must be held by one server, not at ",
        ),
        (
            [PYTORCH, TENSORFLOW],
            {"models": {"convnet": 0.7, "lenet": 0.3}},
            "its servers hold convnet, and not lenet",
        ),
        ([PYTORCH, lenet(PYTORCH)], {"model": "vgg"}, "its servers hold convnet, lenet, and not vgg"),
        ([], {}, "its targets must serve the same models"),
    ],
)
def test_servers_that_cannot_be_compared_are_refused_in_one_line(targets, overrides, message, tmp_path):
    file = tmp_path / "targets.json"
    file.write_text(json.dumps([one.to_dict() for one in targets]))
    with pytest.raises(Problem) as caught:
        load_running(
            "smoke",
            overrides,
            targets_file=file,
            bundle_folder=None,
            artifacts=tmp_path / "artifacts",
            results=tmp_path / "results",
        )
    assert str(caught.value).startswith(f"{file}: {message}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()
