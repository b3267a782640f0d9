"""A Prometheus of our own on this machine: started beside the servers, told whom to scrape, asked over its HTTP API."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from models import child_environment, whole_file
from models.problem import Problem
from monitoring.prometheus_api import ADDRESS_FILE, PrometheusApi, QueryRefused, Series, Unreachable
from serving import ports
from serving.runtimes.process import metrics_relay
from serving.runtimes.process.metrics_relay import MetricsRelay
from serving.runtimes.process.process_metrics import ProcessMetrics
from serving.runtimes.process.server_process import ServerProcess
from serving.target import Target

FOLDER = Path(__file__).resolve().parents[3] / "monitoring" / "prometheus"
RECORDING_RULES = FOLDER / "rules" / "recording.yaml"


def start(folder: Path, cores: tuple[int, ...]) -> Prometheus | None:
    """Start Prometheus where it is installed; None where it is not."""
    binary = shutil.which("prometheus")
    return Prometheus(folder, binary, cores) if binary else None


class Prometheus:
    """A running Prometheus; `url` is its HTTP API, `version` its own word."""

    def __init__(
        self,
        folder: Path,
        binary: str,
        cores: tuple[int, ...] = (),
        *,
        config: Path = FOLDER / "process.yaml",
        rules: Sequence[Path] = (RECORDING_RULES,),
        port: int = 0,
    ) -> None:
        """Start Prometheus with its configuration, rules, data, log and scrape targets in `folder`, where the file
        `url` has its address for as long as it is up.

        `port` 0 picks a free one. Raises `Problem` if it does not come up.
        """
        self._targets = folder / "targets"
        self._targets.mkdir(parents=True, exist_ok=True)
        for path in self._targets.glob("*.json"):  # an interrupted run's, which are gone
            path.unlink()
        shutil.copy(config, folder / "prometheus.yaml")
        (folder / "rules").mkdir(exist_ok=True)
        for path in rules:
            shutil.copy(path, folder / "rules")
        self.version = _version(binary)
        port = ports.require_free(port, "Prometheus") if port else ports.free(1)[0]
        self.url = f"http://{ports.LOOPBACK}:{port}"
        self._api = PrometheusApi(self.url)
        self._processes: ProcessMetrics | None = None
        self._relay: MetricsRelay | None = None
        self._process = ServerProcess(
            "Prometheus",
            [
                binary,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={ports.LOOPBACK}:{port}",
                "--log.level=warn",
            ],
            folder / "prometheus.log",
            cores=cores,
        )
        try:
            self._process.wait_until(self._api.ready, timeout_s=30)
        except BaseException:
            self._process.stop()
            raise
        self._address = folder / ADDRESS_FILE
        self._address.write_text(f"{self.url}\n")

    def watch_servers(self, targets: Sequence[tuple[Target, int | None]]) -> None:
        """Scrape these servers from now on, instead of any earlier ones.

        Each target comes with the id of its process, for CPU time and memory of all its processes; None: not known.
        """
        for path in self._targets.glob("serving-*.json"):
            path.unlink()
        for target, _ in targets:
            if target.metrics:
                own = urlsplit(target.metrics)
                url = urlsplit(self._relayed(target)) if metrics_relay.is_needed(target) else own
                labels = {"server": target.engine, "__scheme__": url.scheme, "__metrics_path__": url.path}
                content = {"targets": [url.netloc], "labels": {**labels, "instance": own.netloc}}
                self._write(f"serving-{target.name}.json", [content])
        known = {target.engine: process for target, process in targets if process is not None}
        if known and self._processes is None:
            self._processes = ProcessMetrics()
            self._write("processes.json", [{"targets": [f"{ports.LOOPBACK}:{self._processes.port}"]}])
        if self._processes is not None:
            self._processes.watch(known)

    def _relayed(self, target: Target) -> str:
        """The URL here of a page that Prometheus cannot fetch by itself."""
        if self._relay is None:
            self._relay = MetricsRelay()
        return f"http://{ports.LOOPBACK}:{self._relay.port}{self._relay.add(target)}"

    def watch_server(self, target: Target, process: int | None = None) -> None:
        """Scrape this server alone from now on."""
        self.watch_servers([(target, process)])

    def watch_generator(self, port: int) -> None:
        """Scrape the load generator's exporter."""
        self._write("loadtest.json", [{"targets": [f"{ports.LOOPBACK}:{port}"]}])

    def query(self, expression: str, at: float) -> float | None:
        """The value of a PromQL expression that yields one sample, at a Unix time; None where it yields nothing."""
        found = self.series(expression, at)
        return found[0].samples[-1][1] if found else None

    def series(self, expression: str, at: float) -> list[Series]:
        """All series of a PromQL expression at a Unix time; a range such as `up[5s]` yields all samples in it.

        Empty where there is no finite value, or no answer. Raises `Problem` where Prometheus refuses the expression.
        """
        return self._ask(lambda: self._api.instant(expression, at), expression)

    def range(self, expression: str, start: float, end: float, step_s: float) -> list[Series]:
        """All series of a PromQL expression at `start`, and every `step_s` seconds up to `end`; like `series`."""
        return self._ask(lambda: self._api.range(expression, start, end, step_s), expression)

    def stop(self) -> None:
        """Stop Prometheus; its data stay in the folder."""
        self._address.unlink(missing_ok=True)
        self._process.stop()
        if self._processes is not None:
            self._processes.stop()
        if self._relay is not None:
            self._relay.stop()

    def _ask(self, ask: Callable[[], list[Series]], expression: str) -> list[Series]:
        try:
            return ask()
        except QueryRefused as refusal:
            raise Problem(f"Prometheus refused the query {expression}: {refusal}") from refusal
        except Unreachable:
            return []

    def _write(self, name: str, content: Any) -> None:
        """Prometheus reads it when it likes."""
        whole_file.write_json(self._targets / name, content)


def _version(binary: str) -> str:
    done = subprocess.run(
        [binary, "--version"],
        env=child_environment.measured(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    found = re.search(r"version (\d[\d.]*)", done.stdout + done.stderr)
    return found[1] if found else "unknown"
