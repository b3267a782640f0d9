"""Real servers under real load, a real Prometheus and a real Alertmanager: what they say is true, and who is told."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import re
import shutil
import signal
import statistics
import threading
import time
import urllib.request
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
import yaml

from monitoring import render, rules, schema, scrape
from serving import ports, requests
from serving.client import Client
from serving.engines.engine import Ports
from serving.engines.torchserve.handler import LATENCY_BUCKETS
from serving.profile import ServingProfile
from serving.runtimes import answering
from serving.runtimes.process import launch
from serving.runtimes.process.prometheus import Prometheus
from serving.runtimes.process.server_process import ServerProcess
from serving.target import Target
from tests.components import require

pytestmark = pytest.mark.slow

SCHEMA = schema.load()
RECORDED_PAGE = render.ROOT / "tests" / "serving" / "engines" / "embedded_tfserving" / "recordings" / "metrics.txt"
# A queue that is soon full, and long enough that whoever waits in it waits for longer than the objective.
PROFILE = ServingProfile(max_batch_size=8, queue_capacity=400)
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
RATE = 25.0


@pytest.fixture(scope="module")
def servers(bundle, tmp_path_factory) -> Iterator[dict[str, launch.RunningTarget]]:
    with contextlib.ExitStack() as stack:
        yield {
            one: stack.enter_context(launch.start(one, bundle, PROFILE, tmp_path_factory.mktemp(one)))
            for one in ("pytorch", "tensorflow")
        }


def prometheus(folder: Path, faster: float, alertmanager: str | None = None) -> Prometheus:
    """A Prometheus for runs on one machine, with every range and wait of the rules so many times shorter."""
    require("prometheus")
    folder.mkdir(parents=True, exist_ok=True)
    config = scrape.configuration("process")
    config["global"] = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "500ms"}
    if alertmanager:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [alertmanager]}]}]}
    contents = {
        "config": config,
        "recording": rules.recording_rules(SCHEMA, faster),
        "alerts": rules.alerting_rules(rules.alerts(SCHEMA), faster),
    }
    paths = {name: folder / f"{name}.yaml" for name in contents}
    for name, content in contents.items():
        paths[name].write_text(yaml.safe_dump(content))
    binary = shutil.which("prometheus")
    assert binary
    chosen = [paths["recording"], *([paths["alerts"]] if alertmanager else [])]
    return Prometheus(folder / "run", binary, config=paths["config"], rules=chosen)


def await_true(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


# --- alerts ---
FASTER = 40  # an hour of the rules is a minute and a half here


@dataclass(frozen=True)
class Alerting:
    """Prometheus with all rules, forty times as fast, and the Alertmanager that it tells."""

    prometheus: Prometheus
    url: str

    def firing(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The alerts that Alertmanager knows: name and server to the alert."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts", timeout=10) as answer:
            alerts = json.load(answer)
        return {(one["labels"]["alertname"], one["labels"].get("server", "")): one for one in alerts}

    def await_alert(self, name: str, server: str, timeout_s: float) -> dict[str, Any]:
        await_true(lambda: (name, server) in self.firing(), timeout_s, f"{name} of {server} fires")
        return self.firing()[name, server]

    def await_clear(self, name: str, server: str, timeout_s: float) -> None:
        await_true(lambda: (name, server) not in self.firing(), timeout_s, f"{name} of {server} clears")


@pytest.fixture(scope="module")
def alerting(servers, tmp_path_factory) -> Iterator[Alerting]:
    require("prometheus", "alertmanager")
    folder = tmp_path_factory.mktemp("alerting")
    (port,) = ports.free(1)
    address = f"{ports.LOOPBACK}:{port}"
    manager = ServerProcess(
        "Alertmanager",
        [
            "prometheus-alertmanager",
            f"--config.file={render.ROOT / 'monitoring' / 'alertmanager' / 'alertmanager.yaml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
        ],
        folder / "alertmanager.log",
    )
    try:
        manager.wait_until(lambda: answers(f"http://{address}/-/ready"), 20)
        running = prometheus(folder, FASTER, alertmanager=address)
        try:
            running.watch_servers([(one.target, one.process.pid) for one in servers.values()])
            await_true(lambda: running.query("sum(serving:up)", time.time()) == 2, 20, "both servers are up")
            await_true(lambda: running.query("sum(serving:workers)", time.time()) == 1, 20, "the worker is alive")
            yield Alerting(running, f"http://{address}")
        finally:
            running.stop()
    finally:
        manager.stop()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def test_nobody_is_told_while_all_is_well(alerting):
    assert alerting.firing() == {}


def overload(target: Target, image: np.ndarray, in_flight: int, stop: threading.Event) -> None:
    """So many gRPC requests at once, whatever becomes of them, until told to stop."""
    encoded = requests.encode(target, "grpc", image)
    slots = threading.Semaphore(in_flight)
    with grpc.insecure_channel(target.grpc) as channel:
        call = channel.unary_unary(requests.grpc_method(target))
        while not stop.is_set():
            if slots.acquire(timeout=0.1):
                call.future(encoded, timeout=10).add_done_callback(lambda _: slots.release())


def test_overloading_a_server_is_told_and_clears(alerting, servers, bundle):
    with np.load(bundle.reference) as saved:
        image = saved["images"][:1]
    target = servers["pytorch"].target
    stop = threading.Event()
    flood = threading.Thread(target=overload, args=(target, image, 2 * PROFILE.queue_capacity, stop))
    flood.start()
    try:
        for name in ("ServingErrorRatioHigh", "ServingQueueGrowing", "ServingSloBurnRateFast"):
            alert = alerting.await_alert(name, "torchserve", 40)
            assert alert["labels"]["severity"] == "page"
            assert "%" in alert["annotations"]["description"] or name == "ServingQueueGrowing"
            assert "<no value>" not in alert["annotations"]["description"]
        assert not {name for name, server in alerting.firing() if server == "embedded-tfserving"}
    finally:
        stop.set()
        flood.join()
    for name in ("ServingErrorRatioHigh", "ServingQueueGrowing"):
        alerting.await_clear(name, "torchserve", 30)


def test_killing_a_worker_is_told(alerting, servers):
    torchserve = servers["pytorch"]
    [worker] = [
        child
        for child in psutil.Process(torchserve.process.pid).children(recursive=True)
        if any("model_service_worker" in part for part in child.cmdline())
    ]
    os.kill(worker.pid, signal.SIGKILL)
    alert = alerting.await_alert("ServingWorkerRestarting", "torchserve", 60)
    assert alert["labels"]["severity"] == "ticket"
    assert alert["annotations"]["runbook_url"] == "docs/runbooks/ServingWorkerRestarting.md"
    assert "died and were started anew: 1 in the last 10 minutes" in alert["annotations"]["description"]
    await_true(lambda: answering.answers(torchserve.target), 60, "the new worker answers")


# --- agreement ---
@dataclass
class Stream:
    """Requests of one protocol at a fixed rate, and when each ended and how long it took, in seconds."""

    target: Target
    protocol: str
    ended: list[tuple[float, float]] = field(default_factory=list)

    def run(self, image: np.ndarray, stop: threading.Event) -> None:
        encoded = requests.encode(self.target, self.protocol, image)
        with Client(self.target) as client:
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                start = time.perf_counter()
                client.send(self.protocol, encoded)
                self.ended.append((time.time(), time.perf_counter() - start))
                due += 1 / RATE

    def latencies(self, start: float, end: float) -> list[float]:
        return [latency for at, latency in self.ended if start <= at < end]


def bucket(seconds: float) -> int:
    return bisect_left(LATENCY_BUCKETS, seconds)


def disagreements(stream: Stream, running: Prometheus) -> list[str]:
    """Where the recorded metrics of the last 15 s and the client's figures of the same 15 s differ by too much."""
    target = stream.target
    labels = f'server="{target.engine}",model="convnet",version="1",protocol="{stream.protocol}"'

    def recorded(name: str) -> tuple[float, float]:
        """When it was recorded last, and the value."""
        [one] = running.series(f"{name}{{{labels}}}[2s]", time.time())
        return one.samples[-1]

    at, rate = recorded("serving:requests:rate1m")
    end = at - SCHEMA.dialects[SCHEMA.dialect_of(target.engine)].lag_s
    client = stream.latencies(end - 15, end)
    found = []
    for what, value in (("rate", rate), ("goodput", recorded("serving:goodput:rate1m")[1])):
        expected = len(client) / 15 if what == "rate" else sum(one < SCHEMA.slo.latency_s for one in client) / 15
        if value != pytest.approx(expected, rel=0.05):
            found.append(f"{what}: server {value:.2f}/s, client {expected:.2f}/s")
    quantiles = statistics.quantiles(client, n=1000, method="inclusive")
    for name, quantile in QUANTILES.items():
        _, ours = recorded(f"serving:request_latency_seconds:{name}")
        theirs = quantiles[round(1000 * quantile) - 1]
        if abs(bucket(ours) - bucket(theirs)) > 1:
            found.append(f"{name}: server {ours * 1e3:.2f} ms, client {theirs * 1e3:.2f} ms")
    return found


@dataclass(frozen=True)
class Comparison:
    """What came of the same traffic on both servers: by stack and protocol, where recorded metrics and client disagree;
    by server, the metrics recorded and the series kept of its page."""

    disagreements: dict[tuple[str, str], list[str]]
    recorded: dict[str, set[str]]
    kept: dict[str, float | None]


@pytest.fixture(scope="module")
def comparison(servers, replayed, bundle, tmp_path_factory) -> Comparison:
    """25 requests a second for each server and protocol, while Prometheus records with ranges of 15 s (and another one
    watches what is `replayed`, so that both take their time at once).

    Where others starve the machine, the client is delayed after the server's clock has stopped; so there are some
    windows, and they agree where they do in one.
    """
    with np.load(bundle.reference) as saved:
        image = saved["images"][:1]
    streams = [Stream(one.target, protocol) for one in servers.values() for protocol in ("grpc", "rest")]
    running = prometheus(tmp_path_factory.mktemp("prometheus"), faster=4)
    stop = threading.Event()
    threads = [threading.Thread(target=stream.run, args=(image, stop)) for stream in streams]
    try:
        running.watch_servers([(one.target, one.process.pid) for one in servers.values()])
        await_true(
            lambda: running.query('sum(up{server!=""})', time.time()) == 2, 20, "Prometheus scrapes both servers"
        )
        for thread in threads:
            thread.start()
        window = time.time() + 17.5
        differ: dict[tuple[str, str], list[str]] = {}
        for _ in range(5):
            await_true(lambda end=window: time.time() > end, 30, "a window")  # type: ignore[misc]
            for stream in streams:
                if differ.get((stream.target.name, stream.protocol)) != []:
                    differ[stream.target.name, stream.protocol] = disagreements(stream, running)
            if not any(differ.values()):
                break
            window += 6
        now, engines = time.time(), [one.target.engine for one in servers.values()]
        assert all(map(threading.Thread.is_alive, threads))
        return Comparison(
            differ,
            {
                engine: {one.labels["__name__"] for one in running.series(f'{{server="{engine}"}}', now)}
                for engine in engines
            },
            {
                engine: running.query(f'scrape_samples_post_metric_relabeling{{server="{engine}"}}', now)
                for engine in engines
            },
        )
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        running.stop()


@pytest.mark.parametrize("protocol", ["grpc", "rest"])
@pytest.mark.parametrize("stack", ["pytorch", "tensorflow"])
def test_recorded_metrics_agree_with_the_client(comparison, stack, protocol):
    assert comparison.disagreements[stack, protocol] == []


@pytest.mark.parametrize("stack", ["pytorch", "tensorflow"])
def test_every_metric_that_a_server_can_tell_is_recorded(comparison, servers, stack):
    server = servers[stack].target.engine
    told = {SCHEMA.dialect_of(server), "scrape", "process"}
    expected = {one.name for one in SCHEMA.metrics.values() if one.subject == "serving" and told & set(one.dialects)}
    assert expected <= comparison.recorded[server]


def documented_bound(server: str) -> int:
    """How many series of this server's page docs/monitoring.md allows."""
    title = SCHEMA.dialects[SCHEMA.dialect_of(server)].title.split(",")[0]
    text = (render.ROOT / "docs" / "monitoring.md").read_text()
    [bound] = re.findall(rf"^\| {title} \|.*\| (\d+) \|$", text, re.MULTILINE)
    return int(bound)


@pytest.mark.parametrize("stack", ["pytorch", "tensorflow"])
def test_series_of_each_server_stay_within_the_documented_bound(comparison, servers, stack):
    """After both protocols were used; the real TensorFlow Serving's pages are counted with the replay below."""
    server = servers[stack].target.engine
    assert 50 < (comparison.kept[server] or 0) <= documented_bound(server)


# --- the real TensorFlow Serving, replayed ---
class Replay(http.server.ThreadingHTTPServer):
    """The recorded page of a real TensorFlow Serving, growing evenly from nothing to what it was in `seconds`."""

    def __init__(self, page: str, seconds: float) -> None:
        self.lines, self.seconds, self.started = page.splitlines(), seconds, time.time()
        super().__init__(("127.0.0.1", 0), _Page)

    def page(self) -> str:
        share = min(1.0, (time.time() - self.started) / self.seconds)
        return "".join(f"{line}\n" if line.startswith("#") else self._grown(line, share) for line in self.lines)

    @staticmethod
    def _grown(line: str, share: float) -> str:
        name, value = line.rsplit(" ", 1)
        return f"{line}\n" if "saved_model" in name else f"{name} {float(value) * share}\n"


class _Page(http.server.BaseHTTPRequestHandler):
    server: Replay

    def do_GET(self) -> None:
        body = self.server.page().encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def replayed(tmp_path_factory) -> Iterator[tuple[Prometheus, float]]:
    """10 s of recorded traffic on model cnn: 4 gRPC and 4 REST predictions a second, and 0.6 failures, among others.
    Prometheus, and the time at which it has seen most of that."""
    seconds = 10
    replay = Replay(RECORDED_PAGE.read_text(), seconds)
    thread = threading.Thread(target=replay.serve_forever)
    thread.start()
    running = prometheus(tmp_path_factory.mktemp("replay"), faster=10)
    try:
        url = f"http://127.0.0.1:{replay.server_address[1]}/monitoring/prometheus/metrics"
        target = Target("tensorflow", "tensorflow-serving", "2.20", "remote", "cnn", 2, (28, 28, 1), 10, "", "", url)
        running.watch_server(target)
        await_true(lambda: running.query("sum(serving:up)", time.time()) == 1, 20, "Prometheus scrapes the page")
        replay.started = time.time()
        yield running, replay.started + seconds - 1
    finally:
        running.stop()
        replay.shutdown()
        thread.join()
        replay.server_close()


def test_pages_of_the_real_tensorflow_serving_translate_to_what_was_sent(replayed):
    watching, at = replayed
    await_true(lambda: time.time() > at, 20, "10 s")

    def value(name: str, labels: str = "") -> float | None:
        return watching.query(f'{name}{{server="tensorflow-serving"{labels}}}', at)

    of = ',model="cnn",protocol="'
    for protocol in ("grpc", "rest"):
        assert value("serving:requests:rate1m", f'{of}{protocol}"') == pytest.approx(4, rel=0.05)
    assert value("serving:errors:rate1m", ',model="cnn"') == pytest.approx(0.6, rel=0.05)
    assert value("serving:errors:ratio", ',model="cnn"') == pytest.approx(6 / 86, rel=0.02)
    assert value("serving:request_latency_seconds:mean", f'{of}grpc"') == pytest.approx(276_457 / 40 / 1e6, rel=0.02)
    assert value("serving:queue_seconds:mean") == pytest.approx(507_445 / 93 / 1e6, rel=0.02)
    assert value("serving:batch_size:avg") == pytest.approx(98 / 93, rel=0.02)
    assert not watching.series('serving:errors:rate1m{model="nope"}', at)  # a client's typing error
    kept = watching.query("sum(scrape_samples_post_metric_relabeling)", at)
    assert 50 < (kept or 0) <= documented_bound("tensorflow-serving")
    # The quantile by hand, from the recorded buckets.
    page = RECORDED_PAGE.read_text()
    pattern = r'request_latency_bucket\{model_name="cnn",API="Predict",entrypoint="GRPC",le="([^"]+)"\} (\d+)'
    upper = next(float(le) for le, count in re.findall(pattern, page) if int(count) >= 20)
    p50 = value("serving:request_latency_seconds:p50", f'{of}grpc"')
    assert p50 is not None
    assert upper / 1.8 / 1e6 <= p50 <= upper / 1e6


# --- alerts, in the end ---
def test_a_new_worker_and_the_burnt_budget_are_forgotten_in_the_end(alerting):
    """The longer of the two windows that must still burn is half an hour: 45 s here, which others have taken since."""
    alerting.await_clear("ServingWorkerRestarting", "torchserve", 60)
    assert ("ServingNoWorkers", "torchserve") not in alerting.firing()
    alerting.await_clear("ServingSloBurnRateFast", "torchserve", 90)


def test_stopping_a_server_is_told_and_clears(alerting, servers, bundle, tmp_path):
    stopped = servers["tensorflow"]
    engine = stopped.target.engine
    stopped.stop()
    alert = alerting.await_alert("ServingDown", engine, 30)
    assert alert["annotations"]["summary"] == f"{engine} is down"
    assert ("ServingDown", "torchserve") not in alerting.firing()
    grpc_port, rest_port = (int(address.rsplit(":", 1)[1]) for address in (stopped.target.grpc, stopped.target.rest))
    fixed = Ports(rest=rest_port, grpc=grpc_port, metrics=0)
    with launch.start("tensorflow", bundle, PROFILE, tmp_path, fixed_ports=fixed):
        alerting.await_clear("ServingDown", engine, 30)
