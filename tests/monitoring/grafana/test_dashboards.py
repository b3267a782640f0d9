"""The generated dashboards: in step with their code, whole, and of nothing but the schema's metrics."""

import itertools
import json
import re

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from monitoring import schema
from monitoring.grafana import queries
from monitoring.grafana.__main__ import generated
from monitoring.grafana.selection import SERVERS

DASHBOARDS = {one["uid"]: one for one in queries.load()}
PANELS = [
    pytest.param(panel, id=f"{uid}: {panel['title']}")
    for uid, one in DASHBOARDS.items()
    for panel in queries.panels(one)
]
GRAFANAS_OWN = {"datasource", "__rate_interval", "__url_time_range"}


def test_the_committed_files_are_what_the_code_makes():
    files = {path.name: path.read_text() for path in queries.DASHBOARDS.glob("*.json")}
    assert files == generated(), "run make dashboards"


def test_the_dashboards_that_were_promised():
    assert set(DASHBOARDS) == {
        "tandem-comparison",
        "tandem-torchserve",
        "tandem-tensorflow-serving",
        "tandem-triton",
        "tandem-load-test",
        "tandem-gpu",
    }


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_grafanas_own_types_read_and_write_a_dashboard_without_loss(uid):
    register_default_plugins()
    again = JSONEncoder(sort_keys=True, indent=2).encode(Dashboard.from_json(DASHBOARDS[uid]))
    assert _without_placement(json.loads(again)) == DASHBOARDS[uid]


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_it_shows_in_which_unit_and_when_to_worry(panel):
    defaults = panel["fieldConfig"]["defaults"]
    assert panel["description"].strip().endswith(".")
    assert defaults["unit"]
    assert len(defaults["thresholds"]["steps"]) >= 2
    assert panel["targets"]
    assert [target["refId"] for target in panel["targets"]] == list("ABCDEFGH"[: len(panel["targets"])])
    assert all(target["legendFormat"] for target in panel["targets"])


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_panels_are_numbered_apart_and_do_not_overlap(uid):
    everything = DASHBOARDS[uid]["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    titles = [panel["title"] for panel in everything]
    assert len(set(titles)) == len(titles)
    cells = list(itertools.chain.from_iterable(_cells(panel["gridPos"]) for panel in everything))
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_rows_are_filled_from_side_to_side(uid):
    width: dict[int, int] = {}
    for panel in DASHBOARDS[uid]["panels"]:
        width[panel["gridPos"]["y"]] = width.get(panel["gridPos"]["y"], 0) + panel["gridPos"]["w"]
    assert set(width.values()) == {24}


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_every_variable_is_there_and_used_and_every_one_used_is_there(uid):
    dashboard = DASHBOARDS[uid]
    there = {one["name"] for one in dashboard["templating"]["list"]}
    assert there == {"datasource", "namespace", "model", "version", "protocol"}
    shown = [query.expression for query in queries.of(dashboard) if query.place == "panel"]
    used = set().union(*map(queries.names_in, shown))
    assert used - GRAFANAS_OWN == there - GRAFANAS_OWN
    sources = [target["datasource"]["uid"] for panel in queries.panels(dashboard) for target in panel["targets"]]
    assert set(sources) == {"${datasource}"}


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_links_lead_to_dashboards_that_exist(uid):
    dashboard = DASHBOARDS[uid]
    assert [link["tags"] for link in dashboard["links"]] == [["tandem"]]
    assert all(dashboard["links"][0]["tags"][0] in other["tags"] for other in DASHBOARDS.values())
    for url in re.findall(r'"url": "([^"]+)"', json.dumps(dashboard)):
        target, _, arguments = url.removeprefix("/d/").partition("?")
        assert target in DASHBOARDS
        assert queries.names_in(arguments) - GRAFANAS_OWN <= {"namespace", "model", "version", "protocol"}


@pytest.mark.parametrize("uid", DASHBOARDS)
def test_queries_name_metrics_of_the_schema_alone(uid):
    known = schema.load()
    for query in queries.of(DASHBOARDS[uid]):
        selectors = re.findall(r'([a-zA-Z_:][\w:]*)\{(?:__name__="([^"]+)")?|\{__name__="([^"]+)"', query.expression)
        names = {re.sub(r"_(bucket|sum|count)$", "", name) for name in itertools.chain(*selectors) if name}
        assert names, query
        for name in names:
            whole = next((one for one in (name, f"{name}_count") if one in known.natives), None)
            assert name in known.metrics or whole, f"{name} in {query}"


def test_the_comparison_has_all_servers_side_by_side_on_every_row():
    panels = {panel["title"]: panel for panel in queries.panels(DASHBOARDS["tandem-comparison"])}
    subjects = [title.removesuffix(": together") for title in panels if title.endswith(": together")]
    assert subjects == [
        *("Request rate", "Goodput", "Latency p50", "Latency p95", "Latency p99", "Errors", "Batch size"),
        *("Queue", "Saturation", "In flight", "CPU", "Memory"),
    ]
    for subject in subjects:
        values, lines = panels[f"{subject}: each"], panels[f"{subject}: together"]
        assert values["gridPos"]["y"] == lines["gridPos"]["y"]
        # One value for each server that is there: of none that is not, not even an empty one.
        (query,) = values["targets"]
        assert "server=" not in query["expr"]
        assert query["legendFormat"].startswith("{{server}}")


def test_a_click_on_a_servers_value_or_line_leads_to_its_dashboard():
    panels = {panel["title"]: panel for panel in queries.panels(DASHBOARDS["tandem-comparison"])}
    for server in SERVERS:
        for title in ("Request rate: each", "Request rate: together"):
            links = [
                link["url"]
                for override in panels[title]["fieldConfig"]["overrides"]
                if override["matcher"]["options"] == f"/^({server.pattern})/"
                for part in override["properties"]
                if part["id"] == "links"
                for link in part["value"]
            ]
            assert [link.split("?")[0] for link in links] == [f"/d/{server.uid}"]


def test_trials_are_marked_on_every_dashboard():
    for dashboard in DASHBOARDS.values():
        marks = {one["name"]: one for one in dashboard["annotations"]["list"]}
        assert set(marks) == {"Trials", "Trial starts", "Alerts"}
        assert marks["Trial starts"]["useValueForTime"]


def test_what_may_be_empty_is_there_and_explained():
    everything = {(query.uid, query.name) for one in DASHBOARDS.values() for query in queries.of(one)}
    for (uid, name), reason in queries.may_be_empty().items():
        assert (uid, name) in everything or (uid == "*" and name in {known for _, known in everything}), (uid, name)
        assert len(reason) > 20


@pytest.mark.parametrize(
    ("expression", "filled"),
    [
        ('up{model=~"$model|"}', 'up{model=~".*|"}'),
        ("rate(x[$__rate_interval])", "rate(x[20s])"),
        ("${model}-${model:regex}", ".*-.*"),
    ],
)
def test_variables_are_filled_in_as_grafana_does(expression, filled):
    assert queries.filled(expression, {"model": ".*", "__rate_interval": "20s"}) == filled


def test_an_unknown_variable_is_named():
    with pytest.raises(KeyError, match="modle"):
        queries.filled("up{$modle}", {"model": ".*"})


def _cells(grid):
    return itertools.product(range(grid["x"], grid["x"] + grid["w"]), range(grid["y"], grid["y"] + grid["h"]))


def _without_placement(dashboard):
    """Without what the types add on reading and the code takes away: where Grafana's menu has links and annotations."""
    for one in (*dashboard["links"], *dashboard["annotations"]["list"]):
        one.pop("placement", None)
    return dashboard
