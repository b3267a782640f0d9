"""The verbs on a real cluster: the one that KUBECONFIG names, where TANDEM_TEST_CLUSTER=1 says that it may be used.

    TANDEM_TEST_CLUSTER=1 KUBECONFIG=… make test ARGS=tests/k8s/test_real_cluster.py

Everything that a dry run can show needs no images. TANDEM_TEST_REGISTRY names a registry with the images of version 1
(tandem/torchserve, tandem/embedded-tfserving, tandem/loadtest); "" means that the nodes have them.
"""

from __future__ import annotations

import json
import os
import shutil

import pytest

from loadtest.experiment import compare
from loadtest.report import rebuild
from serving.runtimes.kubernetes import __main__ as command_line
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster
from tests.k8s.rendered import COMBINATIONS, everything

pytestmark = pytest.mark.skipif(
    not (os.environ.get("KUBECONFIG") and os.environ.get("TANDEM_TEST_CLUSTER") == "1"),
    reason="no real cluster: set KUBECONFIG and TANDEM_TEST_CLUSTER=1 where namespace tandem may come and go",
)


@pytest.fixture(scope="module")
def cluster():
    found = Cluster()
    assert found.find("namespace", NAMESPACE, None) is None, "something is deployed there already: make undeploy"
    yield found
    for name in (NAMESPACE, "tandem-dcgm"):
        found.try_run("delete", "namespace", name, "--ignore-not-found", "--timeout=300s")


def test_the_api_server_accepts_every_combination(cluster):
    """Admission, validation and Pod Security of a real API server, on what it knows without custom resources."""
    foreign = ("monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1")
    for combination in COMBINATIONS:
        objects = [one for one in everything()[combination] if one["apiVersion"] not in foreign]
        cluster.apply([one for one in objects if one["kind"] == "Namespace"])
        lines = cluster.apply(objects, dry_run=True)
        assert not [line for line in lines if "would violate PodSecurity" in line], combination


@pytest.mark.timeout(1800)
@pytest.mark.skipif("TANDEM_TEST_REGISTRY" not in os.environ, reason="TANDEM_TEST_REGISTRY names no images")
def test_deploy_measure_undeploy(cluster, bundle, tmp_path, capsys):
    cluster.try_run("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=300s")
    artifacts = tmp_path / "artifacts"
    shutil.copytree(bundle.folder.parent, artifacts / bundle.model)
    registry = os.environ["TANDEM_TEST_REGISTRY"]
    arguments = ["--registry", registry, "--embedded", "--no-images", "--artifacts", str(artifacts)]
    assert command_line.main(["deploy", *arguments]) == 0
    assert "wire parity" in capsys.readouterr().err
    run = compare.compare("smoke", {"runtime": "kubernetes"}, artifacts=artifacts, results=tmp_path / "results")
    rebuild.rebuild(run)
    summary = json.loads((run / "summary.json").read_text())
    assert {one["target"] for one in summary["measurements"]} == {"pytorch", "tensorflow"}
    assert command_line.main(["undeploy"]) == 0
    assert cluster.find("namespace", NAMESPACE, None) is None
