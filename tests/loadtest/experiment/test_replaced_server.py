"""A server that is killed, and another one that takes its place, under real load of the real run loop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtest.experiment import records, steps
from loadtest.experiment import run as run_loop
from loadtest.experiment.file import Experiment
from loadtest.experiment.observation import Prometheus
from loadtest.experiment.records import ServerReplaced
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import on_this_machine
from loadtest.experiment.runtimes.kept_up import KeptUp, predicts
from loadtest.experiment.runtimes.load_origin import ThisMachine
from loadtest.experiment.runtimes.process import LocalTargets
from loadtest.experiment.runtimes.remote import RemoteTargets
from loadtest.experiment.runtimes.targets import Targets
from loadtest.experiment.scenarios import Ladder
from loadtest.experiment.settings import WarmUp
from loadtest.experiment.steps import Step
from loadtest.report import warning_words
from models.bundle import Bundle
from serving import wire_parity
from serving.replaced import Replaced, Successor
from serving.runtimes.process import launch
from tests.loadtest.experiment.simulated_run import Told
from tests.loadtest.generator.small_servers import FOLDER, target, write_reference
from tests.serving import fake_model_server

pytestmark = pytest.mark.slow

QUICK = Experiment(
    model="digits",
    dataset="digits",
    protocols=("rest",),
    scenarios=("ladder",),
    targets=Experiment().targets[:1],
    ladder=Ladder(rates={"rest": (40.0,)}, overload=0.0, repetitions=1, duration_s=2.5, lead_in_s=0.2),
    warm_up=WarmUp(window_s=0.25, min_s=0.5, max_s=1.0, tolerance=1.0, retries=0, settle_s=0.0, min_requests=0),
)


class Unwatched(ThisMachine):
    """This machine without a Prometheus."""

    def prometheus(self, folder: Path, cores: tuple[int, ...]) -> Prometheus | None:
        return None


class Meanwhile(Told):
    """A progress in which something happens once, under the load of the first trial."""

    def __init__(self, happens: Callable[[], None]) -> None:
        super().__init__()
        self._happens, self.happened = happens, False

    def tell(self, step: Step) -> None:
        super().tell(step)
        if isinstance(step, steps.UnderLoad) and step.offered_rate and not self.happened:
            self.happened = True
            self._happens()


@pytest.fixture
def bundle(tmp_path) -> Bundle:
    """Whose right answers are those of the small servers: 0.1 for each class."""
    shapes = {"input": {"shape": [None, 32, 32, 3]}, "output": {"shape": [None, 10]}}
    manifest: dict[str, Any] = {"model": "digits", "version": 1, "dataset": {"name": "digits"}, **shapes}
    found = Bundle(tmp_path / "bundle", manifest)
    found.folder.mkdir()
    (found.folder / "manifest.json").write_text(json.dumps(manifest))
    write_reference(found.reference)
    return found


@pytest.fixture
def proven(monkeypatch) -> list[str]:
    """The targets whose answers were compared with the reference, in turn."""
    found: list[str] = []
    check = wire_parity.check

    def counted(one: Any, *arguments: Any, **options: Any) -> Any:
        found.append(one.instance)
        return check(one, *arguments, **options)

    monkeypatch.setattr(wire_parity, "check", counted)
    return found


def measured(folder: RunFolder, bundle: Bundle, targets: Targets, progress: Meanwhile) -> records.TrialRecord:
    """The only trial that counts, of a run in which something happened."""
    run_loop.run(folder.experiment(), [bundle], targets, folder, progress, Unwatched())
    assert progress.happened
    (trial,) = [records.read_trial(path / "trial.json") for path in folder.trials()]
    return trial


class SmallServer:
    """A small server that can be killed, and started again at the same address."""

    def __init__(self) -> None:
        self.port = ""
        self.start()

    def start(self) -> None:
        command = [sys.executable, str(FOLDER / "small_http_server.py"), "ok", *filter(None, [self.port])]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = self.process.stdout.readline().strip()

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.fixture
def small() -> Iterator[SmallServer]:
    server = SmallServer()
    yield server
    server.kill()


def test_a_process_in_the_place_of_another_is_proven_and_warmed_up_and_the_start_repeated(
    small, bundle, proven, tmp_path
):
    def happens() -> None:
        small.kill()
        small.start()

    experiment = replace(QUICK, runtime="remote")
    folder = RunFolder.open(tmp_path / "results", experiment, "digest")
    first = small.process.pid
    targets = RemoteTargets(
        folder, [bundle], ["rest"], [replace(target(f"127.0.0.1:{small.port}"), grpc="127.0.0.1:1", max_batch_size=1)]
    )
    progress = Meanwhile(happens)
    trial = measured(folder, bundle, targets, progress)
    assert trial.errors == {}
    assert trial.notes == ()
    assert trial.requests.ok == trial.requests.scheduled > 50
    (note,) = [one for one in folder.environment().warnings if isinstance(one, ServerReplaced)]
    assert (note.target, note.start, note.what) == ("pytorch", 1, Successor.PROCESS)
    assert steps.Noted(note) in progress.steps
    assert [int(one.partition("@")[0]) for one in proven] == [first, small.process.pid]
    (known,) = folder.read("targets.json")
    assert known["process"] == small.process.pid
    warmed = [one.id for one in folder.warm_ups()]
    assert warmed == [trial.warm_up]
    assert len(list((folder.path / "replaced").iterdir())) >= 1


def test_a_server_that_has_ended_is_another_one_once_another_one_listens(small, tmp_path, monkeypatch):
    monkeypatch.setattr(on_this_machine, "SUCCESSOR_S", 0.2)
    (first,) = on_this_machine.located([replace(target(f"127.0.0.1:{small.port}"), grpc="127.0.0.1:1")])
    watch = on_this_machine.Watch(first)
    watch.check(fresh=True)
    small.kill()
    watch.check(fresh=True)
    small.start()
    with pytest.raises(Replaced, match=f"process {small.process.pid} listens in the place of process {first.process}"):
        watch.check(fresh=True)


def test_a_replacement_between_two_starts_is_noted_and_the_successor_proven(small, tmp_path):
    (first,) = on_this_machine.located([replace(target(f"127.0.0.1:{small.port}"), grpc="127.0.0.1:1")])
    folder = RunFolder.open(tmp_path, replace(QUICK, runtime="remote"), "digest")
    forgotten: list[str] = []
    kept_up = KeptUp(folder, [first], forgotten.append, lambda one: predicts(one, ["rest"]))
    assert kept_up.use("pytorch", print) == first
    assert (forgotten, folder.environment().warnings) == ([], ())
    small.kill()
    small.start()
    now = kept_up.use("pytorch", print)
    assert (now.process, now.rest) == (small.process.pid, first.rest)
    assert forgotten == ["pytorch"]
    (note,) = folder.environment().warnings
    assert isinstance(note, ServerReplaced)
    assert note.start is None
    assert "no load was on it" in warning_words.warning(note)


@pytest.mark.exhaustive
def test_a_worker_that_a_server_starts_anew_is_another_server(bundle, tmp_path, monkeypatch):
    """The process runtime: a server whose worker is killed goes on, and nobody knows with what."""
    program = tmp_path / "tensorflow_model_server"
    program.write_text(
        f"""#!/bin/sh
if [ "$1" = --version ]; then echo "TensorFlow ModelServer: 2.20.0"; echo "TensorFlow Library: 2.20.0"; exit; fi
sleep 600 &
exec {sys.executable} {fake_model_server.__file__} "$@"
"""
    )
    program.chmod(0o755)
    started: list[launch.RunningTarget] = []
    start = launch.start

    def remembered(*arguments: Any, **options: Any) -> launch.RunningTarget:
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(launch, "start", remembered)

    def happens() -> None:
        (worker,) = psutil.Process(started[-1].process.pid).children()
        os.kill(worker.pid, signal.SIGKILL)

    rates = replace(QUICK.ladder, rates={"grpc": (40.0,)})
    experiment = replace(QUICK, targets=Experiment().targets[1:], protocols=("grpc",), ladder=rates)
    folder = RunFolder.open(tmp_path / "results", experiment, "digest")
    targets = LocalTargets(folder, [bundle], experiment, ((), ()), {"tensorflow-serving": program})
    trial = measured(folder, bundle, targets, Meanwhile(happens))
    assert trial.errors == {}
    (note,) = [one for one in folder.environment().warnings if isinstance(one, ServerReplaced)]
    assert (note.target, note.start, note.what) == ("tensorflow", 1, Successor.WORKER)
    assert len(started) == 2
    assert not any(psutil.pid_exists(one.process.pid) for one in started)
