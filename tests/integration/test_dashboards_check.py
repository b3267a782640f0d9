"""The check of the dashboards: real servers, real load, a real Prometheus; and what it says where a query is wrong."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from loadtest.bench import dashboards_check
from models.bundle import Bundle
from monitoring.grafana import queries
from monitoring.prometheus_api import PrometheusApi
from serving import ports
from serving.engines import registry
from serving.runtimes.process import prometheus
from tests.components import require, require_program

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
GPU = {"gpu": "0", "UUID": "GPU-1", "device": "nvidia0", "modelName": "NVIDIA H100", "Hostname": "node-1"}


def checked(bundle: Bundle, *arguments: str) -> str:
    """What dashboards-check prints where it finds nothing to complain of."""
    command = [sys.executable, "-m", "loadtest", "dashboards-check", "--bundle", str(bundle.folder), "--seconds", "2"]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_query_of_every_dashboard_has_data_or_a_reason(bundle):
    require("prometheus")
    printed = checked(bundle)
    expected = sum(len(list(queries.of(one))) for one in queries.load())
    assert printed.splitlines()[-1] == f"{expected} queries, 0 failed"
    for dashboard in queries.load():
        assert len(re.findall(rf"{re.escape(dashboard['title'])} .* data ", printed)) >= 5


@pytest.mark.exhaustive
def test_every_query_of_tritons_dashboard_has_data_where_it_runs(bundle):
    """The real tritonserver, beside a TorchServe, as Triton tells no protocol; the third server's is empty."""
    require("prometheus")
    require_program(registry.engine("triton"))
    printed = checked(bundle, "--engines", "torchserve,triton")
    board = next(one for one in queries.load() if one["uid"] == "tandem-triton")
    shown = [line for line in printed.splitlines() if line.strip(" │|").startswith(board["title"])]
    assert [line for line in shown if " data " not in line and not re.search(" namespace | Alerts ", line)] == []
    assert "TensorFlow Serving was not started" in printed


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    """A Prometheus that scrapes a page with the names and labels of NVIDIA's DCGM exporter and has recorded it, and a
    Unix time since which it has."""
    require("prometheus")
    registry = CollectorRegistry()
    for name, value in (
        *(("GPU_UTIL", 93), ("MEM_COPY_UTIL", 40), ("FB_USED", 20480), ("FB_FREE", 61440), ("POWER_USAGE", 310.5)),
        *(("GPU_TEMP", 61), ("SM_CLOCK", 1980), ("XID_ERRORS", 0), ("PCIE_REPLAY_COUNTER", 3)),
    ):
        Gauge(f"DCGM_FI_DEV_{name}", "", list(GPU), registry=registry).labels(**GPU).set(value)
    (port,) = ports.free(1)
    server, thread = start_http_server(port, ports.LOOPBACK, registry)
    scraper = prometheus.start(tmp_path_factory.mktemp("prometheus"), ())
    assert scraper is not None
    scraper.watch_generator(port)
    deadline = time.time() + 30
    while not scraper.series("gpu:memory:ratio and on () count_over_time(up[5s]) > 4", time.time()):
        assert time.time() < deadline
        time.sleep(0.1)
    yield PrometheusApi(scraper.url), time.time() - 1  # scraped twice a second: there are samples since then
    scraper.stop()
    server.shutdown()
    thread.join()


def test_gpu_panels_have_data_where_the_exporter_is_scraped(gpu):
    api, began = gpu
    (board,) = (one for one in queries.load() if one["uid"] == "tandem-gpu")
    outcomes = dashboards_check.check(api, [board], began, time.time() + 2)  # seconds after the rules, as one who looks
    shown = {one.query.name: one.verdict for one in outcomes if re.search("DCGM|gpu:", one.query.expression)}
    assert len(shown) == 9
    assert shown == dict.fromkeys(shown, dashboards_check.PASSED)
    (used,) = api.instant('max by (gpu) (DCGM_FI_DEV_FB_USED{namespace=~".*|"}) * 1048576')
    (share,) = api.instant("gpu:memory:ratio")
    assert (used.samples[0][1], share.samples[0][1]) == (20 * 2**30, 0.25)


@pytest.mark.parametrize(
    ("expression", "verdict", "detail"),
    [
        ("up", dashboards_check.PASSED, "1 series"),
        ("rate(up[", dashboards_check.REFUSED, "parse error"),
        ("nothing_of_that_name", dashboards_check.EMPTY, "nothing_of_that_name"),
        ("up * $modle", dashboards_check.REFUSED, "modle"),
    ],
)
def test_a_query_that_is_wrong_is_found(gpu, expression, verdict, detail):
    api, began = gpu
    (outcome,) = dashboards_check.check(api, [dashboard(expression)], began, time.time())
    assert outcome.verdict == verdict
    assert detail in outcome.detail


def test_a_query_that_shows_only_one_of_two_servers_is_found(gpu):
    api, began = gpu
    board = dashboard('label_replace(up, "server", "torchserve", "", "")')
    for servers, verdict in (
        (["torchserve"], dashboards_check.PASSED),
        (["torchserve", "other"], dashboards_check.EMPTY),
    ):
        (outcome,) = dashboards_check.check(api, [board], began, time.time(), servers)
        assert outcome.verdict == verdict
    assert outcome.detail.startswith("of other: ")


def test_a_query_that_only_one_choice_empties_is_found(gpu):
    api, began = gpu
    job = {"name": "job", "type": "query", "query": {"query": "label_values(up, job)"}, "allValue": ".*"}
    board = dashboard('up{instance=~"$job"}', job)
    choice, panel = dashboards_check.check(api, [board], began, time.time())
    assert (choice.verdict, choice.detail) == (dashboards_check.PASSED, "loadtest")
    assert panel.verdict == dashboards_check.EMPTY
    assert panel.detail.startswith("with job = loadtest: ")


def dashboard(expression: str, *variables: dict) -> dict:
    return {
        "title": "Test",
        "uid": "test",
        "templating": {"list": list(variables)},
        "annotations": {"list": []},
        "panels": [{"type": "timeseries", "title": "Panel", "targets": [{"expr": expression}]}],
    }
