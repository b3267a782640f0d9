"""Locust's distributed mode: several workers make the one schedule, and their results are one trial's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import psutil
import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.parser import text_string_to_metric_families

from loadtest.experiment.generator_process import LOCUSTFILE
from loadtest.experiment.phases import OpenLoopPhase, Phase, WarmUpPhase
from loadtest.generator import messages
from loadtest.generator.arrivals import schedule, share
from loadtest.generator.distributed import _Together
from loadtest.generator.live import Slice
from loadtest.generator.outcomes import Outcomes, merge
from loadtest.generator.recording import Recording
from serving import ports
from tests.loadtest.generator.small_servers import ROOT, generator, small_server, write_plan

pytestmark = pytest.mark.slow

WARM_UP = WarmUpPhase(
    folder=Path(), seed=1, protocol="rest", id="warm", window_s=0.2, min_s=0.4, max_s=1.0, concurrency=8
)
TRIAL = OpenLoopPhase(
    folder=Path(), seed=1, protocol="rest", id="trial", rate=150, duration_s=2.0, lead_in_s=0.3, warm_up="warm"
)


def distributed(port: int, *role: str, workers: int = 2) -> list[str]:
    return [*role, "-u", str(workers), "-r", "2", "--master-bind-port", str(port), "--master-port", str(port)]


def read(folder, name):
    return json.loads((folder / "results" / name).read_text())


@pytest.mark.parametrize("protocol", ["rest", "grpc"])
def test_two_processes_send_exactly_the_schedule_of_one_and_report_as_one(tmp_path, protocol):
    port, exporter = ports.free(2)
    with small_server(protocol, "ok") as (where, _):
        phases: list[Phase] = [replace(WARM_UP, protocol=protocol), replace(TRIAL, protocol=protocol, check_share=0.3)]
        plan = write_plan(tmp_path, where, phases, exporter_port=exporter)
        with generator(plan, *distributed(port, "--processes", "2")) as process:
            assert process.stdout is not None
            page = ""
            for line in process.stdout:  # the exporter, while the trial runs
                event = json.loads(line)
                if (event["event"], event["id"]) == ("second", "trial"):
                    page = urllib.request.urlopen(f"http://127.0.0.1:{exporter}/metrics", timeout=10).read().decode()
                    break
            _, log = process.communicate(timeout=60)
    assert process.returncode == 0, log
    trial, warm_up = read(tmp_path, "trial/trial.json"), read(tmp_path, "warm/warm-up.json")
    assert warm_up["throughput"] > 0
    due = schedule("poisson", 150, 2.0, 1, 0.3)
    assert trial["workers"] == 2
    assert trial["requests"]["scheduled"] == trial["requests"]["ok"] == np.count_nonzero(due >= 0)
    assert 0.15 * len(due) < trial["checked"] < 0.45 * len(due)
    rows = (tmp_path / "results/trial/timeline.csv").read_text().splitlines()[1:]
    assert [int(row.split(",")[1]) for row in rows] == np.histogram(due, bins=[0, 1, 2])[0].tolist()
    # Locust's master adds the workers' statistics up; lead-in included.
    row = next(line for line in log.splitlines() if "pytorch ladder 150/s" in line)
    assert int(row.split()[4]) == len(due)
    # One exporter for both workers.
    samples = {
        sample.name: sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.labels.get("phase") == "open-loop"
    }
    assert 50 < samples["tandem_loadtest_offered_requests_total"] <= len(due)
    assert samples["tandem_loadtest_valid"] in (0, 1)


def test_workers_join_from_anywhere_without_a_file_of_the_run(tmp_path):
    (port,) = ports.free(1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    command = [
        sys.executable,
        "-m",
        "locust",
        "-f",
        str(LOCUSTFILE),
        "--headless",
        "--worker",
    ]
    command += ["--master-host", "127.0.0.1", "--master-port", str(port)]
    with small_server("rest", "ok") as (where, _), ExitStack() as stack:
        plan = write_plan(tmp_path, where, [replace(TRIAL, protocol="rest", check_share=1.0)])
        for _ in range(2):
            worker = subprocess.Popen(command, cwd=elsewhere, stderr=subprocess.DEVNULL)
            stack.callback(worker.wait)
            stack.callback(worker.kill)
        with generator(plan, *distributed(port, "--master", "--expect-workers", "2")) as master:
            _, log = master.communicate(timeout=60)
    assert master.returncode == 0, log
    trial = read(tmp_path, "trial/trial.json")
    assert (trial["workers"], trial["wrong"]) == (2, 0)
    assert trial["checked"] == trial["requests"]["ok"] == trial["requests"]["scheduled"]
    assert not list(elsewhere.iterdir())


def test_a_worker_that_dies_ends_the_run_and_leaves_no_half_trial(tmp_path):
    (port,) = ports.free(1)
    with small_server("rest", "ok") as (where, _):
        plan = write_plan(tmp_path, where, [replace(TRIAL, protocol="rest", duration_s=60)])
        with generator(plan, *distributed(port, "--processes", "2")) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["event"] == "second":
                    break
            workers = psutil.Process(process.pid).children()
            victim = next(worker for worker in workers if "locust" in " ".join(worker.cmdline()))
            os.kill(victim.pid, signal.SIGKILL)
            _, log = process.communicate(timeout=60)
            _, alive = psutil.wait_procs(workers, timeout=10)
    assert process.returncode == 1
    (error,) = [line for line in log.splitlines() if line.startswith("error:")]
    assert error.startswith("error: the load generator's worker")
    assert "is lost" in error
    assert not alive
    assert not (tmp_path / "results" / "trial").exists()


def test_trouble_of_a_worker_is_the_master_s_one_line(tmp_path):
    (port,) = ports.free(1)
    with small_server("rest", "ok") as (where, server):
        server.kill()
        plan = write_plan(tmp_path, where, [replace(TRIAL, protocol="rest")])
        began = time.monotonic()
        with generator(plan, *distributed(port, "--processes", "2")) as process:
            _, log = process.communicate(timeout=60)
    assert process.returncode == 1
    assert [line for line in log.splitlines() if line.startswith("error:")] == [
        f"error: cannot connect to the REST API at {where.rest}: is the server running?"
    ]
    assert time.monotonic() - began < 40


def received(sent: Outcomes) -> Outcomes:
    """As the master has it from a worker."""
    message = messages.answer(messages.encode(messages.Done(number=1, outcomes=sent)))
    assert isinstance(message, messages.Done)
    return message.outcomes


outcomes = st.lists(
    st.tuples(st.floats(0, 0.005), st.floats(0.0001, 5), st.sampled_from([None, "timeout", "http_503"]))
)


@given(outcomes, st.integers(1, 5))
def test_merged_parts_are_what_one_worker_would_have_recorded(found, workers):
    due = np.arange(len(found)) / 100 - 0.05  # the first five are lead-in

    def record(chosen: slice) -> Outcomes:
        recording = Recording(due[chosen])
        recording.begin(50.0)
        for request, (slip, took, kind) in enumerate(found[chosen]):
            recording.in_flight += 1
            recording.offered += 1
            recording.sent[request] = recording.due[request] + slip
            recording.finish(request, kind, recording.due[request] + took)
        return Outcomes.of(recording, 50.0)

    whole = record(slice(None))
    parts = [received(record(share(len(found), worker, workers))) for worker in range(workers)]
    merged = merge(parts)
    for key in ("due", "sent", "done"):
        assert np.array_equal(getattr(merged, key), getattr(whole, key))
    assert [merged.kinds[code - 3] if code > 2 else code for code in merged.status] == [
        whole.kinds[code - 3] if code > 2 else code for code in whole.status
    ]
    # So its histogram is the sum of the workers' histograms.
    together, added = HdrHistogram(1, 60_000_000, 3), HdrHistogram(1, 60_000_000, 3)
    for latency in (merged.done - merged.due)[merged.ok]:
        together.record_value(round(latency * 1e6))
    for part in parts:
        own = HdrHistogram(1, 60_000_000, 3)
        for latency in (part.done - part.due)[part.ok]:
            own.record_value(round(latency * 1e6))
        added.add(own)
    assert together.get_total_count() == added.get_total_count() == int(whole.ok.sum())
    assert list(together.counts) == list(added.counts)


def test_workers_that_gave_up_at_different_times_report_until_the_first_of_them():
    due = np.arange(10) / 10
    parts = [
        Outcomes(due, due, due + 0.01, np.full(10, 1, np.uint8), (), given_up_s=given_up) for given_up in (0.95, 0.55)
    ]
    merged = merge(parts)
    assert (merged.given_up_s, merged.due.max(), len(merged.due)) == (0.55, 0.5, 12)


def piece(offered: int, in_flight: int) -> Slice:
    return Slice(offered, offered, 0, np.full(offered, 2.0), np.zeros(0), {}, np.full(offered, 0.1), in_flight)


def test_a_slice_crosses_whole():
    sent = Slice(3, 2, 1, np.array([1.0, 1 / 3]), np.zeros(0), {"timeout": 2}, np.array([0.1]), 5)
    message = messages.answer(messages.encode(messages.Piece(slice=sent, now=9.25)))
    assert isinstance(message, messages.Piece)
    got = message.slice
    assert (message.now, got.offered, got.sent, got.dropped, got.in_flight) == (9.25, 3, 2, 1, 5)
    assert got.errors == {"timeout": 2}
    assert np.array_equal(got.latency_ms, sent.latency_ms)
    assert np.array_equal(got.slip_ms, sent.slip_ms)
    assert got.failed_ms.size == 0


def test_slices_of_the_same_time_are_put_together_and_one_that_ended_is_not_waited_for():
    together = _Together(["a", "b"])
    together.add("a", piece(3, 1), 0.1)
    assert list(together.ready()) == []
    together.add("b", piece(4, 2), 0.11)
    ((both, now),) = together.ready()
    assert (both.offered, both.in_flight, both.latency_ms.size, now) == (7, 3, 7, 0.11)
    together.add("a", piece(1, 0), 0.2)
    together.ended("b")
    ((alone, _),) = together.ready()
    assert alone.offered == 1


def test_a_worker_serves_one_run_after_the_other_until_it_is_stopped(tmp_path):
    (port,) = ports.free(1)
    command = [sys.executable, "-m", "loadtest", "worker", "--master", "127.0.0.1", "--port", str(port)]
    with small_server("rest", "ok") as (where, _), ExitStack() as stack:
        helper = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
        stack.callback(helper.wait)
        stack.callback(helper.kill)
        for run in ("first", "second"):
            folder = tmp_path / run
            folder.mkdir()
            plan = write_plan(folder, where, [replace(TRIAL, protocol="rest", duration_s=0.5)])
            role = distributed(port, "--master", "--expect-workers", "1", workers=1)
            with generator(plan, *role) as master:
                _, log = master.communicate(timeout=60)
            assert master.returncode == 0, log
            assert read(folder, "trial/trial.json")["workers"] == 1
        helper.send_signal(signal.SIGINT)
        assert helper.wait(timeout=20) == 130
