"""Servers of the process runtime: one at a time, started anew whenever one is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.experiment.file import Experiment
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.parity_gate import ParityGate
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.experiment.target_specs import TargetSpec
from models.bundle import Bundle
from models.problem import Problem
from serving.runtimes.process import launch
from serving.target import Target
from tests.serving.targets import target

SINGLE = TargetSpec("single", "torchserve", {"max_batch_size": 1})


@dataclass
class Started:
    """What was started and stopped, in its order."""

    events: list[tuple[str, ...]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)

    def start(self, name: str, bundle: Bundle, profile: Any, folder: Path, **arguments: Any) -> SimpleNamespace:
        number = str(len(self.starts))
        self.events.append(("start", number))
        self.starts.append({"name": name, "profile": profile, "folder": folder, **arguments})
        return SimpleNamespace(
            target=replace(target("pytorch"), name=name, engine=arguments["engine"].id),
            process=SimpleNamespace(pid=1),
            stop=lambda: self.events.append(("stop", number)),
            check=lambda: None,
        )

    def prove(self, found: Target, now: Callable[[str], None]) -> None:
        now("proving")
        self.proven.append(found.name)


@pytest.fixture
def started(monkeypatch) -> Started:
    found = Started()
    monkeypatch.setattr(launch, "start", found.start)
    monkeypatch.setattr(ParityGate, "prove", found.prove)
    return found


@pytest.fixture
def servers(tmp_path) -> LocalTargets:
    experiment = replace(Experiment(), targets=(*Experiment().targets, SINGLE))
    folder = RunFolder.open(tmp_path, experiment, "digest")
    return LocalTargets(folder, [Bundle(tmp_path, {"model": "convnet"})], experiment, ((1,), (0,)), {})


def test_whatever_is_used_is_a_server_of_its_own_and_the_one_before_is_gone(started, servers):
    for name, offset in (("pytorch", 10), ("pytorch", 20), ("single", 30), ("pytorch", 40)):
        servers.use(name, lambda _: None, offset)
        assert servers.target(name).name == name
    servers.stop()
    servers.stop()
    expected = [("start", "0"), ("stop", "0"), ("start", "1"), ("stop", "1"), ("start", "2"), ("stop", "2")]
    assert started.events == [*expected, ("start", "3"), ("stop", "3")]
    assert [one["offset"] for one in started.starts] == [10, 20, 30, 40]
    assert started.proven == ["pytorch", "pytorch", "single", "pytorch"]
    folders = [one["folder"].name for one in started.starts]
    assert folders[0].startswith("pytorch-")
    assert folders[2].startswith("single-")
    assert all(one["cores"] == (1,) for one in started.starts)
    assert [one["profile"].max_batch_size for one in started.starts] == [32, 32, 1, 32]


def test_a_server_that_cannot_be_started_leaves_none_in_use(started, servers, monkeypatch):
    servers.use("pytorch", lambda _: None)

    def fails(*_: Any, **__: Any) -> SimpleNamespace:
        raise Problem("no")

    monkeypatch.setattr(launch, "start", fails)
    with pytest.raises(Problem, match="no"):
        servers.use("tensorflow", lambda _: None)
    assert started.events == [("start", "0"), ("stop", "0")]
    servers.check()
