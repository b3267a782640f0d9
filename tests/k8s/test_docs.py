"""What docs/kubernetes.md and docs/operations.md promise is there."""

from __future__ import annotations

import os
import re
import shutil

import pytest
import yaml

from serving.runtimes.containers import images, wheels
from serving.runtimes.kubernetes import __main__ as command_line
from serving.runtimes.kubernetes import plan, rollout
from serving.runtimes.kubernetes.settings import folders
from tests.k8s.api_server import ApiServer, serving
from tests.k8s.rendered import K8S, ROOT, Combination, everything, with_triton

pytestmark = [pytest.mark.slow, pytest.mark.beside]

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
        (with_triton("cpu"), "| `cpu`, `ENGINES=torchserve,tensorflow-serving,triton` |"),
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


def program(path, script: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def lines(text: str) -> list[str]:
    """The lines, but for what differs from run to run: seconds, versions, classes, differences."""
    text = re.sub(r"\(\d+ s\)", "(… s)", text)
    text = re.sub(r"Kubernetes v[\d.]+|is class '[^']*'|difference \d\.\de-\d+", "…", text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def test_the_documented_deploy_is_what_the_verb_prints(forwarding, bundle, tmp_path, monkeypatch, capsys):
    """Real servers, kubectl and manifests; docker and kind say yes to everything (tests/docker has the real engine)."""
    program(tmp_path / "bin" / "kind", "exit 0")
    program(tmp_path / "bin" / "docker", 'case "$1" in version) echo amd64 ;; build) cat >/dev/null ;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(wheels, "fetch", lambda *_: None)
    monkeypatch.setattr(images, "_context", lambda *_: {})
    monkeypatch.setattr(command_line, "RENDERED", tmp_path / "rendered")
    monkeypatch.setattr(rollout, "POLL_S", 0.05)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(bundle.folder.parent, tmp_path / "artifacts" / bundle.model)
    api = ApiServer()
    api.slow = True
    with serving(api, tmp_path / "kubeconfig", "kind-tandem"):
        assert command_line.main(["deploy", "--overlay", "local"]) == 0
    told = capsys.readouterr()
    documented = re.search(r"    make deploy OVERLAY=local\n\n((?:    .*\n|\n)+)", KUBERNETES)
    assert documented
    assert lines(documented[1]) == lines(told.err + told.out)
