"""Prometheus' configuration where a component brings an engine that is not in every overlay: with that one's job."""

from __future__ import annotations

from pathlib import Path

import yaml

from monitoring import scrape
from serving.engines.engine import Engine
from serving.runtimes.containers.servers import container_of
from serving.runtimes.kubernetes.servers import deployment_of, optional

COMPONENTS = Path(__file__).resolve().parents[3] / "k8s" / "components"
HEAD = "# Rendered by `make manifests` from monitoring/scrape.py; changes here are lost.\n"


def checked_in() -> dict[Path, bytes]:
    """The file in each such component's folder, in the place of the one of every overlay."""
    return {COMPONENTS / deployment_of(one).component / "prometheus.yml": _configuration(one) for one in optional()}


def _configuration(engine: Engine) -> bytes:
    server = scrape.Server(deployment_of(engine).name, container_of(engine).ports.metrics, engine.metrics_path)
    content = scrape.configuration("kubernetes", [server])
    return (HEAD + yaml.safe_dump(content, sort_keys=False, width=120, allow_unicode=True)).encode()
