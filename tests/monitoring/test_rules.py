"""Every recording rule and alert, in Prometheus' own unit tests (monitoring/prometheus/tests/)."""

import re
import subprocess

import pytest
import yaml

from monitoring import render, rules, schema
from tests.components import require

FOLDER = render.ROOT / "monitoring" / "prometheus"
TESTS = sorted((FOLDER / "tests").glob("*.yaml"))
SCHEMA = schema.load()


def promtool_test(path) -> str:
    require("promtool")
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def expectations(name: str) -> list[tuple[str, bool]]:
    """Of a file: each expression asked for, and whether something is expected."""
    cases = yaml.safe_load((FOLDER / "tests" / f"{name}.yaml").read_text())["tests"]
    return [(one["expr"], bool(one["exp_samples"])) for case in cases for one in case["promql_expr_test"]]


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path):
    assert not promtool_test(path)


SOURCES = [(metric.name, dialect) for metric in SCHEMA.metrics.values() for dialect in metric.dialects]


@pytest.mark.parametrize(("name", "dialect"), SOURCES)
def test_every_source_of_every_metric_has_a_test_with_values(name, dialect):
    asked = [expression for expression, found in expectations(dialect) if found]
    assert any(re.search(rf"{re.escape(name)}(?![\w:])", expression) for expression in asked)


def test_no_rule_makes_something_of_nothing(tmp_path):
    """Without a single series of its dialect, a rule records nothing: no zero that looks like a healthy server."""
    nothing = {
        "rule_files": [str(FOLDER / "rules" / "recording.yaml"), str(FOLDER / "rules" / "alerts.yaml")],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": "15s",
                "input_series": [{"series": "unrelated", "values": "1x40"}],
                "promql_expr_test": [
                    {"expr": expression, "eval_time": "5m", "exp_samples": []}
                    for expression in [*SCHEMA.metrics, "ALERTS"]
                ],
            }
        ],
    }
    (tmp_path / "nothing.yaml").write_text(yaml.safe_dump(nothing))
    assert not promtool_test(tmp_path / "nothing.yaml")


@pytest.mark.parametrize("fires", [True, False])
@pytest.mark.parametrize("alert", [alert.name for alert in rules.alerts(SCHEMA)])
def test_every_alert_is_tested_firing_and_not_firing(alert, fires):
    assert (f'ALERTS{{alertname="{alert}",alertstate="firing"}}', fires) in expectations("alerts")


def test_a_wrong_rule_fails_its_test(tmp_path):
    """The tests are able to fail: minutes instead of seconds, say."""
    broken = (FOLDER / "rules" / "recording.yaml").read_text().replace("/ 100", "/ 60")
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "recording.yaml").write_text(broken)
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "dcgm.yaml").write_text((FOLDER / "tests" / "dcgm.yaml").read_text())
    assert "gpu:utilisation:ratio" in promtool_test(tmp_path / "tests" / "dcgm.yaml")
