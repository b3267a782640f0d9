"""What is rendered is in step with its sources, and Prometheus' and Alertmanager's own tools accept it."""

import re
import shutil

import pytest
import yaml

from monitoring import check, render, rules, schema, scrape
from tests.components import require

FOLDER = render.ROOT / "monitoring" / "prometheus"


def test_rendered_files_are_in_step():
    stale = [str(path) for path in render.out_of_step(schema.load())]
    assert not stale, "run python -m monitoring render"


def test_a_stale_file_is_found_and_written_anew(tmp_path):
    loaded = schema.load()
    everything = render.write(loaded, tmp_path)
    assert not render.out_of_step(loaded, tmp_path)
    (tmp_path / everything[0]).write_text("groups: []\n")
    assert render.write(loaded, tmp_path) == [everything[0]]


def test_prometheus_and_alertmanager_accept_their_files(capsys):
    require("promtool", "amtool")
    assert check.run(), capsys.readouterr().err


def test_a_file_that_prometheus_refuses_fails_the_check(tmp_path, capsys):
    require("promtool")
    shutil.copytree(render.ROOT / "monitoring", tmp_path / "monitoring")
    broken = tmp_path / "monitoring" / "prometheus" / "rules" / "alerts.yaml"
    broken.write_text(broken.read_text().replace("expr: serving:errors:ratio >", "expr: serving:errors:ratio >>"))
    assert not check.run(tmp_path / "monitoring")
    assert "could not parse expression" in capsys.readouterr().err


@pytest.mark.parametrize(("required", "passes"), [("1", False), ("", True)])
def test_a_missing_tool_is_said_and_fails_only_where_all_is_required(monkeypatch, capsys, required, passes):
    monkeypatch.setenv("TANDEM_REQUIRE_ALL", required)
    monkeypatch.setenv("PATH", "/nowhere")
    assert check.run() is passes
    assert "amtool is not installed (apt-get install prometheus-alertmanager)" in capsys.readouterr().err


@pytest.mark.parametrize("runtime", scrape.RUNTIMES)
def test_every_target_of_a_server_says_which(runtime):
    text = (FOLDER / f"{runtime}.yaml").read_text()
    for job in yaml.safe_load(text)["scrape_configs"]:
        if "sample_limit" not in job:
            continue
        static = [labels["labels"]["server"] for labels in job.get("static_configs", [])]
        relabelled = [one["replacement"] for one in job.get("relabel_configs", []) if one["target_label"] == "server"]
        from_files = job.get("file_sd_configs")
        assert from_files or set(static + relabelled) <= set(schema.load().servers)
        assert from_files or static or relabelled


@pytest.mark.parametrize("alert", rules.alerts(schema.load()), ids=lambda alert: alert.name)
def test_every_alert_has_a_runbook_that_says_what_to_do(alert):
    text = (render.ROOT / alert.runbook).read_text()
    assert text.startswith(f"# {alert.name}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == [
        "What it means",
        "Find the cause",
        "What to do",
        "It clears when",
    ]
    assert set(re.findall(r"`((?:serving|gpu|loadtest):[\w:]+)`", text)) <= set(schema.load().metrics)


def test_every_runbook_belongs_to_an_alert():
    names = {alert.name for alert in rules.alerts(schema.load())}
    assert {path.stem for path in (render.ROOT / "docs" / "runbooks").glob("*.md")} == names


def test_rules_can_be_made_faster_for_tests():
    loaded = schema.load()
    rendered = yaml.safe_dump([rules.recording_rules(loaded, 60), rules.alerting_rules(rules.alerts(loaded), 60)])
    assert set(re.findall(r"\[(\w+)\]", rendered)) == {
        *("1000ms", "10000ms", "5000ms", "30000ms", "60000ms", "120000ms", "360000ms", "1440000ms", "4320000ms"),
        "15000ms",
    }
    assert "for: 1000ms" in rendered


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("serving:up) == 0", "serving:down) == 0"), "ServingDown: no metric serving:down in the schema"),
        (('severity = "page"', 'severity = "loud"'), 'ServingDown: severity "loud"'),
    ],
)
def test_a_mistake_in_an_alert_is_named(tmp_path, change, message):
    changed = tmp_path / "alerts.toml"
    changed.write_text(rules.ALERTS.read_text().replace(*change))
    with pytest.raises(schema.SchemaError, match=re.escape(message)):
        rules.alerts(schema.load(), changed)


def test_the_command_line(tmp_path, monkeypatch, capsys):
    from monitoring import __main__ as cli

    monkeypatch.setattr("sys.argv", ["monitoring", "render", "--check"])
    assert cli.main() == 0
    monkeypatch.setattr(render, "out_of_step", lambda _: ["docs/monitoring.md"])
    assert cli.main() == 1
    assert "docs/monitoring.md is out of step: run python -m monitoring render" in capsys.readouterr().err
