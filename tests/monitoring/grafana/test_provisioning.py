"""The provisioning files fit the dashboards, each other, and Grafana's own types."""

from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.models.alerting import ContactPoint, NotificationPolicy

from monitoring.grafana import queries

FOLDER = Path(__file__).resolve().parents[3] / "monitoring" / "grafana" / "provisioning"


def read(name: str):
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yaml")), ids=lambda path: path.name)
def test_every_file_is_in_a_folder_that_grafana_reads_and_of_the_version_that_it_knows(path):
    assert path.parent.name in {"datasources", "dashboards", "alerting"}
    assert yaml.safe_load(path.read_text())["apiVersion"] == 1


def test_the_dashboards_find_their_data_source():
    sources = {one["uid"]: one for one in read("datasources/tandem.yaml")["datasources"]}
    for dashboard in queries.load():
        chosen = next(one for one in dashboard["templating"]["list"] if one["name"] == "datasource")
        assert sources[chosen["current"]["value"]]["type"] == chosen["query"] == "prometheus"
    assert [one["uid"] for one in sources.values() if one.get("isDefault")] == ["prometheus"]
    assert sources["prometheus"]["jsonData"]["alertmanagerUid"] in sources


@pytest.mark.parametrize("deployment", ["compose", "kubernetes"])
def test_grafanas_scrape_interval_is_prometheus_own(deployment):
    (source,) = (one for one in read("datasources/tandem.yaml")["datasources"] if one["type"] == "prometheus")
    config = yaml.safe_load((FOLDER.parents[1] / "prometheus" / f"{deployment}.yaml").read_text())
    assert source["jsonData"]["timeInterval"] == config["global"]["scrape_interval"]


def test_grafana_looks_for_dashboards_where_they_are_mounted():
    (provider,) = read("dashboards/tandem.yaml")["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    assert not provider["allowUiUpdates"]


def test_notifications_go_where_the_data_source_of_alerts_is():
    file = read("alerting/notification.yaml")
    sources = {one["uid"]: one for one in read("datasources/tandem.yaml")["datasources"]}
    (policy,) = (NotificationPolicy.from_json(one) for one in file["policies"])
    (group,) = file["contactPoints"]
    (point,) = (ContactPoint.from_json({"name": group["name"], **one}) for one in group["receivers"])
    assert policy.receiver == group["name"]
    assert str(point.type_val) == "prometheus-alertmanager"
    assert point.settings == {"url": sources["alertmanager"]["url"]}
