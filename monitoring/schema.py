"""The recorded metrics: names, units, labels, and for each dialect the PromQL that they come from (schema.toml)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

SCHEMA = Path(__file__).resolve().parent / "schema.toml"
WINDOW = "1m"
KINDS = frozenset({"rate", "ratio", "quantile", "mean", "level", "state"})
UNITS = frozenset(
    {"requests/s", "batches/s", "ratio", "seconds", "images", "requests", "processes", "restarts"}
    | {"cores", "bytes", "version", "bool"}
)
_PLACE = re.compile(r"<([a-z_0-9]+|_)(?:\|([a-z_0-9]+))?>")


class SchemaError(ValueError):
    """schema.toml does not fit together; the message names the metric or term at fault."""


@dataclass(frozen=True)
class Dialect:
    """Who a source speaks of: `servers` are the values of the label `server`; empty for what is no server."""

    name: str
    title: str
    servers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Slo:
    """The objective: this share of requests is answered without error within `latency_s` seconds."""

    objective: float
    latency_s: float


@dataclass(frozen=True)
class Metric:
    """One recorded metric.

    name         as recorded, such as "serving:errors:ratio"
    unit         one of `UNITS`; times are seconds, shares are ratios
    kind         one of `KINDS`
    labels       those it has besides `namespace` and `instance`, which come from the scrape configuration
    description  one sentence
    cannot       dialect to the reason why it has no source there
    meaning      dialect to what is particular to its source
    window       the range of its recording rule
    """

    name: str
    unit: str
    kind: str
    labels: tuple[str, ...]
    description: str
    cannot: Mapping[str, str]
    meaning: Mapping[str, str]
    window: str = WINDOW
    quantile: float | None = None
    _sources: Mapping[str, str] = field(default_factory=dict, repr=False)
    _terms: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def dialects(self) -> tuple[str, ...]:
        """The dialects that it has a source in."""
        return tuple(self._sources)

    @property
    def subject(self) -> str:
        """What it is of: "serving", "gpu" or "loadtest"."""
        return self.name.split(":", 1)[0]

    def expression(self, dialect: str, window: str | None = None) -> str:
        """The PromQL that it comes from, over `window` (default: the recording rule's), on one line.

        Raises `KeyError` where the dialect has no source.
        """
        terms = {**self._terms, "window": window or self.window}
        if self.quantile is not None:
            terms["quantile"] = f"{self.quantile:g}"
        return re.sub(r"\s+", " ", _expand(self._sources[dialect], terms, self.name)).strip()


@dataclass(frozen=True)
class Schema:
    """All of schema.toml. `metrics` maps names to metrics, in the order in which their rules must be evaluated."""

    slo: Slo
    dialects: Mapping[str, Dialect]
    metrics: Mapping[str, Metric]

    def dialect_of(self, server: str) -> str:
        """The dialect that a server (a value of the label `server`) speaks. Raises `KeyError` for an unknown one."""
        for dialect in self.dialects.values():
            if server in dialect.servers:
                return dialect.name
        raise KeyError(server)

    @property
    def servers(self) -> tuple[str, ...]:
        """The values that the label `server` can have."""
        return tuple(server for dialect in self.dialects.values() for server in dialect.servers)


@cache
def load(path: Path = SCHEMA) -> Schema:
    """Read and check the schema. Raises `SchemaError`."""
    values = tomllib.loads(path.read_text())
    slo = Slo(**values["slo"])
    dialects = {
        name: Dialect(name, one["title"], tuple(one.get("servers", ()))) for name, one in values["dialect"].items()
    }
    terms = {**values["term"], "objective_s": f"{slo.latency_s:g}", "objective_us": f"{slo.latency_s * 1e6:g}"}
    metrics: dict[str, Metric] = {}
    for name, one in values["metric"].items():
        for metric in _metrics(name, one, terms):
            _check(metric, dialects)
            metrics[metric.name] = metric
    return Schema(slo, dialects, metrics)


def _metrics(name: str, one: Mapping[str, Any], terms: Mapping[str, str]) -> list[Metric]:
    common = {
        "unit": one["unit"],
        "kind": one["kind"],
        "labels": tuple(one["labels"]),
        "cannot": one.get("cannot", {}),
        "meaning": one.get("meaning", {}),
        "window": one.get("window", WINDOW),
        "_sources": one["source"],
        "_terms": terms,
    }
    if "quantiles" not in one:
        return [Metric(name=name, description=one["description"], **common)]
    return [
        Metric(
            name=name.replace("<quantile>", f"p{100 * quantile:g}"),
            description=one["description"].replace("<percent>", f"{100 * quantile:g}"),
            quantile=quantile,
            **common,
        )
        for quantile in one["quantiles"]
    ]


def _check(metric: Metric, dialects: Mapping[str, Dialect]) -> None:
    if metric.unit not in UNITS:
        raise SchemaError(f'{metric.name}: unit "{metric.unit}": use one of {", ".join(sorted(UNITS))}')
    if metric.kind not in KINDS:
        raise SchemaError(f'{metric.name}: kind "{metric.kind}": use one of {", ".join(sorted(KINDS))}')
    for dialect in (*metric.dialects, *metric.cannot, *metric.meaning):
        if dialect not in dialects:
            raise SchemaError(f'{metric.name}: dialect "{dialect}" is not in [dialect]')
    for dialect in metric.dialects:
        metric.expression(dialect)


def _expand(text: str, terms: Mapping[str, str], metric: str) -> str:
    """`text` with its terms written out, to any depth."""

    def replace(found: re.Match[str]) -> str:
        name, argument = found.groups()
        if name not in terms:
            raise SchemaError(f"{metric}: no term <{name}> in [term]")
        inner = {**terms, "_": f"<{argument}>"} if argument else terms
        return _expand(inner[name], inner, metric)

    return _PLACE.sub(replace, text)
