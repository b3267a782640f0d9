"""Which server runs for each target of an experiment, in containers and in a cluster; no engine is needed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from loadtest.experiment import file as experiments
from loadtest.experiment.runtimes import container, kubernetes
from loadtest.experiment.target_specs import TargetSpec
from models.problem import Problem
from serving.engines import registry
from serving.profile import ServingProfile
from serving.runtimes.containers import servers
from serving.runtimes.kubernetes.settings import Settings

ALONE = TargetSpec("alone", "torchserve", {"max_batch_size": 1})
BATCHED = TargetSpec("batched", "torchserve")


def experiment(*targets: TargetSpec) -> experiments.Experiment:
    smoke = experiments.load("smoke", {"runtime": "process"})
    return replace(smoke, targets=targets) if targets else smoke


def deployment(**changes: Any) -> Settings:
    profile = ServingProfile()
    settings = Settings("local", (), "", "convnet", 1, (28, 28, 1), 10, profile)
    return replace(settings, **changes)


@pytest.mark.parametrize("embedded", [False, True])
def test_each_target_runs_its_engine_or_what_stands_in_for_it(embedded):
    tensorflow = "embedded-tfserving" if embedded else "tensorflow-serving"
    expected = {"pytorch": "torchserve", "tensorflow": tensorflow}
    in_containers = container.engines(experiment(), embedded=embedded)
    in_cluster = kubernetes.engines(experiment(), deployment(embedded=embedded))
    stack = servers.by_target(embedded=embedded)
    for found in (in_containers, in_cluster, stack):
        assert {name: engine.id for name, engine in found.items()} == expected


def test_one_container_after_the_other_can_be_two_targets_of_one_engine():
    found = container.engines(experiment(ALONE, BATCHED), embedded=False)
    assert {name: engine.id for name, engine in found.items()} == {"alone": "torchserve", "batched": "torchserve"}


def test_an_engine_whose_image_is_large_runs_where_it_is_asked_for_by_name_alone():
    spec = TargetSpec("third", "triton")
    assert container.engines(experiment(ALONE, spec), embedded=False)["third"].id == "triton"
    assert "triton" not in {engine.id for engine in servers.by_target(embedded=False).values()}
    with pytest.raises(Problem, match='Triton has no container image: use runtime = "process"'):
        container.engines(experiment(TargetSpec("fourth", "triton-torchscript")), embedded=False)
    with pytest.raises(Problem, match="triton is not deployed"):
        kubernetes.engines(experiment(spec), deployment())
    assert kubernetes.engines(experiment(BATCHED, spec), deployment(components=("triton",)))["third"].id == "triton"


def test_a_stand_in_runs_where_it_is_asked_for_by_name():
    spec = TargetSpec("ours", "embedded-tfserving")
    assert container.engines(experiment(spec), embedded=False)["ours"].id == "embedded-tfserving"


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ((BATCHED, TargetSpec("again", "torchserve")), "target.again: the cluster has one server of torchserve"),
        ((ALONE,), "target.alone.profile: the cluster's servers share one: use \\[profile\\] alone"),
        (
            (TargetSpec("ours", "embedded-tfserving"),),
            "embedded-tfserving is not deployed, but torchserve, tensorflow-serving: make deploy",
        ),
    ],
)
def test_a_cluster_has_one_server_of_each_engine_under_one_profile(targets, message):
    with pytest.raises(Problem, match=message):
        kubernetes.engines(experiment(*targets), deployment())


def test_an_engine_without_an_image_is_one_line(monkeypatch):
    monkeypatch.setattr(registry.engine("torchserve"), "container", None)
    with pytest.raises(Problem, match='TorchServe has no container image: use runtime = "process"'):
        container.engines(experiment(), embedded=False)
    monkeypatch.setattr(registry.engine("tensorflow-serving"), "deployment", None)
    with pytest.raises(Problem, match="tensorflow-serving is not deployed"):
        kubernetes.engines(experiment(TargetSpec("tensorflow", "tensorflow-serving")), deployment())
