"""The generator as users run it: Locust in its own process, a plan in, folders and JSON lines out."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from loadtest.experiment.generator_process import LOCUSTFILE
from loadtest.experiment.phases import OpenLoopPhase, Phase, WarmUpPhase
from tests.loadtest.generator.small_servers import ROOT, generator, small_server, target, write_plan

pytestmark = pytest.mark.slow

WARM_UP = WarmUpPhase(
    folder=Path(), seed=1, protocol="rest", id="warm", window_s=0.2, min_s=0.4, max_s=0.8, concurrency=8
)
TRIAL = OpenLoopPhase(
    folder=Path(), seed=1, protocol="rest", id="trial", rate=150, duration_s=1.6, lead_in_s=0.3, warm_up="warm"
)


def run(plan):
    with generator(plan) as process:
        out, log = process.communicate(timeout=60)
    return process.returncode, [json.loads(line) for line in out.splitlines()], log


def read(folder, name):
    return json.loads((folder / "results" / name).read_text())


@pytest.mark.parametrize("protocol", ["rest", "grpc", "rest-binary"])
def test_a_plan_runs_to_its_end(tmp_path, protocol):
    with small_server(protocol, "ok") as (where, _):
        phases: list[Phase] = [replace(WARM_UP, protocol=protocol), replace(TRIAL, protocol=protocol, check_share=0.2)]
        status, events, log = run(write_plan(tmp_path, where, phases))
    assert status == 0, log
    trial, warm_up = read(tmp_path, "trial/trial.json"), read(tmp_path, "warm/warm-up.json")
    assert warm_up["target"] == "pytorch"
    assert warm_up["throughput"] > 0
    requests = trial["requests"]
    assert 150 < requests["scheduled"] < 330
    assert requests["scheduled"] == requests["sent"] == requests["completed"]
    assert 0.05 * requests["scheduled"] < trial["checked"] < 0.5 * requests["scheduled"]
    if protocol == "rest-binary":  # the small server answers in JSON, which is not what raw bytes are answered with
        assert trial["wrong"] == trial["checked"] == trial["errors"]["wrong_answer"]
        assert requests["ok"] == requests["scheduled"] - trial["wrong"]
    else:
        assert requests["ok"] == requests["scheduled"]
        assert (trial["wrong"], trial["errors"]) == (0, {})
    assert trial["ended_at"] - trial["started_at"] == pytest.approx(1.6)
    assert 0 < trial["generator_cpu"] < 1
    assert 0 <= trial["cpu_stolen"] <= 1
    assert trial["latency_ms"]["p50"] <= trial["latency_ms"]["p99"] <= trial["latency_ms"]["max"]
    assert sorted(path.name for path in (tmp_path / "results" / "trial").iterdir()) == [
        "latency.hlog",
        "timeline.csv",
        "trial.json",
    ]
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == ["trial", "warm"]
    names = [(event["event"], event["id"]) for event in events if event["event"] != "second"]
    assert names == [(f"phase-{what}", phase) for phase in ("warm", "trial") for what in ("started", "ended")]
    seconds = [event for event in events if event["event"] == "second" and event["id"] == "trial"]
    assert 1 <= len(seconds) <= 4
    assert 0 < sum(event["ok"] for event in seconds) <= requests["scheduled"] * 1.4
    # Locust's own summary counts the same requests (with the lead-in's).
    row = next(line for line in log.splitlines() if "pytorch ladder 150/s" in line)
    assert requests["scheduled"] <= int(row.split()[4]) <= requests["scheduled"] * 1.4


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_wrong_answers_are_errors_however_fast(tmp_path, protocol):
    with small_server(protocol, "wrong") as (where, _):
        phase = replace(TRIAL, protocol=protocol, check_share=1.0, duration_s=1.0)
        status, _, log = run(write_plan(tmp_path, where, [phase]))
    assert status == 0, log
    trial = read(tmp_path, "trial/trial.json")
    assert trial["checked"] == trial["wrong"] == trial["errors"]["wrong_answer"] == trial["requests"]["scheduled"]
    assert trial["requests"]["ok"] == 0
    assert trial["latency_ms"]["p99"] is None


def test_a_server_that_dies_under_load_is_counted_and_said(tmp_path):
    with small_server("rest", "die:100") as (where, _):
        phases: list[Phase] = [replace(TRIAL, protocol="rest"), replace(WARM_UP, protocol="rest")]
        status, events, log = run(write_plan(tmp_path, where, phases))
    trial = read(tmp_path, "trial/trial.json")
    assert trial["requests"]["ok"] <= 100
    assert trial["errors"] == {"connection": trial["requests"]["scheduled"] - trial["requests"]["ok"]}
    (note,) = trial["notes"]
    assert (note["type"], note["lost"]) == ("server-died", trial["errors"]["connection"])
    assert 0 <= note["after_s"] <= 1.6
    # The next phase finds no server.
    assert status == 1
    assert [line for line in log.splitlines() if line.startswith("error:")] == [
        f"error: cannot connect to the REST API at {where.rest}: is the server running?"
    ]
    assert events[-1] == {"event": "phase-started", "id": "warm"}
    assert not (tmp_path / "results" / "warm").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly_and_keeps_what_has_ended(tmp_path, number):
    with small_server("rest", "ok") as (where, _):
        phases: list[Phase] = [replace(WARM_UP, protocol="rest"), replace(TRIAL, protocol="rest", duration_s=60)]
        with generator(write_plan(tmp_path, where, phases)) as process:
            for line in process.stdout or ():
                if json.loads(line) == {"event": "phase-started", "id": "trial"}:
                    break
            os.kill(process.pid, number)
            _, log = process.communicate(timeout=15)
    assert process.returncode == 130
    assert "Traceback" not in log
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["warm"]


def test_trouble_before_the_start_is_one_line(tmp_path):
    plan = write_plan(tmp_path, target("127.0.0.1:1"), [replace(TRIAL, protocol="grpc")])
    status, _, log = run(plan)
    assert status == 1
    assert [line for line in log.splitlines() if line.startswith("error:")] == [
        "error: cannot connect to the gRPC API at 127.0.0.1:1: is the server running?"
    ]
    assert "Traceback" not in log
    assert log.splitlines()[-1].startswith("error:")
    (tmp_path / "results" / "trial").mkdir(parents=True)
    (tmp_path / "results" / "trial" / "trial.json").write_text("{}")
    status, _, log = run(plan)
    assert status == 1
    assert "exists already" in log


def test_the_generator_imports_neither_torch_nor_tensorflow_and_no_standard_module_is_hidden():
    code = (
        "import sys; sys.argv = ['locust']; from locust.util.load_locustfile import load_locustfile\n"
        f"classes = load_locustfile({str(LOCUSTFILE)!r})[0]\n"
        "assert list(classes) == ['Tandem'], classes\n"
        "import statistics; assert hasattr(statistics, 'NormalDist'), statistics\n"
        "found = {'torch', 'tensorflow', 'grpc'} & set(sys.modules); assert not found, found"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
