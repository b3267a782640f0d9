"""The load generator as a run starts it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loadtest.experiment import records
from loadtest.experiment.events import Event, PhaseEnded, PhaseStarted
from loadtest.experiment.generator_process import run_phases, workers
from loadtest.experiment.load_job import LoadJob
from loadtest.experiment.phases import OpenLoopPhase
from loadtest.experiment.settings import Generator
from tests.loadtest.generator.small_servers import small_server, write_reference

pytestmark = pytest.mark.alone


def test_two_processes_of_the_experiment_share_a_trial_and_its_results_bear_the_target_s_name(tmp_path):
    folder = tmp_path / "trials" / "trial"
    trial = OpenLoopPhase(
        id="trial", folder=folder, protocol="rest", seed=1, rate=100, duration_s=1.0, lead_in_s=0.2, timeout_s=5.0
    )
    said: list[Event] = []
    with small_server("rest", "ok") as (where, _):
        job = LoadJob(
            target=replace(where, name="other"),
            reference=write_reference(tmp_path / "reference.npz"),
            phases=(trial,),
            folder=tmp_path / "generator",
            generator=Generator(processes=2),
        )
        run_phases(job, on_event=said.append, check=lambda: None)
    found = records.read_trial(folder / "trial.json")
    assert (found.workers, found.target) == (2, "other")
    assert found.requests.ok == found.requests.scheduled > 50
    assert said[0] == PhaseStarted(id="trial")
    assert said[-1] == PhaseEnded(id="trial")


def test_workers_are_here_or_there():
    assert workers(Generator()) == []
    there = workers(Generator(remote_workers=3, port=7000))
    assert there[:5] == ["--master", "--expect-workers", "3", "--master-bind-port", "7000"]


def test_locust_s_variables_and_files_of_the_user_do_not_reach_the_generator(tmp_path, monkeypatch):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".locust.conf").write_text("run-time = 1s\nmaster = true\n")
    for name, value in {"HOME": str(tmp_path / "home"), "LOCUST_RUN_TIME": "1s", "LOCUST_MODE_MASTER": "1"}.items():
        monkeypatch.setenv(name, value)
    trial = OpenLoopPhase(
        id="trial", folder=tmp_path / "trial", protocol="rest", seed=1, rate=50, duration_s=2.0, timeout_s=5.0
    )
    with small_server("rest", "ok") as (where, _):
        reference = write_reference(tmp_path / "reference.npz")
        job = LoadJob(target=where, reference=reference, phases=(trial,), folder=tmp_path / "generator")
        run_phases(job, on_event=lambda _: None, check=lambda: None)
    assert records.read_trial(tmp_path / "trial" / "trial.json").requests.ok > 50
