"""A user with less than all rights: what is needed is named, what is optional left out; the roles in k8s/ suffice."""

from __future__ import annotations

import pytest
import yaml

from models.problem import Problem
from serving.runtimes.kubernetes.kubectl import Cluster
from serving.runtimes.kubernetes.port_forward import PortForward
from tests.k8s import rbac
from tests.k8s.api_server import node
from tests.k8s.rbac import Access, bound, granted
from tests.k8s.rendered import K8S, kustomize

pytestmark = [pytest.mark.slow, pytest.mark.beside]

DEPLOYERS = "tandem-deployers"


def roles(*folders: str) -> list:
    """What an administrator applies, but for the namespaces."""
    return [one for folder in folders for one in yaml.safe_load_all(kustomize(K8S / "access" / folder))]


def namespaces(api, *folders: str) -> None:
    for one in roles(*folders):
        if one["kind"] == "Namespace":
            api.add(one)


@pytest.fixture
def admin():
    """The built-in role admin in the namespace, and leave to make namespaces."""
    return Access([*granted(rbac.ADMIN, "tandem"), *granted(rbac.MAKE_NAMESPACES, "")])


def test_the_built_in_admin_deploys_without_what_it_may_not_have(api, run, admin, capsys):
    api.access = admin
    assert run("deploy") == 0
    told = capsys.readouterr().err
    assert "note: the quota left out: your user may not create resourcequotas in namespace tandem" in told
    assert "left out: your user may not create limitranges in namespace tandem" in told
    assert "the nodes' room was not checked: your user may not list nodes" in told
    assert "storage class was not checked: your user may not list storageclasses" in told
    assert {"torchserve", "tensorflow-serving", "grafana"} <= api.names("deployments")
    assert api.names("resourcequotas") == set()
    assert api.find("namespaces", "tandem")["metadata"]["labels"]["app.kubernetes.io/part-of"] == "tandem"
    assert run("rollout", "--model-version", "1") == 1  # nothing to do, said after reading what is there
    assert "what both servers serve already" in capsys.readouterr().err


def test_a_namespace_of_the_administrators_keeps_its_labels_and_stays(api, run, admin, capsys):
    api.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tandem", "labels": {"team": "vision"}}})
    api.access = admin
    assert run("deploy") == 0
    assert "note: namespace tandem keeps its own labels" in capsys.readouterr().err
    assert api.find("namespaces", "tandem")["metadata"]["labels"] == {"team": "vision"}
    assert run("undeploy") == 0
    assert "your user may not remove namespace tandem" in capsys.readouterr().out
    assert {key[0] for key in api.objects if key[1] == "tandem"} <= {"events"}


def test_what_a_lesser_user_may_not_touch_still_belongs_to_the_deployment(api, run, admin, capsys):
    assert run("deploy") == 0
    assert api.names("resourcequotas") == {"tandem"}
    api.access = admin
    assert run("deploy") == 0
    assert api.names("resourcequotas") == {"tandem"}
    assert "ResourceQuota//tandem" not in (record := api.find("configmaps", "tandem-deployment")["data"]["inventory"])
    assert "ResourceQuota/tandem/tandem" in record


def test_a_reader_sees_the_plan(api, run, capsys):
    assert run("deploy") == 0
    api.writes.clear()
    api.access = Access([*granted(rbac.VIEW, "tandem")])
    capsys.readouterr()
    assert run("plan") == 0
    told = capsys.readouterr()
    assert "note: compared by reading" in told.err
    assert "nothing would change" in told.err, told.out
    assert run("plan", "--set", "max_batch_size=16", "--overlay", "cpu") == 0
    told = capsys.readouterr()
    assert "live Deployment torchserve" in told.out
    assert "-  replicas: 1\n+  replicas: 2" in told.out
    assert "+ ConfigMap torchserve-config-" in told.out
    assert "to apply this: make deploy" in told.err
    assert api.writes == []


def test_a_reader_who_deploys_is_told_what_role_that_takes(api, run, capsys):
    api.add({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tandem", "labels": {}}})
    api.access = Access([*granted(rbac.VIEW, "tandem")])
    assert run("deploy") == 1
    told = capsys.readouterr().err
    assert "may not create, delete, patch deployments.apps in namespace tandem" in told
    assert "k8s/access/needed has the role that a cluster's administrator can apply" in told
    assert "resourcequotas" not in told  # is no reason
    assert api.writes == []


def every_verb(run, next_version) -> None:
    """Each verb, with everything that can be deployed of kinds of objects."""
    components = "autoscaling ingress prometheus-operator"
    assert run("plan") == 0
    assert run("deploy", "--overlay", "cpu", "--components", components) == 0
    assert run("deploy") == 0  # takes away what the components brought
    assert run("plan", "--overlay", "cpu", "--components", components) == 0
    next_version()
    assert run("rollout", "--model-version", "2") == 0
    with pytest.raises(Problem), PortForward(Cluster(), "deployment/torchserve", (7070,)):
        pass  # the stand-in forwards no ports, but it has been asked
    with pytest.raises(Problem), PortForward(Cluster(), "service/prometheus", (9090,)):
        pass


def broken(workload):
    return {"event": "Startup probe failed"} if workload["metadata"]["name"] == "grafana" else None


def test_the_needed_role_is_what_the_verbs_need_and_no_more(api, run, next_version, capsys):
    api.crds = {"monitoring.coreos.com", "gateway.networking.k8s.io"}
    namespaces(api, "needed")
    api.access = Access(bound(roles("needed"), DEPLOYERS))
    every_verb(run, next_version)
    api.fate = broken
    assert run("deploy", "--set", "max_batch_size=16", "--timeout", "0.1") == 1  # events and logs are asked for
    assert "event Failed: Startup probe failed" in capsys.readouterr().err
    api.fate = lambda _: None
    assert run("undeploy") == 0
    assert "your user may not remove namespace tandem" in capsys.readouterr().out
    assert {key[0] for key in api.objects if key[1] == "tandem"} <= {"events"}
    assert api.access.unused() == set()


def test_with_the_optional_roles_nothing_is_left_out(api, run, capsys):
    api.add(node("gpu-1", gpus=8))
    needed = bound(roles("needed"), DEPLOYERS)
    namespaces(api, "needed", "gpu-metrics")
    api.access = Access([*needed, *bound(roles("optional", "gpu-metrics"), DEPLOYERS)])
    api.fate = lambda workload: {"event": "no GPU"} if workload["kind"] == "DaemonSet" else None
    assert run("deploy", "--overlay", "gpu", "--timeout", "0.2") == 0
    assert run("plan", "--overlay", "gpu") == 0
    told = capsys.readouterr().err
    assert "left out" not in told
    assert "not checked" not in told
    api.fate = lambda _: None
    assert run("deploy", "--overlay", "cpu") == 0  # takes away the exporter
    # As make compare does, which asks a server's pod how often its CPU limit stopped it.
    assert Cluster().find("node", "node-1", None)
    pod = next(name for name in api.names("pods") if name.startswith("torchserve-"))
    Cluster().try_run("exec", pod, "--namespace=tandem", "--", "true")
    assert api.access.refused == set()
    api.refused = {("delete", "namespaces")}
    assert run("undeploy") == 0  # empties them
    api.refused = set()
    assert run("deploy", "--overlay", "gpu") == 0
    assert run("undeploy") == 0
    assert api.names("namespaces") == set()
    assert run("deploy", "--overlay", "gpu") == 0  # which makes the namespaces again
    unused = api.access.unused() - set(needed)
    assert unused == set()


def test_gpu_metrics_are_left_out_where_their_namespace_may_not_be_made(api, run, capsys):
    api.add(node("gpu-1", gpus=8))
    namespaces(api, "needed")
    api.access = Access(bound(roles("needed"), DEPLOYERS))
    assert run("deploy", "--overlay", "gpu") == 0
    assert "note: GPU metrics left out: your user may not create" in capsys.readouterr().err
    assert "dcgm-exporter" not in api.names("daemonsets")
    assert api.find("deployments", "torchserve")["spec"]["template"]["spec"]["nodeSelector"]
