"""The load generator as a run starts it."""

from __future__ import annotations

import json
from typing import Any

from loadtest.experiment.file import Generator
from loadtest.experiment.generator_process import run_phases, workers
from tests.loadtest.generator.small_servers import small_server, write_reference


def test_two_processes_of_the_experiment_share_a_trial_and_its_results_bear_the_name_given(tmp_path):
    trial: dict[str, Any] = {
        "kind": "open-loop",
        "id": "trial",
        "folder": str(tmp_path / "trials" / "trial"),
        "protocol": "rest",
    }
    trial |= {"seed": 1, "rate": 100, "duration_s": 1.0, "lead_in_s": 0.2, "timeout_s": 5.0}
    events: list[str] = []
    with small_server("rest", "ok") as (where, _):
        run_phases(
            where,
            write_reference(tmp_path / "reference.npz"),
            [trial],
            folder=tmp_path / "generator",
            generator=Generator(processes=2),
            exporter_port=0,
            cores=(),
            name="other",
            on_event=lambda event: events.append(event["event"]),
            check=lambda: None,
        )
    values = json.loads((tmp_path / "trials" / "trial" / "trial.json").read_text())
    assert (values["workers"], values["target"]) == (2, "other")
    assert values["requests"]["ok"] == values["requests"]["scheduled"] > 50
    assert events[0] == "phase-started"
    assert events[-1] == "phase-ended"


def test_workers_are_here_or_there():
    assert workers(Generator()) == []
    there = workers(Generator(remote_workers=3, port=7000))
    assert there[:5] == ["--master", "--expect-workers", "3", "--master-bind-port", "7000"]
