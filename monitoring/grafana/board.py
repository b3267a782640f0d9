"""A dashboard from its rows: what all dashboards share (variables, annotations, links) stands here once."""

from __future__ import annotations

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from monitoring.grafana.measures import native, recorded
from monitoring.grafana.panels import DATA_SOURCE, Panel
from monitoring.grafana.selection import FILTERS, TRIALS, legend, select

TAG = "tandem"
# Where each variable's values come from, and what it means.
_CHOICES = {
    "namespace": ("serving:up", "Kubernetes namespace or Compose project; empty on one machine"),
    "model": ("serving:requests:rate1m", "Name of the model"),
    "version": ("serving:requests:rate1m", "Version of the model"),
    "protocol": ("serving:requests:rate1m", "How clients call: grpc or rest"),
}


class Row:
    """A titled row of panels, which fill its width."""

    def __init__(self, title: str, *panels: Panel) -> None:
        self.title, self.panels = title, panels


def build(uid: str, title: str, description: str, rows: Sequence[Row]) -> Dashboard:
    """The dashboard; panels are numbered in their order."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .readonly()
        .time("now-30m", "now")
        .refresh("10s")
        .timezone("browser")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Tandem")
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .include_vars(True)
            .keep_time(True)
        )
        .variables([_data_source(), *(_choice(name) for name in FILTERS)])
        .annotations([_trials(), _trial_starts(), _alerts()])
    )
    number = 0
    for row in rows:
        number += 1
        board.with_row(dashboard.Row(row.title).id(number))
        for panel in row.panels:
            number += 1
            board.with_panel(panel.id(number))
    built = board.build()
    for one in (*(built.links or ()), *(built.annotations.list_val or ())):
        one.placement = None  # the SDK would hide both in a menu of newer Grafanas
    return built


def _data_source() -> dashboard.DatasourceVariable:
    return (
        dashboard.DatasourceVariable("datasource")
        .label("Data source")
        .description("The Prometheus that scrapes the servers")
        .type("prometheus")
        .current(VariableOption(selected=True, text="Prometheus", value="prometheus"))
    )


def _choice(name: str) -> dashboard.QueryVariable:
    """Any number of a label's values, and all at first; narrowed by the variables before it."""
    metric, description = _CHOICES[name]
    before = FILTERS[: FILTERS.index(name)]
    query = f"label_values({select(recorded(metric), filters=before)}, {name})"
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .description(description)
        .datasource(DATA_SOURCE)
        .query({"query": query, "refId": name})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _trials() -> dashboard.AnnotationQuery:
    """The times at which requests of trials are due. Grafana joins neighbouring marks to one band."""
    offered = select(native("tandem_loadtest_offered_requests_total"), TRIALS)
    expression = f"group by (target, protocol) (increase({offered}[15s]) > 0)"
    return _mark("Trials", "blue", expression, "Trials", legend("target", "protocol"), "target,protocol")


def _trial_starts() -> dashboard.AnnotationQuery:
    """Each trial's start, to the millisecond: the series' value says when, so a scrape later marks the same time."""
    started = select(native("tandem_loadtest_phase_start_time_seconds"), TRIALS)
    expression = f"1000 * max by (target, protocol, phase) ({started})"
    labels = ("target", "protocol", "phase")
    mark = _mark("Trial starts", "purple", expression, "Trial begins", legend(*labels), ",".join(labels))
    return mark.use_value_for_time(True)


def _alerts() -> dashboard.AnnotationQuery:
    firing = select(native("ALERTS"), 'alertstate="firing"')
    expression = f"group by (alertname, severity, server) ({firing})"
    return _mark("Alerts", "red", expression, "{{alertname}}", legend("server"), "severity")


def _mark(name: str, color: str, expression: str, title: str, text: str, tags: str) -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name(name)
        .datasource(DATA_SOURCE)
        .enable(True)
        .icon_color(color)
        .expr(expression)
        .step("5s")
        .title_format(title)
        .text_format(text)
        .tag_keys(tags)
    )
