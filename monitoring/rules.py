"""Prometheus' recording rules (from the schema) and alerts (from alerts.toml)."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.schema import Schema, SchemaError

ALERTS = Path(__file__).resolve().parent / "alerts.toml"
SEVERITIES = ("page", "ticket")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_RECORDED = re.compile(r"\b(?:serving|gpu|loadtest):\w+(?::\w+)?")


@dataclass(frozen=True)
class Alert:
    """One alert: `expr` in PromQL on recorded metrics, `wait` how long it must hold, and words for people."""

    name: str
    expr: str
    wait: str
    severity: str
    summary: str
    description: str
    runbook: str

    @property
    def metrics(self) -> frozenset[str]:
        """The recorded metrics that it is about."""
        return frozenset(_RECORDED.findall(self.expr))


def alerts(schema: Schema, path: Path = ALERTS) -> tuple[Alert, ...]:
    """All alerts. Raises `SchemaError` where one names a metric that the schema does not have."""
    values = tomllib.loads(path.read_text())
    places = {"<objective_s>": f"{schema.slo.latency_s:g}", "<budget>": f"{1 - schema.slo.objective:g}"}
    found = []
    for name, one in values["alert"].items():
        expr = " ".join(one["expr"].split())
        for place, value in places.items():
            expr = expr.replace(place, value)
        alert = Alert(
            name=name,
            expr=expr,
            wait=one["for"],
            severity=one["severity"],
            summary=one["summary"],
            description=one["description"],
            runbook=f"{values['runbooks']}/{name}.md",
        )
        if unknown := alert.metrics - set(schema.metrics):
            raise SchemaError(f"{path.name}: {name}: no metric {', '.join(sorted(unknown))} in the schema")
        if alert.severity not in SEVERITIES:
            raise SchemaError(f'{path.name}: {name}: severity "{alert.severity}": use one of {", ".join(SEVERITIES)}')
        found.append(alert)
    return tuple(found)


def recording_rules(schema: Schema, faster: float = 1) -> dict[str, Any]:
    """The content of recording.yaml: a group for each subject, its rules in the schema's order, which Prometheus keeps.

    `faster` divides every range, for tests that cannot wait an hour.
    """
    groups: dict[str, list[dict[str, str]]] = {}
    for metric in schema.metrics.values():
        for dialect in metric.dialects:
            rule = {"record": metric.name, "expr": _faster(metric.expression(dialect), faster)}
            groups.setdefault(metric.subject, []).append(rule)
    return {"groups": [{"name": subject, "rules": rules} for subject, rules in groups.items()]}


def alerting_rules(found: tuple[Alert, ...], faster: float = 1) -> dict[str, Any]:
    """The content of alerts.yaml; `faster` divides every range and wait."""
    rules = [
        {
            "alert": alert.name,
            "expr": _faster(alert.expr, faster),
            "for": _shorter(alert.wait, faster),
            "labels": {"severity": alert.severity},
            "annotations": {
                "summary": alert.summary,
                "description": alert.description,
                "runbook_url": alert.runbook,
            },
        }
        for alert in found
    ]
    return {"groups": [{"name": "alerts", "rules": rules}]}


def _faster(expression: str, faster: float) -> str:
    return re.sub(r"\[(\d+[smhd])\]", lambda found: f"[{_shorter(found[1], faster)}]", expression)


def _shorter(duration: str, faster: float) -> str:
    """A Prometheus duration divided, in whole milliseconds: `1m` twice as fast is `30s`."""
    if faster == 1:
        return duration
    milliseconds = round(int(duration[:-1]) * _SECONDS[duration[-1]] * 1000 / faster)
    return f"{milliseconds}ms"
