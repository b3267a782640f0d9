"""What docs/kubernetes.md and docs/operations.md promise is there."""

from __future__ import annotations

import re

import pytest
import yaml

from serving.kubernetes import plan
from serving.kubernetes.settings import folders
from tests.k8s.rendered import K8S, ROOT, Combination, everything

KUBERNETES = (ROOT / "docs" / "kubernetes.md").read_text()
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def test_every_alert_is_explained():
    rules = yaml.safe_load((ROOT / "monitoring/prometheus/rules/alerts.yaml").read_text())
    alerts = {
        (rule["alert"], rule["labels"]["severity"])
        for group in rules["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    explained = set(re.findall(r"\| \[(\w+)\]\(runbooks/\1\.md\) \| (\w+) \|", OPERATIONS))
    assert explained == alerts


def test_every_component_and_overlay_is_named():
    for name in (*folders(K8S / "components"), *folders(K8S / "overlays")):
        assert f"`{name}`" in KUBERNETES, name


@pytest.mark.parametrize(
    ("combination", "row"),
    [
        (Combination("local", ()), "| `local` |"),
        (Combination("cpu", ()), "| `cpu` |"),
        (Combination("cpu", ("loadtest",)), "| `cpu`, `COMPONENTS=loadtest` |"),
        (Combination("gpu", ()), "| `gpu` |"),
    ],
    ids=str,
)
def test_the_cost_of_the_stack_is_what_is_asked_for(combination, row):
    need = plan.demand(everything()[combination])
    gpus = f"{need['nvidia.com/gpu']:g} " if "nvidia.com/gpu" in need else ""
    assert f"{row} {need['cpu']:.1f} | {need['memory'] / 2**30:.1f} GiB | {gpus}|" in OPERATIONS


@pytest.mark.parametrize("target", sorted(set(re.findall(r"make ([a-z-]+)", KUBERNETES + OPERATIONS))))
def test_every_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE), target
