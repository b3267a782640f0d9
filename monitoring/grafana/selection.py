"""PromQL over the schema's metrics, narrowed by the dashboards' variables, and the servers that they compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from monitoring import schema
from monitoring.grafana.measures import Measure

FILTERS = ("namespace", "model", "version", "protocol")
TRIALS = 'phase!="warm-up"'  # the load test's measured phases
# A native label that says what one of the schema's labels says.
_NATIVE_LABELS = {"model": "model_name"}


@dataclass(frozen=True)
class WatchedServer:
    """One side of the comparison: its name, its dashboard's uid, the dialect it speaks, its colour."""

    title: str
    uid: str
    dialect: str
    color: str

    @property
    def pattern(self) -> str:
        """A regular expression of the label `server`."""
        return "|".join(schema.load().dialects[self.dialect].servers)

    @property
    def link(self) -> Mapping[str, object]:
        """A data link to this server's dashboard, with the time range and the choices kept."""
        choices = "&".join(f"${{{name}:queryparam}}" for name in ("datasource", *FILTERS))
        return {"title": f"{self.title} in detail", "url": f"/d/{self.uid}?${{__url_time_range}}&{choices}"}


TORCHSERVE = WatchedServer("TorchServe", "tandem-torchserve", "torchserve", "orange")
TENSORFLOW = WatchedServer("TensorFlow Serving", "tandem-tensorflow-serving", "tensorflow-serving", "blue")
TRITON = WatchedServer("NVIDIA Triton", "tandem-triton", "triton", "green")
SERVERS = (TORCHSERVE, TENSORFLOW, TRITON)


@dataclass(frozen=True)
class Query:
    """A PromQL expression and what its series are called (Grafana's legend format)."""

    expression: str
    legend: str


def series(
    measure: Measure, *labels: str, server: WatchedServer | None = None, matchers: Sequence[str] = (), note: str = ""
) -> Query:
    """One series for each server, protocol and further label that the metric has, over all replicas; `note` is added
    to its name.

    Rates, counts and bytes of replicas are added up; of times, ratios and averages, for which a sum or a mean would
    mean nothing, the largest is shown.
    """
    kept = (*measure.has("server", "protocol"), *labels)
    aggregate = "sum" if measure.adds_up else "max"
    selector = select(measure, *matchers, server=server)
    return Query(f"{aggregate} by ({', '.join(kept)}) ({selector})", legend(*kept, note=note))


def legend(*labels: str, note: str = "") -> str:
    """A legend of labels' values, and a note."""
    return " ".join((*(f"{{{{{label}}}}}" for label in labels), *filter(None, [note])))


def select(
    measure: Measure,
    *matchers: str,
    server: WatchedServer | None = None,
    suffix: str = "",
    filters: Sequence[str] = FILTERS,
) -> str:
    """A selector of the metric's series that match the chosen variables (`filters`); `suffix` is a histogram's
    _bucket, say.

    The empty alternative lets a series without that label through, such as every series of a Prometheus that knows no
    namespaces.
    """
    chosen = []
    for name in filters:
        label = next((one for one in (name, _NATIVE_LABELS.get(name)) if one in ("namespace", *measure.labels)), None)
        if label:
            chosen.append(f'{label}=~"${name}|"')
    if server:
        chosen.insert(0, f'server=~"{server.pattern}"')
    name = measure.name + suffix
    if name.startswith(":"):  # PromQL takes such a name only as a label's value
        return "{" + ", ".join((f'__name__="{name}"', *chosen, *matchers)) + "}"
    return f"{name}{{{', '.join((*chosen, *matchers))}}}"


def rate(selector: str) -> str:
    """A counter's growth a second, over a range that holds enough scrapes."""
    return f"rate({selector}[$__rate_interval])"
