"""docs/measurement.md names, for each rule of measurement, the tests that fail when it is broken: they exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from loadtest.experiment.scenarios import SCENARIOS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "measurement.md").read_text()
RULES = dict(re.findall(r"^### (\d+)\. .*\n((?:(?!^##).*\n)*)", PAGE, re.MULTILINE))


def named(text: str) -> list[tuple[str, str]]:
    return re.findall(r"^- `(tests/[\w/]+\.py)::(test_\w+)`$", text, re.MULTILINE)


def test_every_rule_is_there():
    assert list(RULES) == [str(number) for number in range(1, 10)]


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_rule_names_tests_that_exist(rule):
    tests = named(RULES[rule])
    assert tests
    for path, name in tests:
        tree = ast.parse((ROOT / path).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"


def test_every_scenario_is_explained():
    assert [name for name in SCENARIOS if f"| `{name}` |" not in PAGE] == []
