"""Each promise holds in every combination, and each is seen to be broken by a manifest that breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s import policies
from tests.k8s.rendered import COMBINATIONS, Combination, Object, everything, find, pod_specs, the, with_triton


@pytest.mark.parametrize("promise", policies.POLICIES)
def test_promise(promise):
    broken = [
        f"{combination}: {line}"
        for combination, objects in everything().items()
        for line in policies.POLICIES[promise](objects)
    ]
    assert not broken


def drop(path: str) -> Callable[[Object], None]:
    return put(path, None)


def put(path: str, value: Any) -> Callable[[Object], None]:
    def change(one: Any) -> None:
        *steps, last = [int(step) if step.lstrip("-").isdecimal() else step for step in path.split("/")]
        for step in steps:
            one = one[step]
        if value is None:
            del one[last]
        else:
            one[last] = value

    return change


POD = "spec/template/spec"
SERVER = f"{POD}/containers/0"
# promise -> the object to break (kind, name), how, and the combination to break it in
BREAKS: dict[str, tuple[str, str, Callable[[Object], None], str]] = {
    "ready_means_that_the_model_version_answers_a_prediction": (
        "Deployment",
        "torchserve",
        put(f"{SERVER}/readinessProbe", {"httpGet": {"path": "/ping", "port": "rest"}}),
        "cpu",
    ),
    "liveness_does_not_kill_what_is_only_overloaded": (
        "Deployment",
        "torchserve",
        put(f"{SERVER}/livenessProbe/failureThreshold", 3),
        "cpu",
    ),
    "everything_has_startup_or_readiness_and_liveness_probes": (
        "Deployment",
        "grafana",
        drop(f"{SERVER}/livenessProbe"),
        "cpu",
    ),
    "a_slow_start_is_not_a_death": (
        "Deployment",
        "torchserve",
        put(f"{SERVER}/startupProbe/failureThreshold", 3),
        "cpu",
    ),
    "a_rollout_loses_no_request": (
        "Deployment",
        "tensorflow-serving",
        put(f"{SERVER}/lifecycle/preStop/exec/command/1", "20"),
        "cpu",
    ),
    "the_grace_period_covers_pre_stop_and_what_is_in_flight": (
        "Deployment",
        "torchserve",
        drop(f"{POD}/terminationGracePeriodSeconds"),
        "cpu",
    ),
    "a_rollout_takes_no_capacity_away": (
        "Deployment",
        "torchserve",
        put("spec/strategy/rollingUpdate/maxUnavailable", 1),
        "cpu",
    ),
    "disruption_budgets_keep_servers_up_and_nodes_drainable": (
        "PodDisruptionBudget",
        "torchserve",
        put("spec/selector", {}),
        "cpu",
    ),
    "replicas_spread_over_nodes_and_zones": (
        "Deployment",
        "torchserve",
        drop(f"{POD}/topologySpreadConstraints/1"),
        "cpu",
    ),
    "servers_keep_away_from_each_other_and_from_the_load_generator": (
        "Deployment",
        "torchserve",
        drop(f"{POD}/affinity"),
        "cpu+loadtest",
    ),
    "servers_and_load_generator_are_guaranteed": (
        "Deployment",
        "locust-worker",
        put(f"{SERVER}/resources/limits/cpu", "2"),
        "cpu",
    ),
    "both_servers_get_the_same": ("Deployment", "torchserve", put(f"{SERVER}/resources/limits/memory", "5Gi"), "cpu"),
    "everything_has_limits": ("Deployment", "grafana", drop(f"{SERVER}/resources/limits/memory"), "cpu"),
    "pods_are_as_restricted_as_pod_security_can_demand": (
        "Deployment",
        "prometheus",
        put(f"{SERVER}/securityContext/capabilities", {"drop": ["ALL"], "add": ["NET_RAW"]}),
        "cpu",
    ),
    "root_file_systems_are_read_only": (
        "Deployment",
        "grafana",
        put(f"{SERVER}/securityContext/readOnlyRootFilesystem", False),
        "cpu",
    ),
    "no_pod_holds_a_token_of_the_api": ("ServiceAccount", "locust", drop("automountServiceAccountToken"), "cpu"),
    "every_namespace_denies_by_default": ("NetworkPolicy", "default-deny", put("spec/policyTypes", ["Ingress"]), "cpu"),
    "only_the_needed_flows_are_open": ("NetworkPolicy", "torchserve", put("spec/ingress", [{}]), "cpu"),
    "nobody_reaches_a_management_port": (
        "Service",
        "torchserve",
        put("spec/ports/0", {"name": "management", "port": 8081, "targetPort": 8081}),
        "cpu",
    ),
    "images_are_by_version_tag_or_digest": (
        "Deployment",
        "torchserve",
        put(f"{SERVER}/image", "registry.example.com/tandem/torchserve:latest"),
        "cpu",
    ),
    "grpc_clients_see_every_replica": ("Service", "torchserve", drop("spec/clusterIP"), "cpu"),
    "services_lead_to_containers": ("Service", "grafana", put("spec/ports/0/targetPort", "web"), "cpu"),
    "nothing_is_open_to_the_world_unless_the_ingress_component_says_so": (
        "Service",
        "grafana",
        put("spec/type", "LoadBalancer"),
        "cpu",
    ),
    "workloads_select_their_own_pods": (
        "Deployment",
        "torchserve",
        put("spec/selector/matchLabels", {"app.kubernetes.io/component": "server"}),
        "cpu",
    ),
    "what_pods_mount_is_there": (
        "Deployment",
        "grafana",
        put(f"{POD}/volumes/0", {"name": "datasources", "configMap": {"name": "gone"}}),
        "cpu",
    ),
    "an_autoscaler_owns_its_replica_count": ("Deployment", "torchserve", put("spec/replicas", 2), "cpu+autoscaling"),
    "gpus_go_to_gpu_nodes": ("Deployment", "torchserve", drop(f"{POD}/nodeSelector"), "gpu"),
    "everything_is_ours_by_label_and_in_our_namespaces": (
        "NetworkPolicy",
        "names",
        put("metadata/namespace", "default"),
        "cpu",
    ),
    "the_quota_holds_what_is_asked_for": ("ResourceQuota", "tandem", put("spec/hard/pods", "8"), "cpu"),
}


@pytest.mark.parametrize("promise", policies.POLICIES)
def test_a_broken_promise_is_seen(promise):
    kind, name, change, where = BREAKS[promise]
    combination = next(one for one in COMBINATIONS if str(one) == where)
    objects = copy.deepcopy(everything()[combination])
    change(the(objects, kind, name))
    assert list(policies.POLICIES[promise](objects))


# What is said of an engine that a component brings, in the same form.
OPTIONAL_BREAKS: dict[str, tuple[str, str, Callable[[Object], None], Combination]] = {
    "the_grace_period_covers_pre_stop_and_what_is_in_flight": (
        "Deployment",
        "triton",
        put(f"{POD}/terminationGracePeriodSeconds", 75),
        with_triton("cpu"),
    ),
    "a_rollout_loses_no_request": (
        "Deployment",
        "triton",
        put(f"{SERVER}/lifecycle/preStop/exec/command/1", "20"),
        with_triton("cpu"),
    ),
    "both_servers_get_the_same": ("Deployment", "triton", put("spec/replicas", 1), with_triton("cpu")),
    "servers_keep_away_from_each_other_and_from_the_load_generator": (
        "Deployment",
        "triton",
        drop(f"{POD}/affinity"),
        with_triton("local", "loadtest"),
    ),
    "only_the_needed_flows_are_open": ("NetworkPolicy", "prometheus", drop("spec/egress/-1"), with_triton("cpu")),
    "gpus_go_to_gpu_nodes": ("Deployment", "triton", put(f"{SERVER}/image", "tandem/triton:1"), with_triton("gpu")),
    "an_autoscaler_owns_its_replica_count": (
        "Deployment",
        "triton",
        put("spec/replicas", 2),
        with_triton("gpu", "autoscaling", "prometheus-operator"),
    ),
}


@pytest.mark.parametrize("promise", OPTIONAL_BREAKS)
def test_a_promise_broken_by_an_optional_engine_is_seen(promise):
    kind, name, change, combination = OPTIONAL_BREAKS[promise]
    objects = copy.deepcopy(everything()[combination])
    assert not list(policies.POLICIES[promise](objects))
    change(the(objects, kind, name))
    assert list(policies.POLICIES[promise](objects))


def test_without_its_component_nothing_speaks_of_an_optional_engine():
    for combination, objects in everything().items():
        named = [f"{one['kind']} {one['metadata']['name']}" for one in objects if "triton" in one["metadata"]["name"]]
        flows = [flow for flow in policies.flows(objects) if "triton" in flow]
        if "triton" in combination.components:
            assert {"Deployment triton", "Service triton", "Service triton-rest", "NetworkPolicy triton"} <= set(named)
        else:
            assert not named
            assert not flows


def test_the_gpu_overlay_asks_for_gpus():
    objects = everything()[Combination("gpu", ())]
    assert all(
        policies.server(objects, name)["resources"]["limits"]["nvidia.com/gpu"] == "1" for name in policies.SERVERS
    )
    assert find(objects, "DaemonSet", "dcgm-exporter")


def test_the_measuring_bench_has_one_replica_of_each_server():
    for overlay in ("local", "cpu", "gpu"):
        objects = everything()[Combination(overlay, ("loadtest",))]
        assert {the(objects, "Deployment", name)["spec"]["replicas"] for name in policies.SERVERS} == {1}


def test_the_operator_component_replaces_our_own_monitoring():
    objects = everything()[Combination("gpu", ("prometheus-operator",))]
    assert not {"prometheus", "alertmanager", "grafana"} & set(pod_specs(objects))
    monitored = {one["metadata"]["name"] for one in find(objects, "ServiceMonitor")}
    assert monitored == {"torchserve", "tensorflow-serving", "locust", "dcgm-exporter"}
    also = everything()[with_triton("gpu", "autoscaling", "prometheus-operator")]
    assert {one["metadata"]["name"] for one in find(also, "ServiceMonitor")} == {*monitored, "triton"}


@pytest.mark.parametrize(
    "combination",
    [Combination("gpu", ("prometheus-operator",)), with_triton("gpu", "autoscaling", "prometheus-operator")],
    ids=str,
)
def test_service_monitors_find_each_pod_once(combination):
    objects = everything()[combination]
    for monitor in find(objects, "ServiceMonitor"):
        spec = monitor["spec"]
        space = spec.get("namespaceSelector", {}).get("matchNames", ["tandem"])
        found = [
            service
            for service in find(objects, "Service")
            if service["metadata"]["namespace"] in space
            and policies._selects(spec["selector"], service["metadata"]["labels"])
        ]
        assert [service["metadata"]["name"] for service in found] == [
            {"locust": "locust-master"}.get(monitor["metadata"]["name"], monitor["metadata"]["name"])
        ]
        assert spec["endpoints"][0]["port"] in {port["name"] for port in found[0]["spec"]["ports"]}


def test_local_fits_a_laptop():
    objects = everything()[Combination("local", ())]
    cpus = sum(
        policies.bytes_of(container["resources"]["requests"]["cpu"])
        for spec in pod_specs(objects).values()
        for container in spec["containers"]
    )
    assert cpus <= 3.5
