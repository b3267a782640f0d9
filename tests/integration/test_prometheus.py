"""The run's own Prometheus, with a real one and a real metrics page."""

import time

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, start_http_server

from loadtest import observation
from models.problem import Problem
from serving import ports
from serving.target import Target
from tests.components import require

ENGINES = {"torchserve": "pytorch", "embedded-tfserving": "tensorflow"}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory):
    require("prometheus")
    running = observation.start(tmp_path_factory.mktemp("prometheus"), ())
    assert running is not None
    yield running
    running.stop()


@pytest.fixture
def page():
    """A metrics page of counters that the test drives."""
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


def test_what_a_server_counts_becomes_figures_of_the_trial(prometheus, page):
    registry, url = page
    latency = Histogram("tandem_batch_latency_seconds", "", buckets=[0.001, 0.002, 0.004], registry=registry)
    images = Histogram("tandem_batch_images", "", buckets=[1, 2, 4, 8], registry=registry)
    queue = Histogram("QueueTime", "", registry=registry)
    prometheus.watch_server(target(url))
    await_value(prometheus, "tandem_batch_images_count")
    started = time.time()
    while (elapsed := time.time() - started) < 4:  # 50 batches of 4 images a second, 1 to 2 ms each
        while images._sum.get() < 4 * 50 * elapsed:
            latency.observe(0.0015)
            images.observe(4)
            queue.observe(3.0)
        time.sleep(0.01)
    trial = {"engine": "torchserve", "started_at": started, "ended_at": time.time()}
    figures = observation.server_figures(prometheus, trial)
    assert figures["throughput"] == pytest.approx(200, rel=0.15)
    assert 1.0 <= figures["latency_ms"]["p50"] <= 2.0
    assert figures["batch_size_mean"] == pytest.approx(4)
    assert figures["queue_ms_mean"] == pytest.approx(3)
    assert figures["source"].startswith("prometheus 2.")


@pytest.mark.parametrize("engine", ENGINES)
def test_every_query_parses_and_says_nothing_where_nothing_was_scraped(prometheus, engine):
    figures = observation.server_figures(prometheus, {"engine": engine, "started_at": 0.0, "ended_at": 6.0})
    assert figures["throughput"] is None
    assert figures["latency_ms"] == {"p50": None, "p99": None}
    assert figures["latency_meaning"]


def test_only_the_server_in_use_is_scraped(prometheus, page):
    registry, url = page
    Counter("first_page", "", registry=registry).inc()
    prometheus.watch_server(target(url))
    await_value(prometheus, "first_page_total")
    prometheus.watch_server(target("http://127.0.0.1:9/metrics"))
    deadline = time.monotonic() + 20
    while prometheus.query('count(up{job="serving", instance!="127.0.0.1:9"})', time.time()) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_query_that_prometheus_refuses_is_named(prometheus):
    with pytest.raises(Problem, match="refused the query rate"):
        prometheus.query("rate(", time.time())
