"""Prometheus' rules as the Prometheus operator takes them: the same groups, in an object."""

from __future__ import annotations

from pathlib import Path

import yaml

from serving.runtimes.kubernetes.kubectl import NAMESPACE

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "monitoring" / "prometheus" / "rules"
FILE = ROOT / "k8s" / "components" / "prometheus-operator" / "rules.yaml"


def checked_in() -> dict[Path, bytes]:
    """The PrometheusRule of each file in monitoring/prometheus/rules (Kustomize cannot turn a file into an object)."""
    objects = [
        {
            "apiVersion": "monitoring.coreos.com/v1",
            "kind": "PrometheusRule",
            "metadata": {
                "name": f"tandem-{path.stem}",
                "namespace": NAMESPACE,
                "labels": {"app.kubernetes.io/part-of": "tandem", "release": "kube-prometheus-stack"},
            },
            "spec": yaml.safe_load(path.read_text()),
        }
        for path in sorted(RULES.glob("*.yaml"))
    ]
    text = "# Rendered by `make manifests` from monitoring/prometheus/rules/; changes here are lost.\n"
    return {FILE: (text + yaml.safe_dump_all(objects, sort_keys=False, width=120)).encode()}
