"""The servers of a run in the cluster: which pod each one is, where it runs and with what, and whether it is what the
experiment is of. Real servers answer; the stand-in of the API server has their pods."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import pytest

from loadtest.experiment import file as experiments
from loadtest.experiment.file import Experiment
from loadtest.experiment.records import Node, NotReadable, Throttling, Unread
from loadtest.experiment.run_folder import RunFolder
from loadtest.experiment.runtimes import kubernetes
from loadtest.experiment.runtimes.kubernetes import KubernetesTargets
from loadtest.report import conditions, warning_words
from models.problem import Problem
from serving.profile import ServingProfile
from serving.replaced import Replaced, Successor
from serving.runtimes.kubernetes.kubectl import Cluster, Object
from tests.k8s.api_server import node
from tests.serving.targets import target

pytestmark = pytest.mark.slow

SMOKE = experiments.load("smoke", {"runtime": "kubernetes", "protocols": ["grpc"], "ladder.rates": {"grpc": [40.0]}})
SERVER = "tensorflow-serving"


@pytest.fixture
def folder(tmp_path) -> RunFolder:
    return RunFolder.open(tmp_path / "results", SMOKE, "digest")


@pytest.fixture
def use(api, deployed, bundle, folder):
    """Has the TensorFlow side's server up alone."""
    cluster, settings = deployed
    targets = KubernetesTargets(folder, bundle, SMOKE, cluster, settings)

    def up() -> KubernetesTargets:
        targets.use("tensorflow", lambda _: None)
        return targets

    yield up
    targets.stop()


def test_the_same_pod_is_the_same_server(api, use):
    targets = use()
    uid = api.pod(SERVER)["metadata"]["uid"]
    assert targets.target("tensorflow").instance == f"{uid}#0"
    targets.check()
    targets.check(fresh=True)


POD: Object = {"metadata": {"uid": "u", "name": "p"}, "status": {"phase": "Running", "containerStatuses": []}}


@pytest.mark.parametrize(
    ("found", "reason", "said"),
    [
        ([], "", "its pod p is gone"),
        ([{**POD, "metadata": {"uid": "another", "name": "p"}}], "", "its pod p is gone"),
        (
            [{**POD, "metadata": {**POD["metadata"], "deletionTimestamp": "2026"}}],
            "deleted",
            "somebody has deleted its pod",
        ),
        ([{**POD, "status": {"phase": "Failed", "reason": "Evicted"}}], "Evicted", r"its pod p has ended \(Evicted\)"),
    ],
)
def test_another_pod_is_another_server(tmp_path, found, reason, said):
    in_use = kubernetes._InUse(replace(target("tensorflow"), instance="u#0"), POD, tmp_path, None)
    unasked = Cluster.__new__(Cluster)
    in_use.check([POD], unasked)
    with pytest.raises(Replaced, match=said) as caught:
        in_use.check(found, unasked)
    assert (caught.value.what, caught.value.reason) == (Successor.POD, reason)


def test_a_successor_is_proven_before_it_is_used(api, use, folder):
    targets = use()
    api.replace_pod(SERVER)
    with pytest.raises(Replaced, match=r"target\.tensorflow: its pod .* is gone"):
        targets.check(fresh=True)
    assert "targets" not in folder.read("wire-parity.json")
    use()
    assert list(folder.read("wire-parity.json")["targets"]) == ["tensorflow"]
    targets.check(fresh=True)
    api.logs[SERVER] = "last words\n"
    api.restart_container(SERVER, "OOMKilled", 137)
    with pytest.raises(Replaced, match=r"died under load and was restarted \(OOMKilled\)") as caught:
        targets.check(fresh=True)
    assert (caught.value.what, caught.value.reason, caught.value.exit_status) == (Successor.CONTAINER, "OOMKilled", 137)
    assert caught.value.details == ("last words",)


def test_a_cluster_that_is_away_is_asked_again_later_but_at_the_end_it_must_say(api, use, monkeypatch):
    targets = use()
    api.unauthorized = True
    monkeypatch.setattr(kubernetes, "CHECK_EVERY_S", 0.0)
    monkeypatch.setattr(kubernetes, "AWAY_S", 0.2)
    targets.check()
    with pytest.raises(Problem, match="whether its server was replaced is not known"):
        targets.check(fresh=True)
    api.unauthorized = False


def test_what_was_measured_is_said(api, use, folder, tmp_path, monkeypatch):
    stat = tmp_path / "cpu.stat"
    stat.write_text("usage_usec 100\nnr_periods 10\nnr_throttled 2\nthrottled_usec 1500000\n")
    monkeypatch.setenv("TANDEM_TEST_CPU_STAT", str(stat))
    machine = node("node-1", gpus=1, **{"node.kubernetes.io/instance-type": "g5.xlarge"})
    api.add({**machine, "spec": {}})
    api.remove("nodes", "node-2")
    neighbour = {"name": "etcd", "namespace": "kube-system", "labels": {}}
    api.add(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": neighbour,
            "spec": {"nodeName": "node-1", "containers": []},
            "status": {"phase": "Running"},
        }
    )
    targets = use()
    pod = api.pod(SERVER)
    (container,) = pod["spec"]["containers"]
    (status,) = pod["status"]["containerStatuses"]
    found = folder.environment().nodes["tensorflow"]
    assert "kube-system/etcd" in found.beside
    assert all(one.startswith(("tandem/", "kube-system/")) for one in found.beside)
    assert f"tandem/{pod['metadata']['name']}" not in found.beside
    assert msgspec.structs.replace(found, beside=()) == Node(
        node="node-1",
        instance_type="g5.xlarge",
        gpu="Tesla-T4",
        capacity={"cpu": "16", "memory": "64Gi", "nvidia.com/gpu": "1"},
        kernel="6.1.0-28-amd64",
        kubelet="v1.36.2",
        container_runtime="containerd://2.1.4",
        os="Debian GNU/Linux 12 (bookworm)",
        image=status["imageID"],
        image_name=container["image"],
        limits=container["resources"]["limits"],
        requests=container["resources"]["requests"],
        qos="Guaranteed",
        pod=pod["metadata"]["name"],
        instance=f"{pod['metadata']['uid']}#0",
    )
    # What the server was really given, and what it wrote, as in the other runtimes.
    (place,) = folder.path.glob("servers/tensorflow-*")
    (config,) = [
        one["data"]
        for key, one in api.objects.items()
        if key[0] == "configmaps" and key[2].startswith(f"{SERVER}-config")
    ]
    assert {"batching.txt", "flags.txt"} <= config.keys()
    assert {name: (place / name).read_bytes().decode() for name in config} == config
    api.logs[SERVER] = "a line\n"
    stat.write_text("usage_usec 100\nnr_periods 90\nnr_throttled 5\nthrottled_usec 4000000\n")
    use()
    assert (place / "server.log").read_text() == "a line\n"
    stat.write_text("nr_throttled 6\nthrottled_time 4500000000\n")  # as cgroup v1 has it
    targets.stop()
    assert folder.environment().nodes["tensorflow"].throttled == Throttling(periods=4, seconds=3.0)
    assert not [one for one in folder.environment().warnings if isinstance(one, NotReadable)]
    rows = dict(conditions.environment(folder.environment()))
    (row,) = [text for name, text in rows.items() if name.startswith("node of ")]
    limits = container["resources"]["limits"]
    for said in ("node-1", "g5.xlarge", "Tesla-T4", "6.1.0-28-amd64", "containerd://2.1.4"):
        assert said in row
    (row,) = [text for name, text in rows.items() if name.startswith("pod of ")]
    for said in (f"{limits['cpu']} CPU", limits["memory"], "Guaranteed", status["imageID"], "stopped 4 times for 3"):
        assert said in row
    (row,) = [text for name, text in rows.items() if name.startswith("beside ")]
    assert "kube-system/etcd" in row


def test_what_a_role_of_the_namespace_may_not_read_is_left_out_and_noted_once(api, use, folder):
    use()
    api.only_namespaces = True
    for _ in range(2):
        use()
    found = folder.environment().nodes["tensorflow"]
    assert (found.node, found.kernel, found.instance_type) == ("node-1", None, None)
    assert found.limits
    assert all(one.startswith("tandem/") for one in found.beside)
    (note,) = [one for one in folder.environment().warnings if isinstance(one, NotReadable)]
    assert note.what == (Unread.NODES, Unread.PODS, Unread.EXEC)
    said = warning_words.warning(note)
    assert "their type, GPU, kernel and container runtime" in said
    assert "which pods of other namespaces ran beside the servers" in said


def test_the_device_is_the_deployments(settings):
    on_gpus = replace(settings, overlay="gpu", profile=replace(settings.profile, device="gpu"))
    assert kubernetes.on_its_device(SMOKE, settings).profile.device == "cpu"
    assert kubernetes.on_its_device(SMOKE, on_gpus).profile.device == "gpu"
    with pytest.raises(Problem, match=r"profile\.device = 'cpu', and overlay gpu is deployed"):
        kubernetes.on_its_device(SMOKE, on_gpus, "cpu")


def test_a_server_on_a_gpu_is_measured_as_one_and_nothing_is_applied_for_it(api, bundle, settings, folder):
    """A deployment on GPUs has a profile of its own device."""
    on_gpus = replace(settings, overlay="gpu", profile=replace(settings.profile, device="gpu"))
    experiment = kubernetes.on_its_device(SMOKE, on_gpus)
    targets = KubernetesTargets(folder, bundle, experiment, Cluster(), on_gpus)
    assert targets._settings == on_gpus
    assert targets._settings.serving_profile.device == "gpu"


DEFAULT = replace(Experiment(), runtime="kubernetes")


@pytest.mark.parametrize(
    ("experiment", "changes", "message"),
    [
        (DEFAULT, {}, "dataset = 'fashion-mnist', and convnet version 1, which is deployed, is of digits"),
        (SMOKE, {"dataset": "cifar10"}, "dataset = 'digits', and convnet version 1, which is deployed, is of cifar10"),
        (SMOKE, {"bundle": "0" * 64}, "not the bundle that is deployed as convnet version 1, but another"),
        (SMOKE, {"version": 2}, "version 2 of convnet is deployed, this machine's bundle is version 1"),
        (
            replace(SMOKE, profile=ServingProfile.from_dict({"precision": "bf16"})),
            {},
            "profile.precision = 'bf16', and the graphs that are deployed compute in fp32",
        ),
    ],
)
def test_what_is_deployed_is_what_the_experiment_is_of(settings, bundle, experiment, changes, message):
    with pytest.raises(Problem, match=message):
        kubernetes.require_same(experiment, replace(settings, **changes), bundle)


def test_the_deployed_bundle_is_the_one_that_is_here(settings, bundle):
    kubernetes.require_same(SMOKE, settings, bundle)  # a record of before says nothing of it
    kubernetes.require_same(SMOKE, replace(settings, dataset="digits", bundle=bundle.digest), bundle)


def test_a_deployment_says_which_bundle_it_is_of(api, run, bundle):
    assert run("deploy") == 0
    settings = json.loads(api.find("configmaps", "tandem-deployment")["data"]["settings"])
    assert (settings["dataset"], settings["bundle"]) == ("digits", bundle.digest)
