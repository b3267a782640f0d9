"""Prometheus' configurations: what to scrape, where, and which of its series to keep, for each runtime.

Every target of a server carries the label `server`; the recording rules keep it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

RUNTIMES = ("process", "compose", "kubernetes")
TORCHSERVE_PORT, TORCHSERVE_PATH = 8082, "/metrics"
TENSORFLOW_PORT, TENSORFLOW_PATH = 8501, "/monitoring/prometheus/metrics"
LOADTEST_PORT, DCGM_PORT, CADVISOR_PORT = 9646, 9400, 8080
ALERTMANAGER = "alertmanager:9093"

# A page that grows beyond this is cut off as a whole, and serving:up says so, before it costs Prometheus its memory.
SAMPLE_LIMIT = 1000

# TensorFlow Serving promises the families of the first line; it has some 150 more. TorchServe's histograms have bounds
# for seconds though their values are whole milliseconds: those below 1 say nothing.
KEEP = (
    {"source_labels": ["__name__"], "regex": ":tensorflow:(cc:saved_model:load_attempt_count|serving:.*)|[^:].*"},
    {"source_labels": ["__name__", "le"], "regex": r"QueueTime_bucket;0\.(01|025|05|075|1|25|5|75)"},
    {
        "source_labels": ["__name__"],
        "regex": "WorkerThreadTime_.*|:tensorflow:serving:(mlmd_map|batching_session:padding_size.*)",
    },
)
_ACTIONS = ("keep", "drop", "drop")


@dataclass(frozen=True)
class Server:
    """A server on Kubernetes: its headless Service's name, which the label `server` gets, and its page."""

    name: str
    port: int
    path: str


def configuration(runtime: str, further: Sequence[Server] = ()) -> dict[str, Any]:
    """The content of prometheus.yml for a runtime of `RUNTIMES`, on Kubernetes with ``further`` servers; rules lie in
    rules/ beside it."""
    jobs = _kubernetes(further) if runtime == "kubernetes" else {"process": _process, "compose": _compose}[runtime]()
    # In a run, trials last seconds and a rate needs two samples.
    interval = "500ms" if runtime == "process" else "5s"
    config: dict[str, Any] = {
        "global": {
            "scrape_interval": interval,
            "scrape_timeout": "500ms" if runtime == "process" else "4s",
            "evaluation_interval": "5s",
        },
        "rule_files": ["rules/*.yaml"],
    }
    if runtime != "process":
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [ALERTMANAGER]}]}]}
    return {**config, "scrape_configs": jobs}


def _process() -> list[dict[str, Any]]:
    """Targets come from files, which Prometheus notices without a restart; `server` stands in them."""
    return [
        _server({"file_sd_configs": [{"files": ["targets/serving-*.json"]}]}),
        {"job_name": "processes", "file_sd_configs": [{"files": ["targets/processes.json"]}]},
        {"job_name": "loadtest", "file_sd_configs": [{"files": ["targets/loadtest.json"]}]},
    ]


def _compose() -> list[dict[str, Any]]:
    """`make up` writes which servers there are. The rest is asked of DNS, and absent where its service does not run."""
    return [
        _server({"file_sd_configs": [{"files": ["/targets/serving.json"]}]}),
        _named("loadtest", LOADTEST_PORT),
        _named("cadvisor", CADVISOR_PORT),
        _named("dcgm-exporter", DCGM_PORT),
    ]


def _kubernetes(further: Sequence[Server]) -> list[dict[str, Any]]:
    """Headless services list every ready pod in DNS, so that Prometheus needs no access to Kubernetes' API."""
    namespace = {"target_label": "namespace", "replacement": "tandem"}
    servers = (
        Server("torchserve", TORCHSERVE_PORT, TORCHSERVE_PATH),
        Server("tensorflow-serving", TENSORFLOW_PORT, TENSORFLOW_PATH),
        *further,
    )
    return [
        *(
            _server({**_dns(one.name, one.port), "relabel_configs": [*_relabelled(one), namespace]}, one.name)
            for one in servers
        ),
        {**_named("loadtest", LOADTEST_PORT, "locust-master"), "relabel_configs": [namespace]},
        _named("dcgm-exporter", DCGM_PORT, "dcgm-exporter.tandem-dcgm"),
    ]


def _server(discovery: dict[str, Any], name: str = "serving") -> dict[str, Any]:
    keep = [{**rule, "action": action} for rule, action in zip(KEEP, _ACTIONS, strict=True)]
    return {"job_name": name, "sample_limit": SAMPLE_LIMIT, **discovery, "metric_relabel_configs": keep}


def _named(job: str, port: int, host: str | None = None) -> dict[str, Any]:
    return {"job_name": job, **_dns(host or job, port)}


def _dns(host: str, port: int) -> dict[str, Any]:
    return {"dns_sd_configs": [{"names": [host], "type": "A", "port": port, "refresh_interval": "5s"}]}


def _relabelled(server: Server) -> list[dict[str, Any]]:
    path = [{"target_label": "__metrics_path__", "replacement": server.path}] if server.path != "/metrics" else []
    return [{"target_label": "server", "replacement": server.name}, *path]
