"""A Prometheus of the run's own: started beside it, asked over its HTTP API for what the servers say of themselves."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from loadtest.run_folder import write_json
from models.problem import Problem
from serving import ports
from serving.process import ServerProcess
from serving.target import Target

CONFIG = Path(__file__).resolve().parent.parent / "monitoring" / "prometheus"


class Prometheus:
    """A running Prometheus; `url` is its HTTP API, `version` its own word."""

    def __init__(self, folder: Path, binary: str, cores: tuple[int, ...]) -> None:
        """Start Prometheus with its data, log and scrape targets in `folder`. Raises `Problem` if it does not come
        up."""
        self._targets = folder / "targets"
        self._targets.mkdir(parents=True, exist_ok=True)
        shutil.copy(CONFIG / "process.yaml", folder / "prometheus.yaml")
        self.version = _version(binary)
        (port,) = ports.free(1)
        self.url = f"http://127.0.0.1:{port}"
        self._process = ServerProcess(
            "Prometheus",
            [
                binary,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--log.level=warn",
            ],
            folder / "prometheus.log",
            cores=cores,
        )
        self._process.wait_until(self._ready, timeout_s=30)

    def watch_server(self, target: Target) -> None:
        """Scrape this server from now on, instead of any earlier one."""
        for path in self._targets.glob("serving-*.json"):
            path.unlink()
        if target.metrics:
            url = urlsplit(target.metrics)
            labels = {"stack": target.stack, "engine": target.engine, "__metrics_path__": url.path}
            write_json(self._targets / f"serving-{target.stack}.json", [{"targets": [url.netloc], "labels": labels}])

    def watch_generator(self, port: int) -> None:
        """Scrape the load generator's exporter."""
        write_json(self._targets / "loadtest.json", [{"targets": [f"127.0.0.1:{port}"]}])

    def query(self, expression: str, at: float) -> float | None:
        """The value of a PromQL expression that yields one sample, at a Unix time; None where it yields nothing."""
        arguments = urllib.parse.urlencode({"query": expression, "time": f"{at:.3f}"})
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/query?{arguments}", timeout=10) as answer:
                result = json.load(answer)["data"]["result"]
        except urllib.error.HTTPError as error:
            raise Problem(f"Prometheus refused the query {expression}: {error.read().decode()[:300]}") from error
        except OSError:
            return None
        value = float(result[0]["value"][1]) if result else math.nan
        return value if math.isfinite(value) else None

    def stop(self) -> None:
        """Stop Prometheus; its data stay in the folder."""
        self._process.stop()

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


# After this many seconds the servers' pages show a trial's last request, and Prometheus has scraped them.
SETTLE_S = 1.3


def start(folder: Path, cores: tuple[int, ...]) -> Prometheus | None:
    """Start Prometheus where it is installed; None where it is not."""
    binary = shutil.which("prometheus")
    return Prometheus(folder, binary, cores) if binary else None


def server_figures(prometheus: Prometheus, trial: Mapping[str, Any]) -> dict[str, Any]:
    """What the server under test says of a trial (`trial`: the values of trial.json), by monitoring's queries.

    Throughput in requests/s, latencies and queue time in milliseconds, batch size in requests; None where the engine
    does not tell.
    """
    # The embedded server speaks TensorFlow Serving's dialect.
    dialect = "torchserve" if trial["engine"] == "torchserve" else "tensorflow-serving"
    queries = tomllib.loads((CONFIG / "queries.toml").read_text())[dialect]
    window = max(2, round(trial["ended_at"] - trial["started_at"]))
    at = trial["ended_at"] + queries["lag_s"]
    values = {
        name: prometheus.query(query.replace("$window", f"{window}s"), at) for name, query in queries["query"].items()
    }
    return {
        "throughput": values.get("throughput"),
        "latency_ms": {"p50": values.get("latency_p50_ms"), "p99": values.get("latency_p99_ms")},
        "latency_meaning": queries["latency_meaning"],
        "batch_size_mean": values.get("batch_size_mean"),
        "queue_ms_mean": values.get("queue_ms_mean"),
        "source": f"prometheus {prometheus.version}",
    }


def _version(binary: str) -> str:
    done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"version (\d[\d.]*)", done.stdout + done.stderr)
    return found[1] if found else "unknown"
