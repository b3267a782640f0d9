"""What is shown while a phase runs: slices, progress lines, the Prometheus exporter."""

from __future__ import annotations

import io
import json
import socket
import time
import urllib.request

import gevent
import gevent.threadpool
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from loadtest.generator.exporter import Exporter
from loadtest.generator.live import Reader, SecondLines
from loadtest.generator.recording import Recording
from models.problem import Problem


def finished(recording, request, kind=None, slip=0.001, took=0.020):
    recording.in_flight += 1
    recording.offered = request + 1
    recording.sent[request] = recording.due[request] + slip
    recording.finish(request, kind, recording.due[request] + took)


def test_each_request_is_read_once():
    recording = Recording(np.arange(6) / 10)
    reader = Reader(recording)
    finished(recording, 0)
    finished(recording, 1, "timeout", took=1.0)
    first = reader.read()
    assert (first.offered, first.sent, first.dropped, first.in_flight) == (2, 2, 0, 0)
    assert first.latency_ms == pytest.approx([20.0])
    assert first.failed_ms == pytest.approx([1000.0])
    assert first.errors == {"timeout": 1}
    assert first.slip_ms == pytest.approx([1.0, 1.0])
    recording.drop(2)
    recording.offered = 3
    second = reader.read()
    assert (second.offered, second.sent, second.dropped) == (1, 0, 1)
    assert second.latency_ms.size == second.slip_ms.size == 0
    assert reader.read().offered == 0


def test_a_line_is_printed_for_each_second():
    recording = Recording(np.arange(100) / 50)
    reader, out = Reader(recording), io.StringIO()
    lines = SecondLines("trial-1", out, started=0.0)
    for request in range(100):
        finished(recording, request, "http_503" if request == 3 else None)
        if request % 10 == 9:
            lines.add(reader.read(), now=(request + 1) / 50)
    printed = [json.loads(line) for line in out.getvalue().splitlines()]
    assert printed[0] == {
        "event": "second",
        "id": "trial-1",
        "offered": 50,
        "ok": 49,
        "errors": 1,
        "p50_ms": 20.0,
        "p99_ms": 20.0,
        "in_flight": 0,
    }
    assert [line["ok"] for line in printed] == [49, 50]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_prometheus_reads_what_happened():
    recording = Recording(np.arange(10) / 10)
    exporter, port = Exporter(), free_port()
    tally = exporter.tally("pytorch", "grpc", "open-loop")
    for request in range(8):
        finished(recording, request, "grpc_UNAVAILABLE" if request == 0 else None, slip=0.0002, took=0.004)
    recording.drop(8)
    recording.offered = 9
    tally.add(Reader(recording).read())
    exporter.start(port)
    try:
        pool = gevent.threadpool.ThreadPool(1)
        fetch = pool.spawn(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read())
        text = fetch.get(timeout=10).decode()
    finally:
        exporter.stop()
    labels = {"target": "pytorch", "protocol": "grpc", "phase": "open-loop"}
    samples = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels.items() >= labels.items()
            samples[sample.name, sample.labels.get("le"), sample.labels.get("kind")] = sample.value
    prefix = "tandem_loadtest_"
    assert samples[f"{prefix}offered_requests_total", None, None] == 9
    assert samples[f"{prefix}sent_requests_total", None, None] == 8
    assert samples[f"{prefix}completed_requests_total", None, None] == 7
    assert samples[f"{prefix}dropped_requests_total", None, None] == 1
    assert samples[f"{prefix}failed_requests_total", None, "grpc_UNAVAILABLE"] == 1
    assert samples[f"{prefix}requests_in_flight", None, None] == 0
    assert 0 <= time.time() - samples[f"{prefix}phase_start_time_seconds", None, None] < 60
    assert samples[f"{prefix}latency_seconds_bucket", "0.0025", None] == 0
    assert samples[f"{prefix}latency_seconds_bucket", "0.005", None] == 7
    assert samples[f"{prefix}latency_seconds_count", None, None] == 7
    assert samples[f"{prefix}latency_seconds_sum", None, None] == pytest.approx(0.028)
    assert samples[f"{prefix}schedule_slip_seconds_bucket", "0.00025", None] == 8


def test_a_taken_port_is_a_problem_that_names_it():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(Problem, match=f"exporter_port = {port}"):
            Exporter().start(port)
