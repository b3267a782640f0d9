"""A run on a machine with meters: what it writes down, and of which trials."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from loadtest.experiment import records, steps
from loadtest.experiment.file import Experiment
from loadtest.experiment.meter_records import DeviceUse, GpuMemory, Gpus, IdlePower
from loadtest.experiment.meters import Meters
from loadtest.experiment.records import GpuLost
from loadtest.experiment.scenarios import SingleStream
from loadtest.report import progress_words, warning_words
from serving.engines import registry
from serving.engines.engine import Ports, Served, Site
from serving.profile import ServingProfile
from serving.target import Target
from serving.this_machine import boot_id
from tests.loadtest.experiment.simulated_run import Ran, Server, Servers, run

SITE = Site("127.0.0.1", Ports(rest=1, grpc=2, metrics=3), "/srv/config", "/srv", cores=4)
KNOBS = registry.engine("torchserve").render(ServingProfile(device="gpu", instances=2), [Served("m", "1", "/m")], SITE)


class Watching(Meters):
    """Meters that count 50 W, whenever that is; the second server's trials fall into a time that they did not see."""

    def __init__(self) -> None:
        super().__init__(Gpus(), None, None)
        self.asked: list[tuple[float, float]] = []
        self.running = False

    def start(self) -> None:
        self.running = True

    def stop(self) -> None:
        self.running = False

    def idle(self, seconds: float = 4.0) -> IdlePower | None:
        assert self.running
        return IdlePower(seconds=seconds, cpu_w=9.0)

    def use(self, began: float, ended: float) -> DeviceUse | None:
        assert self.running
        self.asked.append((began, ended))
        return DeviceUse(seconds=ended - began, cpu_energy_j=50 * (ended - began))


WATCHING = Watching()


class OnThisMachine(Servers):
    """Servers on this machine's GPU, and meters."""

    def target(self, name: str) -> Target:
        return replace(super().target(name), machine=boot_id(), knobs=KNOBS.knobs)

    def meters(self, *, on_gpu: bool) -> Meters | None:
        assert on_gpu
        return WATCHING


class Elsewhere(OnThisMachine):
    """The same, on another machine."""

    def target(self, name: str) -> Target:
        return replace(super().target(name), machine="another")


ASKED = Experiment(
    protocols=("rest",),
    scenarios=("single-stream",),
    single_stream=SingleStream(repetitions=2, duration_s=1.0, lead_in_s=0.1),
    profile=ServingProfile(device="gpu"),
)
SERVERS = {name: Server({"rest": 300.0}) for name in ASKED.target_names}


@pytest.fixture(autouse=True)
def weights(monkeypatch, tmp_path):
    """The bundle that simulated servers hold has no files of its own."""
    archive = tmp_path / "bundle" / "torchscript" / "model.pt"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"x" * 1000)


def uses(ran: Ran) -> list[Path]:
    return [path for path in ran.folder.trials() if (path / "devices.json").exists()]


def test_each_trial_has_what_the_meters_counted_in_its_own_time(tmp_path):
    ran = run(tmp_path, ASKED, SERVERS, kind=OnThisMachine)
    assert not WATCHING.running
    assert uses(ran) == ran.folder.trials()
    for path in uses(ran):
        trial = records.read_trial(path / "trial.json")
        found = records.read_use(path / "devices.json")
        assert found is not None
        assert found.seconds == pytest.approx(trial.ended_at - trial.started_at)
    known = ran.folder.environment()
    assert (known.gpus, known.idle) == (Gpus(), IdlePower(seconds=4.0, cpu_w=9.0))


def test_what_servers_will_have_of_the_gpu_s_memory_is_told_once_and_written_down(tmp_path):
    ran = run(tmp_path, ASKED, SERVERS, kind=OnThisMachine)
    known = ran.folder.environment().gpu_memory
    expected = GpuMemory(processes=2, weights_bytes=1000, context_bytes=400 * 2**20, share=0.4)
    assert known == dict.fromkeys(ASKED.target_names, expected)
    told = [step for step in ran.told.steps if isinstance(step, steps.GpuMemoryExpected)]
    assert sorted(step.target for step in told) == sorted(ASKED.target_names)
    assert "expected at least 0.781 GiB: 2 processes" in progress_words.line(told[0])


def test_a_server_on_another_machine_is_none_of_this_one_s_meters(tmp_path):
    assert uses(run(tmp_path, ASKED, SERVERS, kind=Elsewhere)) == []


def test_a_gpu_that_is_lost_is_noted_once(tmp_path, monkeypatch):
    monkeypatch.setattr(WATCHING, "lost_at", time.time())
    ran = run(tmp_path, ASKED, SERVERS, kind=OnThisMachine)
    (note,) = [one for one in ran.folder.environment().warnings if isinstance(one, GpuLost)]
    assert "did not answer any more" in warning_words.warning(note)
