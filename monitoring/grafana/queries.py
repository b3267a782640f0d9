"""Every query that the dashboards send to Prometheus, read from the files that Grafana reads."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DASHBOARDS = Path(__file__).resolve().parent / "dashboards"
MAY_BE_EMPTY = Path(__file__).resolve().parent / "may_be_empty.toml"
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.+),\s*(?P<label>\w+)\s*\)")
# Grafana writes a variable as $name, ${name} or ${name:format}.
VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)(?::\w+)?\})")


@dataclass(frozen=True)
class DashboardQuery:
    """A query and where it stands.

    dashboard   title of the dashboard; uid: its uid
    place       "panel", "variable" or "annotation"; name: the panel's title, the variable's or the annotation's name
    expression  PromQL, or label_values(selector, label) of a variable, with Grafana's variables in it
    """

    dashboard: str
    uid: str
    place: str
    name: str
    expression: str


def load(folder: Path = DASHBOARDS) -> list[dict[str, Any]]:
    """The generated dashboards, in the order of their files' names."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def panels(dashboard: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels but rows, also those inside collapsed rows."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panel.get("panels") or ()
        else:
            yield panel


def of(dashboard: Mapping[str, Any]) -> Iterator[DashboardQuery]:
    """Every query of one dashboard: of its variables, its annotations and its panels."""

    def query(place: str, name: str, expression: str) -> DashboardQuery:
        return DashboardQuery(dashboard["title"], dashboard["uid"], place, name, expression)

    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            asked = variable["query"]
            yield query("variable", variable["name"], asked if isinstance(asked, str) else asked["query"])
    for annotation in dashboard["annotations"]["list"]:
        if annotation.get("expr"):
            yield query("annotation", annotation["name"], annotation["expr"])
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            yield query("panel", panel["title"], target["expr"])


def variables(dashboard: Mapping[str, Any]) -> dict[str, str]:
    """Each query variable's name and the value that it has while "All" is chosen."""
    return {one["name"]: one["allValue"] for one in dashboard["templating"]["list"] if one["type"] == "query"}


def names_in(expression: str) -> set[str]:
    """The variables in an expression, Grafana's own ($__interval, ...) included."""
    return {plain or braced for plain, braced in VARIABLE.findall(expression)}


def filled(expression: str, values: Mapping[str, str]) -> str:
    """An expression with its variables replaced, as Grafana would. Raises KeyError for one that has no value."""
    return VARIABLE.sub(lambda found: values[found[1] or found[2]], expression)


def label_values(expression: str) -> tuple[str, str]:
    """Selector and label of a variable's query. Raises ValueError where it is none."""
    found = LABEL_VALUES.fullmatch(expression)
    if not found:
        raise ValueError(f"no label_values(selector, label): {expression}")
    return found["selector"], found["label"]


def may_be_empty() -> dict[tuple[str, str], str]:
    """(dashboard's uid or "*", panel's title or variable's or annotation's name) to why it may yield nothing."""
    entries = tomllib.loads(MAY_BE_EMPTY.read_text()).get("empty", ())
    return {(one["dashboard"], name): one["why"] for one in entries for name in one["names"]}
