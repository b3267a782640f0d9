"""Which of the models that running servers hold an experiment is measured with, and what is refused before any load."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loadtest.experiment import measure
from loadtest.experiment.load_running import load_running
from models.problem import Problem
from serving.engines.engine import Knob
from serving.profile import ServingProfile
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
            words=str,
        )
    assert str(caught.value).startswith(f"{file}: {message}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


@pytest.fixture
def held(artifacts, tmp_path) -> Path:
    """A folder of artifacts with a bundle of convnet and one, of the same files, that calls itself lenet."""
    folder = tmp_path / "artifacts"
    for model in ("convnet", "lenet"):
        copy = folder / model / "1"
        shutil.copytree(artifacts / "convnet" / "1", copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        (copy / "manifest.json").write_text(json.dumps({**manifest, "model": model}))
    return folder


@pytest.mark.parametrize(
    ("models", "overrides", "mix"),
    [
        (["convnet"], {}, {"convnet": 1.0}),
        (["lenet"], {}, {"lenet": 1.0}),  # the only one, whatever the experiment says
        (["convnet", "lenet"], {}, {"convnet": 1.0}),
        (["convnet", "lenet"], {"model": "lenet"}, {"lenet": 1.0}),
        (["convnet", "lenet"], {"models": {"lenet": 0.2, "convnet": 0.8}}, {"lenet": 0.2, "convnet": 0.8}),
    ],
)
def test_running_servers_are_asked_for_the_models_that_the_experiment_names(
    models, overrides, mix, held, tmp_path, monkeypatch
):
    found: dict[str, Any] = {}

    def run(experiment, bundles, targets, folder, progress):
        found.update(mix=experiment.mix, bundles=bundles, dataset=experiment.dataset, runtime=experiment.runtime)
        found.update(asked=[targets.target(stack).model for stack in ("pytorch", "tensorflow")])
        return folder.path

    monkeypatch.setattr(measure, "run", run)
    file = tmp_path / "targets.json"
    listed = [replace(one, model=model).to_dict() for one in (PYTORCH, TENSORFLOW) for model in models]
    file.write_text(json.dumps(listed), "utf-8-sig")  # as an editor on Windows would
    load_running(
        "default",
        overrides,
        targets_file=file,
        bundle_folder=None,
        artifacts=held,
        results=tmp_path / "results",
        words=str,
    )
    assert found["mix"] == mix
    assert [bundle.model for bundle in found["bundles"]] == list(mix)
    assert found["asked"] == [next(iter(mix))] * 2
    assert (found["dataset"], found["runtime"]) == ("digits", "remote")


def started_with(one, **asked):
    """A target of a server that was started with this profile."""
    profile = ServingProfile.from_dict({**ServingProfile().to_dict(), **asked})
    knobs = tuple(Knob(key, key, value, asked=value) for key, value in profile.to_dict().items())
    return replace(one, knobs=knobs, max_batch_size=profile.max_batch_size)


def loaded(targets, overrides, held, tmp_path, monkeypatch, *, name="default", bundle=None):
    """The experiment that is recorded of a run of these servers."""
    found: list[Any] = []

    def run(experiment, bundles, targets, folder, progress):
        found.append(experiment)
        return folder.path

    monkeypatch.setattr(measure, "run", run)
    file = tmp_path / "targets.json"
    file.write_text(json.dumps([one.to_dict() for one in targets]))
    folders = {"artifacts": held, "results": tmp_path / "results"}
    load_running(name, overrides, targets_file=file, bundle_folder=bundle, words=str, **folders)
    return found[-1]


def test_a_run_is_recorded_with_the_profile_that_its_servers_were_started_with(held, tmp_path, monkeypatch):
    servers = [started_with(one, max_batch_size=64, batch_timeout_ms=3.0, threads=2) for one in (PYTORCH, TENSORFLOW)]
    experiment = loaded(servers, {}, held, tmp_path, monkeypatch)
    assert experiment.profile == ServingProfile(max_batch_size=64, batch_timeout_ms=3.0, threads=2)
    assert experiment.dataset == "digits"
    same = {"profile.max_batch_size": 64, "dataset": "digits", "model": "convnet"}
    assert loaded(servers, same, held, tmp_path, monkeypatch).profile == experiment.profile


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"profile.max_batch_size": 16}, "profile.max_batch_size = 16, and the servers of .* were started with 64"),
        (
            {"profile.precision": "tf32", "profile.device": "gpu"},
            "profile.device = 'gpu', and the servers of .* with 'cpu'",
        ),
        ({"dataset": "cifar10"}, "dataset = 'cifar10', and the bundle of .* is of 'digits'"),
        ({"model": "lenet"}, "its servers hold convnet, and not lenet"),
    ],
)
def test_what_somebody_says_that_the_servers_are_not_is_refused(held, tmp_path, monkeypatch, overrides, message):
    servers = [started_with(one, max_batch_size=64) for one in (PYTORCH, TENSORFLOW)]
    with pytest.raises(Problem, match=message):
        loaded(servers, overrides, held, tmp_path, monkeypatch)
    # And in an experiment of one's own.
    tables: dict[str, dict[str, Any]] = {}
    lines = []
    for key, value in overrides.items():
        table, dot, inner = key.partition(".")
        if dot:
            tables.setdefault(table, {})[inner] = value
        else:
            lines.append(f"{key} = {value!r}")
    for table, values in tables.items():
        lines += [f"[{table}]", *(f"{key} = {value!r}" for key, value in values.items())]
    own = tmp_path / "own.toml"
    own.write_text("\n".join(lines) + "\n")
    with pytest.raises(Problem, match=message):
        loaded(servers, {}, held, tmp_path, monkeypatch, name=str(own))
    assert not (tmp_path / "results").exists()


def test_servers_that_were_started_differently_and_a_bundle_of_another_version_are_refused(held, tmp_path, monkeypatch):
    servers = [started_with(PYTORCH, threads=2), started_with(TENSORFLOW)]
    with pytest.raises(Problem, match=r"its servers differ in profile\.threads: 2 and 1; start them alike"):
        loaded(servers, {}, held, tmp_path, monkeypatch)
    alike = [replace(started_with(one), version=2) for one in (PYTORCH, TENSORFLOW)]
    with pytest.raises(Problem, match=r"--bundle .*: version 1 of convnet, and the servers of .* hold version 2"):
        loaded(alike, {}, held, tmp_path, monkeypatch, bundle=held / "convnet" / "1")
