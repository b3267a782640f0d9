"""The run's own Prometheus, with a real one and a real metrics page."""

import csv
import os
import re
import subprocess
import sys
import time
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from loadtest.experiment import observation
from loadtest.experiment.records import MedianAndTail, Requests, TrialRecord
from models.problem import Problem
from monitoring import prometheus_api
from serving import ports
from serving.runtimes.process.process_metrics import ProcessMetrics
from serving.target import Target
from tests.components import require

pytestmark = pytest.mark.slow

ENGINES = ("torchserve", "tensorflow-serving", "embedded-tfserving")


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    require("prometheus")
    running = observation.start(tmp_path_factory.mktemp("prometheus"), ())
    assert running is not None
    yield running
    running.stop()


@pytest.fixture(scope="module")
def page():
    """A metrics page of counters that tests drive; one, as Prometheus takes seconds to scrape another."""
    registry = CollectorRegistry()
    (port,) = ports.free(1)
    server, thread = start_http_server(port, "127.0.0.1", registry)
    yield registry, f"http://127.0.0.1:{port}/metrics"
    server.shutdown()
    thread.join()


def target(metrics: str) -> Target:
    return Target("pytorch", "torchserve", "0", "process", "m", 1, (32, 32, 3), 10, "", "", metrics)


def await_value(prometheus, expression):
    deadline = time.monotonic() + 20
    while (value := prometheus.query(expression, time.time())) is None:
        assert time.monotonic() < deadline, expression
        time.sleep(0.1)
    return value


@pytest.fixture
def busy():
    """A child that keeps a CPU busy: this process has pages to serve in the meantime."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as child:
        yield
        child.kill()


@pytest.mark.usefixtures("busy")
def test_what_a_server_counts_becomes_figures_of_the_trial(prometheus, page):
    registry, url = page
    labels = {"model": "m", "version": "1"}
    of = {"labelnames": list(labels), "registry": registry}
    buckets = [0.001, 0.002, 0.004]
    handler = Histogram(
        "tandem_handler_seconds", "", buckets=buckets, labelnames=[*labels, "protocol"], registry=registry
    )
    rest, idle = handler.labels(**labels, protocol="rest"), handler.labels(**labels, protocol="grpc")
    compute = Histogram("tandem_compute_seconds", "", buckets=buckets, **of).labels(**labels)
    images = Histogram("tandem_batch_images", "", buckets=[1, 2, 4, 8], **of).labels(**labels)
    queue = Histogram("QueueTime", "", registry=registry)
    prometheus.watch_server(target(url), os.getpid())
    await_value(prometheus, "tandem_batch_images_count")
    await_value(prometheus, "tandem_process_memory_bytes")
    started = time.time()
    while (elapsed := time.time() - started) < 4:  # 50 batches of 4 requests a second
        while images._sum.get() < 4 * 50 * elapsed:
            for _ in range(4):
                rest.observe(0.0015)
                compute.observe(0.001)
                queue.observe(3.0)
            images.observe(4)
        time.sleep(0.01)
    trial = measured("torchserve", started, time.time())
    time.sleep(observation.SETTLE_S)
    figures = observation.server_figures(prometheus, trial)
    assert idle._sum.get() == 0
    assert figures.throughput == pytest.approx(200, rel=0.15)
    # waits of 3 ms, rounded down, lie between 3 and 6 ms, as TorchServe's buckets have it; 1 to 2 ms in the handler
    assert 4.0 <= (figures.latency_ms.p50 or 0) <= 8.0
    assert figures.latency_ms_mean == pytest.approx(3.5 + 1.5, abs=0.1)
    assert figures.compute_ms_mean == pytest.approx(1, abs=0.1)
    assert figures.batch_size_mean == pytest.approx(4)
    assert figures.queue_ms_mean == pytest.approx(3.5)
    assert figures.source.startswith("prometheus 2.")

    header, *rows = csv.reader(observation.server_timeline(prometheus, trial).splitlines())
    assert header == ["t", "rate", "p50_ms", "p99_ms", "batch_size", "cpu_cores", "memory_bytes"]
    assert [row[0] for row in rows] == [str(t + 1) for t in range(len(rows))]
    assert len(rows) in (4, 5)
    _, rate, p50, p99, batch, cpu, memory = map(float, rows[3])
    assert rate == pytest.approx(200, rel=0.3)
    assert 4.0 <= p50 <= p99 <= 8.0
    assert batch == pytest.approx(4)
    assert 0.1 < cpu < 2
    assert memory > 10e6


def measured(engine: str, started_at: float, ended_at: float) -> TrialRecord:
    return TrialRecord(
        target=engine,
        engine=engine,
        protocol="rest",
        offered_rate=0.0,
        duration_s=ended_at - started_at,
        requests=Requests(),
        started_at=started_at,
        ended_at=ended_at,
    )


def test_the_whole_tree_of_a_server_counts():
    worker = "x = bytearray(80_000_000); print(flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tree:
        assert tree.stdout is not None
        tree.stdout.readline()  # the worker has its memory
        metrics = ProcessMetrics()
        metrics.watch({"torchserve": tree.pid, "gone": 2**22 + 1})
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=10) as answer:
            page = answer.read().decode()
        metrics.stop()
        tree.communicate(b"\n")
    [memory] = re.findall(r'^tandem_process_memory_bytes\{server="torchserve"\} (\S+)$', page, re.MULTILINE)
    assert 80e6 < float(memory) < 200e6
    assert re.search(r'^tandem_process_cpu_seconds_total\{server="torchserve"\} 0\.', page, re.MULTILINE)
    assert "gone" not in page


@pytest.mark.parametrize("engine", ENGINES)
def test_every_query_parses_and_says_nothing_where_nothing_was_scraped(prometheus, engine):
    figures = observation.server_figures(prometheus, measured(engine, 0.0, 6.0))
    assert figures.throughput is None
    assert figures.latency_ms == MedianAndTail()
    assert figures.latency_meaning
    timeline = observation.server_timeline(prometheus, measured(engine, 0.0, 2.0))
    assert timeline.splitlines()[1:] == ["1,,,,,,", "2,,,,,,"]


def test_only_the_server_in_use_is_scraped(prometheus, page):
    registry, url = page
    Counter("first_page", "", registry=registry).inc()
    prometheus.watch_server(target(url))
    await_value(prometheus, "first_page_total")
    prometheus.watch_server(target("http://127.0.0.1:9/metrics"))
    deadline = time.monotonic() + 20
    while prometheus.query('count(up{server!="", instance!="127.0.0.1:9"})', time.time()) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_query_that_prometheus_refuses_is_named(prometheus):
    with pytest.raises(Problem, match="refused the query rate"):
        prometheus.query("rate(", time.time())


def test_its_address_stands_in_its_folder_for_as_long_as_it_is_up(tmp_path):
    require("prometheus")
    running = observation.start(tmp_path, ())
    assert running is not None
    try:
        assert prometheus_api.running_at(tmp_path) == running.url
    finally:
        running.stop()
    assert prometheus_api.running_at(tmp_path) is None
    assert not (tmp_path / "url").exists()
