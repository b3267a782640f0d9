"""The tables of docs/monitoring.md that come from the schema and the alerts."""

from __future__ import annotations

import re

from monitoring import rules
from monitoring.schema import Metric, Schema, SchemaError

_PLACE = "<!-- {name}: rendered -->\n{text}<!-- /{name} -->"


def put_in(document: str, schema: Schema) -> str:
    """The document with its tables rendered anew, each between `<!-- name: rendered -->` and `<!-- /name -->`.

    Raises `SchemaError` where it has no such place.
    """
    for name, text in (("metrics", metrics(schema)), ("alerts", alerts(schema))):
        pattern = re.compile(f"<!-- {name}: rendered -->\n.*?<!-- /{name} -->", re.DOTALL)
        if not pattern.search(document):
            raise SchemaError(f"docs/monitoring.md: no place <!-- {name}: rendered --> … <!-- /{name} -->")
        place = _PLACE.format(name=name, text=text)
        document = pattern.sub(place.replace("\\", r"\\"), document)
    return document


def metrics(schema: Schema) -> str:
    """A Markdown table of all recorded metrics."""
    rows = ["| metric | unit | labels | what it says |", "| --- | --- | --- | --- |"]
    for metric in schema.metrics.values():
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        rows.append(f"| `{metric.name}` | {metric.unit} | {labels} | {_words(metric, schema)} |")
    return "\n".join(rows) + "\n"


def alerts(schema: Schema) -> str:
    """A Markdown table of all alerts, each with a link to its runbook."""
    rows = ["| alert | severity | after | it says |", "| --- | --- | --- | --- |"]
    for alert in rules.alerts(schema):
        summary = re.sub(r"{{ \$labels\.(\w+) }}", r"*\1*", alert.summary)
        rows.append(f"| [{alert.name}](runbooks/{alert.name}.md) | {alert.severity} | {alert.wait} | {summary} |")
    return "\n".join(rows) + "\n"


def _words(metric: Metric, schema: Schema) -> str:
    words = [metric.description]
    words += [f"{_title(schema, dialect)}: {text}." for dialect, text in metric.meaning.items()]
    words += [f"{_title(schema, dialect)} cannot tell: {text}." for dialect, text in metric.cannot.items()]
    return " ".join(words).replace("|", "\\|")


def _title(schema: Schema, dialect: str) -> str:
    return schema.dialects[dialect].title.split(",")[0]
