"""Prometheus' configurations: what to scrape, where, and which of its series to keep, for each runtime.

Every target of a server carries the label `server`; the recording rules keep it.
"""

from __future__ import annotations

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


def configuration(runtime: str) -> dict[str, Any]:
    """The content of prometheus.yml for a runtime of `RUNTIMES`; rules lie in rules/ beside it."""
    jobs = {"process": _process, "compose": _compose, "kubernetes": _kubernetes}[runtime]()
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


def _kubernetes() -> list[dict[str, Any]]:
    """Headless services list every ready pod in DNS, so that Prometheus needs no access to Kubernetes' API."""
    namespace = {"target_label": "namespace", "replacement": "tandem"}
    torchserve = [
        {"target_label": "server", "replacement": "torchserve"},
        namespace,
    ]
    tensorflow = [
        {"target_label": "server", "replacement": "tensorflow-serving"},
        {"target_label": "__metrics_path__", "replacement": TENSORFLOW_PATH},
        namespace,
    ]
    return [
        _server({**_dns("torchserve", TORCHSERVE_PORT), "relabel_configs": torchserve}, "torchserve"),
        _server({**_dns("tensorflow-serving", TENSORFLOW_PORT), "relabel_configs": tensorflow}, "tensorflow-serving"),
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
