"""A trial's files say what the recording says, and other tools can read them."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from loadtest.experiment.phases import OpenLoopPhase
from loadtest.experiment.records import ConnectionsLost, Latency, ServerDied
from loadtest.generator.outcomes import Outcomes
from loadtest.generator.recording import Recording
from loadtest.generator.trial_files import Measured, trial_record, write_trial
from tests.loadtest.generator.small_servers import target

START = 1000.0
STARTED_AT = 1.7e9


@pytest.fixture
def measured():
    """Two and a half seconds at 4/s after one second of lead-in; latency 10 ms, 20 ms, ... ; three go wrong."""
    due = np.arange(-4, 10) / 4
    recording = Recording(due)
    recording.begin(START)
    for request in range(len(due)):
        recording.offered = request + 1
        if request == 7:
            recording.drop(request)
            continue
        recording.in_flight += 1
        recording.sent[request] = recording.due[request] + 0.001 * request
        kind = {5: "http_503", 9: "timeout"}.get(request)
        recording.finish(request, kind, recording.due[request] + 0.010 * (request + 1))
    return Measured(Outcomes.of(recording, START), 2.5)


@pytest.fixture
def folder(measured, tmp_path):
    phase = OpenLoopPhase(
        id="t",
        folder=tmp_path / "t",
        protocol="rest",
        seed=1,
        rate=4.0,
        duration_s=2.5,
        limit_ms=115.0,
        max_in_flight=8,
        warm_up="w",
    )
    write_trial(tmp_path, trial_record(phase, target("127.0.0.1:1"), measured, STARTED_AT), measured)
    return tmp_path


def test_the_lead_in_is_not_counted_and_every_arrival_has_one_fate(folder):
    trial = json.loads((folder / "trial.json").read_text())
    assert trial["requests"] == {"scheduled": 10, "sent": 9, "completed": 8, "ok": 7, "dropped": 1}
    assert trial["errors"] == {"http_503": 1, "timeout": 1}
    assert trial["target"] == "pytorch"
    assert (trial["max_in_flight"], trial["in_flight_max"], trial["warm_up"]) == (8, 1, "w")
    assert (trial["slo_p99_ms"], trial["late"]) == (115.0, 3)
    # Right answers took 50, 70, 90, 110, 120, 130 and 140 ms; the slips of the nine sent were 4 to 13 ms without 7.
    assert trial["latency_ms"] == {"p50": 110.0, "p90": 140.0, "p95": 140.0, "p99": 140.0, "p999": 140.0, "max": 140.0}
    assert trial["schedule_slip_ms"] == {"p50": 9.0, "p99": 13.0, "max": 13.0}


def test_the_interval_log_is_read_by_hdrhistogram(folder):
    reader = HistogramLogReader(str(folder / "latency.hlog"), HdrHistogram(1, 60_000_000, 3))
    intervals = []
    while (interval := reader.get_next_interval_histogram()) is not None:
        intervals.append(interval)
    assert [interval.get_total_count() for interval in intervals] == [2, 3, 2]
    assert [interval.get_start_time_stamp() / 1000 - STARTED_AT for interval in intervals] == [0, 1, 2]
    assert intervals[-1].get_end_time_stamp() / 1000 - STARTED_AT == pytest.approx(2.5)
    merged = HdrHistogram(1, 60_000_000, 3)
    for interval in intervals:
        merged.add(interval)
    assert merged.get_value_at_percentile(50) == pytest.approx(110_000, rel=0.001)
    assert merged.get_max_value() == pytest.approx(140_000, rel=0.001)


def test_the_timeline_has_a_row_for_each_second(folder):
    with (folder / "timeline.csv").open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["scheduled"] for row in rows] == ["4", "4", "2"]
    assert [row["sent"] for row in rows] == ["3", "4", "2"]
    assert [row["ok"] for row in rows] == ["2", "3", "2"]
    assert [row["errors"] for row in rows] == ["1", "1", "0"]
    assert [row["max_ms"] for row in rows] == ["70.0", "120.0", "140.0"]
    assert [row["slip_p99_ms"] for row in rows] == ["6.0", "11.0", "13.0"]


def test_a_trial_without_a_right_answer_has_no_latency(tmp_path):
    recording = Recording(np.array([0.0, 0.5]))
    recording.begin(START)
    for request in range(2):
        recording.in_flight += 1
        recording.offered += 1
        recording.sent[request] = recording.due[request]
        recording.finish(request, "connection", recording.due[request] + 0.1)
    measured = Measured(Outcomes.of(recording, START), 1.0)
    phase = OpenLoopPhase(id="t", folder=tmp_path, protocol="grpc", seed=1, rate=2.0, duration_s=1.0)
    record = trial_record(phase, target("127.0.0.1:1"), measured, STARTED_AT)
    assert record.latency_ms == Latency()
    assert record.requests.completed == 0
    assert record.notes == (ServerDied(after_s=0.1, lost=2),)
    write_trial(tmp_path, record, measured)
    assert (tmp_path / "timeline.csv").read_text().splitlines()[1].startswith("0,2,2,0,2,,,,")


def test_kinds_of_error_beyond_the_status_byte_become_other():
    recording = Recording(np.zeros(400))
    for request in range(400):
        recording.in_flight += 1
        recording.finish(request, f"http_{request}", 1.0)
    measured = Measured(Outcomes.of(recording, 0.0), 1.0)
    assert sum(measured.errors.values()) == 400
    assert measured.errors["other"] == 150


def test_connections_that_were_lost_before_others_were_answered_are_no_death(tmp_path):
    recording = Recording(np.array([0.0, 0.5, 1.0]))
    recording.begin(START)
    for request, kind in enumerate((None, "connection", None)):
        recording.in_flight += 1
        recording.offered += 1
        recording.sent[request] = recording.due[request]
        recording.finish(request, kind, recording.due[request] + 0.25)
    measured = Measured(Outcomes.of(recording, START), 1.5)
    phase = OpenLoopPhase(id="t", folder=tmp_path, protocol="grpc", seed=1, rate=2.0, duration_s=1.5)
    record = trial_record(phase, target("127.0.0.1:1"), measured, STARTED_AT)
    assert record.notes == (ConnectionsLost(after_s=0.8, lost=1),)
