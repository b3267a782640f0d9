"""The recorded metrics: names, units, labels, and for each dialect the PromQL that they come from.

The vocabulary stands in schema.toml; what an engine makes of it in the engine's own folder, in its metrics.toml.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from serving.engines import registry

SCHEMA = Path(__file__).resolve().parent / "schema.toml"
WINDOW = "1m"
KINDS = frozenset({"rate", "ratio", "quantile", "mean", "level", "state"})
UNITS = frozenset(
    {"requests/s", "batches/s", "ratio", "seconds", "images", "requests", "processes", "restarts"}
    | {"cores", "bytes", "version", "bool"}
)
Values = Mapping[str, Any]
NATIVE_TYPES = frozenset({"counter", "gauge", "histogram"})
NATIVE_UNITS = UNITS | frozenset(
    {"batches", "milliseconds", "microseconds", "watts", "celsius", "hertz", "loads", "retries", "code", "alerts"}
)
_PARTS = ("source", "cannot", "meaning")
_PLACE = re.compile(r"<([a-z_0-9]+|_)(?:\|([a-z_0-9]+))?>")


class SchemaError(ValueError):
    """The vocabulary and the engines' dialects do not fit together; the message names the metric or term at fault."""


@dataclass(frozen=True)
class Dialect:
    """Who a source speaks of.

    servers         the values that the label `server` has; empty for what is no server
    answered        selects the counters of predictions answered without error
    lag_s           seconds that the page is behind what the server has answered, on average
    quantiles_of_s  seconds that the page's own quantiles are of, whatever range is asked for; 0: of that range
    """

    name: str
    title: str
    servers: tuple[str, ...] = ()
    answered: str = ""
    lag_s: float = 0.0
    quantiles_of_s: float = 0.0


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
class Native:
    """A series of an engine that dashboards show as it is.

    name     without a histogram's _bucket, _sum and _count
    type     one of `NATIVE_TYPES`
    unit     one of `NATIVE_UNITS`: of its values times `scale`, or of a histogram's bounds as they are
    labels   those worth showing, besides `server`, `namespace` and `instance`
    """

    name: str
    dialect: str
    type: str
    unit: str
    labels: tuple[str, ...]
    description: str
    scale: float = 1.0


@dataclass(frozen=True)
class Schema:
    """The vocabulary and its dialects. `metrics` maps names to metrics, in the order in which their rules must be
    evaluated; `natives` maps names to the series that dashboards show as they are."""

    slo: Slo
    dialects: Mapping[str, Dialect]
    metrics: Mapping[str, Metric]
    natives: Mapping[str, Native] = field(default_factory=dict)

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
    """Read and check the vocabulary and the dialect of every engine of the registry. Raises `SchemaError`."""
    values = tomllib.loads(path.read_text())
    engines = _engine_dialects()
    slo = Slo(**values["slo"])
    terms = {"objective_s": f"{slo.latency_s:g}", "objective_us": f"{slo.latency_s * 1e6:g}"}
    terms["servers"] = "|".join(server for one in engines.values() for server in one["servers"])
    for one in (values, *engines.values()):
        terms |= one["term"]
    own = {name: {**one["dialect"], "servers": one["servers"]} for name, one in engines.items()}
    dialects = {
        name: Dialect(
            name,
            one["title"],
            tuple(one.get("servers", ())),
            _expand(one.get("answered", ""), terms, f"dialect {name}"),
            one.get("lag_s", 0.0),
            one.get("quantiles_of_s", 0.0),
        )
        for name, one in {**own, **values["dialect"]}.items()
    }
    metrics: dict[str, Metric] = {}
    for name, one in _with_engines(values["metric"], engines).items():
        for metric in _metrics(name, one, terms):
            _check(metric, dialects)
            metrics[metric.name] = metric
    natives = {
        name: _native(name, {**one, "dialect": dialect}, dialects)
        for dialect, engine in engines.items()
        for name, one in engine["native"].items()
    }
    natives |= {name: _native(name, one, dialects) for name, one in values["native"].items()}
    return Schema(slo, dialects, metrics, natives)


def _engine_dialects() -> dict[str, Values]:
    """What each engine's file says, by the dialect's name, in the registry's order; `servers`: all that speak it."""
    found: dict[str, Values] = {}
    for engine in registry.all():
        if engine.dialect is None:
            continue
        values = tomllib.loads(engine.dialect.read_text())
        known = {"native": {}, "servers": [], "file": engine.dialect, **values}
        found.setdefault(values["dialect"].pop("name"), known)["servers"].append(engine.id)
    return found


def _with_engines(metrics: Values, engines: Mapping[str, Values]) -> Values:
    """The metrics with the sources, reasons and meanings that engines' files add to them."""
    merged = {name: {**one, **{part: dict(one.get(part, {})) for part in _PARTS}} for name, one in metrics.items()}
    for dialect, engine in engines.items():
        for part in _PARTS:
            for name, text in engine.get(part, {}).items():
                if name not in merged:
                    raise SchemaError(f"{engine['file']}: [{part}] {name}: not a metric of {SCHEMA.name}")
                merged[name][part][dialect] = text
    return merged


def _metrics(name: str, one: Values, terms: Mapping[str, str]) -> list[Metric]:
    common = {
        "unit": one["unit"],
        "kind": one["kind"],
        "labels": tuple(one["labels"]),
        "cannot": one["cannot"],
        "meaning": one["meaning"],
        "window": one.get("window", WINDOW),
        "_sources": one["source"],
        "_terms": terms,
    }
    if "windows" in one:
        return [
            Metric(
                name=name.replace("<window>", window),
                description=one["description"].replace("<window>", window),
                **{**common, "window": window},
            )
            for window in one["windows"]
        ]
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


def _native(name: str, one: Values, dialects: Mapping[str, Dialect]) -> Native:
    known = {"dialect": dialects, "type": NATIVE_TYPES, "unit": NATIVE_UNITS}
    for key, allowed in known.items():
        if one[key] not in allowed:
            raise SchemaError(f'{name}: {key} "{one[key]}": use one of {", ".join(sorted(allowed))}')
    return Native(name=name, **{**one, "labels": tuple(one["labels"])})


def _expand(text: str, terms: Mapping[str, str], metric: str) -> str:
    """`text` with its terms written out, to any depth."""

    def replace(found: re.Match[str]) -> str:
        name, argument = found.groups()
        if name not in terms:
            raise SchemaError(f"{metric}: no term <{name}> in [term]")
        inner = {**terms, "_": f"<{argument}>"} if argument else terms
        return _expand(inner[name], inner, metric)

    return _PLACE.sub(replace, text)
