"""Servers of the process runtime: one at a time, started anew whenever one is used."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.experiment.file import Experiment
from loadtest.experiment.records import StoodIn
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes.parity_gate import ParityGate
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.experiment.target_specs import TargetSpec
from models.bundle import Bundle
from models.problem import Problem
from serving.runtimes.process import launch
from serving.target import Target, WhyStandIn
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


NO_NETWORK = StoodIn(
    engine="tensorflow-serving", stand_in="embedded-tfserving", reason=WhyStandIn.NO_ANSWER, detail="timed out"
)


def began_with(servers: LocalTargets, name: str, engine: str) -> None:
    """A start of an interrupted run, which saved what had run."""
    folder = servers._folder.new_folder("servers", name)
    folder.mkdir(parents=True)
    replace(target("pytorch"), name=name, engine=engine).save(folder / "target.json")


def test_why_a_stand_in_runs_is_noted_once_it_does(started, servers):
    servers._stood_in = [NO_NETWORK]
    servers.use("pytorch", lambda _: None)
    assert servers._folder.environment().warnings == ()
    began_with(servers, "tensorflow", "embedded-tfserving")
    for _ in range(2):
        servers.use("tensorflow", lambda _: None)
    assert servers._folder.environment().warnings == (NO_NETWORK,)


def test_a_run_that_goes_on_keeps_to_the_engine_that_it_began_with(started, servers, monkeypatch):
    """Without a network it began with the stand-in; the real one has been fetched since."""
    monkeypatch.setattr(launch, "at_hand", lambda engine, _: engine)
    began_with(servers, "tensorflow", "embedded-tfserving")
    began_with(servers, "tensorflow-2", "tensorflow-serving")
    servers.use("tensorflow", lambda _: None)
    assert started.starts[-1]["engine"].id == "embedded-tfserving"


def test_a_run_whose_engine_has_gone_does_not_go_on_with_another(started, servers, monkeypatch):
    monkeypatch.setenv("TFSERVING", "embedded")
    began_with(servers, "tensorflow", "tensorflow-serving")
    with pytest.raises(Problem, match="tensorflow: the run began with TensorFlow Serving, which is not at hand now"):
        servers.use("tensorflow", lambda _: None)
