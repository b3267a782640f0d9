"""What is said while a roll-out is waited for, and when it is given up."""

from __future__ import annotations

import pytest

from models.problem import Problem
from serving.runtimes.kubernetes import rollout
from serving.runtimes.kubernetes.kubectl import Cluster
from tests.k8s.api_server import node

pytestmark = [pytest.mark.slow, pytest.mark.beside]

STUCK = {
    "containerStatuses": [{"name": "server", "image": "", "state": {"waiting": {"reason": "ContainerCreating"}}}],
}
NO_ROOM = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes: cpu"}


def only(name, status):
    """What becomes of the pods of one workload; all others run."""
    return lambda workload: status if workload["metadata"]["name"] == name else None


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(rollout, "EVENTS_AFTER_S", 0.0)
    monkeypatch.setattr(rollout, "LINE_EVERY_S", 0.1)


def test_every_waiting_pod_shows_its_newest_warning(api, run, soon, capsys):
    """All of them, not one; and the pod that has none says what it waits for."""
    events = {
        "torchserve": {**STUCK, "event": "MountVolume.SetUp failed for volume config"},
        "grafana": {**STUCK, "event": "Failed to create pod sandbox: no IP left"},
        "alertmanager": STUCK,
    }
    api.fate = lambda workload: events.get(workload["metadata"]["name"])
    assert run("deploy", "--timeout", "0.5") == 1
    shown, _, final = capsys.readouterr().err.partition("error: ")
    for line in (
        "    torchserve-abc-0: Failed: MountVolume.SetUp failed for volume config",
        "    grafana-abc-0: Failed: Failed to create pod sandbox: no IP left",
        "    alertmanager-abc-0: ContainerCreating",
    ):
        assert line in shown.splitlines()
    # The final error names the pods, too.
    assert "waiting: alertmanager-abc-0 (ContainerCreating), grafana-abc-0 (ContainerCreating), " in final


def test_old_pods_do_not_count_as_ready(api, run, capsys):
    """Both replicas of the revision before run on: kubectl's counters say 2/2 available."""
    assert run("deploy", "--overlay", "cpu") == 0
    assert "torchserve 2/2" in capsys.readouterr().err
    api.fate = only("torchserve", STUCK)
    assert run("deploy", "--overlay", "cpu", "--set", "max_batch_size=16", "--timeout", "0.3") == 1
    deployment = api.find("deployments", "torchserve")
    assert deployment["status"]["availableReplicas"] == 2
    told = capsys.readouterr().err
    assert "torchserve 0/2 and 2 old ready" in told
    assert "torchserve 2/2" not in told
    assert "tensorflow-serving 2/2" in told
    assert "waiting: torchserve-r2-0 (ContainerCreating)" in told


def test_an_old_pod_that_dies_is_no_reason_to_give_up_the_new_revision(api, run, capsys):
    dying = {"name": "server", "restartCount": 9, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    api.fate = only("torchserve", {"containerStatuses": [dying]})
    assert run("deploy", "--overlay", "cpu") == 1
    old = [api.find("replicasets", "torchserve-abc"), *(api.find("pods", f"torchserve-abc-{one}") for one in (0, 1))]
    api.fate = lambda _: None
    api.slow = True

    def linger(looks):  # they are not gone at once
        for one in old:
            if looks < 20:
                api.add(one)
            else:
                api.remove(api.plural(one["kind"]), one["metadata"]["name"])

    api.looked, api.looks = linger, 0
    assert run("deploy", "--overlay", "cpu", "--set", "max_batch_size=16", "--timeout", "60") == 0


def test_a_registry_may_be_away_for_a_moment(api, run, capsys, monkeypatch):
    monkeypatch.setattr(rollout, "PULL_S", 60.0)
    waiting = {"reason": "ErrImagePull", "message": "dial tcp 10.0.0.1:443: i/o timeout"}
    api.fate = only("grafana", {"containerStatuses": [{"name": "grafana", "image": "", "state": {"waiting": waiting}}]})
    api.looked = lambda looks: api.comes_up("grafana") if looks == 5 else None
    assert run("deploy") == 0
    assert "grafana 1/1" in capsys.readouterr().err


def test_a_name_that_is_no_image_is_given_up_at_once(api, run, capsys, monkeypatch):
    monkeypatch.setattr(rollout, "PULL_S", 60.0)
    waiting = {"reason": "InvalidImageName", "message": "couldn't parse image name"}
    api.fate = only("grafana", {"containerStatuses": [{"name": "grafana", "image": "", "state": {"waiting": waiting}}]})
    assert run("deploy") == 1
    assert "grafana-abc-0: image docker.io/grafana/grafana:13.1.0 cannot be pulled" in capsys.readouterr().err


def ending(name: str, grace_s: int = 75) -> dict:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": "tandem",
            "labels": {"app.kubernetes.io/name": "torchserve"},
            "deletionTimestamp": "2026-01-01T00:01:15Z",
            "deletionGracePeriodSeconds": grace_s,
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "server", "image": "tandem/torchserve:1"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]},
    }


def test_a_pod_that_waits_for_the_room_of_one_that_ends_is_not_given_up(api, run, capsys, monkeypatch):
    """A server drains for a minute and more: that alone comes near to the time after which a pod without room fails."""
    monkeypatch.setattr(rollout, "UNSCHEDULABLE_S", 0.2)
    api.fate = only("torchserve", {"conditions": [NO_ROOM]})

    def drains(looks):
        if looks < 12:
            api.add(ending("torchserve-old-1"))
        elif looks == 12:
            api.remove("pods", "torchserve-old-1")
        elif looks == 13:
            api.comes_up("torchserve")

    api.looked = drains
    assert run("deploy") == 0
    assert "torchserve-abc-0 will get the room of torchserve-old-1 (up to 75 s)" in capsys.readouterr().err


def test_a_pod_that_never_ends_does_not_hold_up_the_error(api, run, capsys, monkeypatch):
    """Its node is gone: nothing will end it."""
    monkeypatch.setattr(rollout, "UNSCHEDULABLE_S", 0.2)
    monkeypatch.setattr(rollout, "ENDED_LATE_S", 0.2)
    api.fate = only("torchserve", {"conditions": [NO_ROOM]})
    api.looked = lambda _: api.add(ending("torchserve-old-1", grace_s=0))
    assert run("deploy", "--timeout", "120") == 1
    assert "torchserve-abc-0: no node takes it: 0/1 nodes: cpu" in capsys.readouterr().err


def test_the_first_cause_outlives_the_namespace(api, run, capsys):
    waiting = {"reason": "CreateContainerConfiguring", "message": "configmap torchserve-config not found"}
    api.fate = only("torchserve", {"containerStatuses": [{"name": "server", "state": {"waiting": waiting}}]})

    def vanish(looks):
        if looks == 5:
            for key in [key for key in api.objects if key[1] == "tandem" or key[2] == "tandem"]:
                del api.objects[key]

    api.looked = vanish
    assert run("deploy") == 1
    told = capsys.readouterr().err
    assert "torchserve: gone from the cluster while it rolled out" in told
    assert "before that: torchserve-abc-0: CreateContainerConfiguring: configmap torchserve-config not found" in told


def test_the_first_cause_outlives_a_way_back_that_fails_too(api, run, next_version, capsys):
    assert run("deploy") == 0
    next_version()
    waiting = {"reason": "CreateContainerConfigError", "message": "secret not found"}

    seen = []

    def broken(deployment):
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        seen.append(image)
        if image == "tandem/torchserve:1" and "tandem/torchserve:2" in seen:  # on the way back
            api.replica_failure = {"torchserve": "exceeded quota: team"}
        return (
            {"containerStatuses": [{"name": "server", "state": {"waiting": waiting}}]}
            if image == "tandem/tensorflow-serving:2"
            else None
        )

    api.fate = broken
    assert run("rollout", "--model-version", "2") == 1
    told = capsys.readouterr().err
    assert "version 2 did not roll out: tensorflow-serving-r2-0: its container cannot be started: secret" in told
    assert "and bringing 1 back failed: torchserve: no pod can be made: a quota refuses it: team" in told


def test_pods_are_replaced_in_place_where_none_fits_beside_them(api, run, next_version, capsys):
    """Two nodes that the servers fill: a pod more would wait for ever. The plan says so before."""
    for name in ("node-1", "node-2"):
        api.add(node(name, cpu="11"))
    assert run("plan", "--overlay", "cpu") == 0
    assert "no node has room for one more pod of tensorflow-serving, torchserve beside what runs" in (
        capsys.readouterr().err
    )
    assert run("deploy", "--overlay", "cpu") == 0
    assert "(maxUnavailable 1, maxSurge 0)" in capsys.readouterr().err
    for name in ("torchserve", "tensorflow-serving"):
        rolling = api.find("deployments", name)["spec"]["strategy"]["rollingUpdate"]
        assert rolling == {"maxSurge": 0, "maxUnavailable": 1}
    assert run("plan", "--overlay", "cpu") == 0
    assert "nothing would change" in capsys.readouterr().err
    next_version()
    assert run("rollout", "--model-version", "2") == 0
    assert api.find("deployments", "torchserve")["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0


def test_with_room_for_one_more_pod_nothing_is_taken_away_first(api, run, capsys):
    assert run("deploy", "--overlay", "cpu") == 0
    rolling = api.find("deployments", "torchserve")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}
    assert "maxUnavailable 1" not in capsys.readouterr().err


def test_events_that_may_not_be_read_do_not_hide_what_is_wrong(api, run):
    waiting = {"reason": "CreateContainerConfigError", "message": "secret not found"}
    assert run("deploy") == 0
    pod = api.find("pods", "grafana-abc-0")
    pod["status"] = {"containerStatuses": [{"name": "grafana", "state": {"waiting": waiting}}]}
    api.refused = {("list", "events"), ("get", "pods")}
    with pytest.raises(Problem, match="its container cannot be started: secret not found"):
        rollout.wait(Cluster(), rollout.deployments(["grafana"]), timeout_s=5, say=lambda _: None)
