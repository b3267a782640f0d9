"""What can be known before the cluster is touched: its version, one's permissions, and room for the servers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from models.problem import Problem
from serving.runtimes.kubernetes import plan
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object, explain

OLDEST = (1, 30)  # sleep actions, matchLabelKeys and unhealthyPodEvictionPolicy are on by default from here
GPU = "nvidia.com/gpu"


def check(cluster: Cluster, objects: Sequence[Object]) -> None:
    """Everything below, in order; raises the first `Problem`."""
    check_version(cluster)
    check_kinds(cluster, objects)
    check_permissions(cluster, objects)
    check_capacity(cluster, objects)


def check_version(cluster: Cluster) -> str:
    """The cluster's version, such as "v1.36.2"; raises `Problem` where it does not answer or is too old."""
    done = cluster.try_run("version", "--output=json")
    if done.returncode:
        raise explain(f"asking {cluster.context} for its version", done.stderr)
    version = str(json.loads(done.stdout)["serverVersion"]["gitVersion"])
    found = re.match(r"v(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < OLDEST:
        raise Problem(f"{cluster.context} is Kubernetes {version}: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    return version


def check_kinds(cluster: Cluster, objects: Iterable[Object]) -> None:
    """Raise `Problem` where the cluster lacks a kind that comes from a custom resource definition."""
    foreign = {
        (one["apiVersion"], one["kind"]) for one in objects if re.search(r"coreos\.com|gateway\.", one["apiVersion"])
    }
    for group in sorted({version.partition("/")[0] for version, _ in foreign}):
        done = cluster.try_run("api-resources", f"--api-group={group}", "--no-headers")
        present = {line.split()[-1] for line in done.stdout.splitlines() if line.split()}
        for version, kind in sorted(foreign):
            if version.startswith(f"{group}/") and kind not in present:
                raise explain("checking the cluster", f'no matches for kind "{kind}" in version "{version}"')


def check_permissions(cluster: Cluster, objects: Iterable[Object]) -> None:
    """Raise `Problem` naming everything that the user may not do and would have to."""
    wanted = {
        (verb, _group(one), _resource(one["kind"]), "", one["metadata"].get("namespace", ""))
        for one in objects
        for verb in ("create", "patch", "delete")
    }
    wanted |= {
        ("create", "", "pods", "portforward", NAMESPACE),
        ("get", "", "pods", "log", NAMESPACE),
        ("list", "", "pods", "", NAMESPACE),
        ("list", "", "events", "", NAMESPACE),
    }
    reviews = [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    "verb": verb,
                    "group": group,
                    "resource": resource,
                    **({"subresource": subresource} if subresource else {}),
                    **({"namespace": namespace} if namespace else {}),
                }
            },
        }
        for verb, group, resource, subresource, namespace in sorted(wanted)
    ]
    text = cluster.run("create", "--filename=-", "--output=json", objects=reviews, doing="asking for one's permissions")
    refused: dict[str, list[str]] = {}
    for review in _documents(text):
        if not review["status"]["allowed"]:
            asked = review["spec"]["resourceAttributes"]
            parts = (asked["resource"], asked.get("subresource"))
            name = "/".join(filter(None, parts)) + (f".{asked['group']}" if asked.get("group") else "")
            where = f" in namespace {asked['namespace']}" if asked.get("namespace") else ""
            refused.setdefault(f"{name}{where}", []).append(asked["verb"])
    if refused:
        lines = [f"may not {', '.join(verbs)} {what}" for what, verbs in sorted(refused.items())]
        raise Problem(
            f"{cluster.context}: your user lacks permissions for {len(refused)} kinds of objects (above); ask for the "
            f"role admin in the namespaces tandem and tandem-dcgm, and for leave to create namespaces",
            lines,
        )


def _documents(text: str) -> list[Object]:
    """kubectl prints a List, or several JSON documents behind each other."""
    found: list[Object] = []
    decoder, position = json.JSONDecoder(), 0
    while position < len(text.rstrip()):
        one, end = decoder.raw_decode(text, position)
        found += one["items"] if one.get("kind") == "List" else [one]
        position = end + len(text[end:]) - len(text[end:].lstrip())
    return found


def _group(one: Object) -> str:
    group, slash, _ = str(one["apiVersion"]).partition("/")
    return group if slash else ""


def _resource(kind: str) -> str:
    """The plural that the API uses, of the kinds that we have."""
    word = kind.lower()
    return f"{word[:-1]}ies" if word.endswith("y") else word if word.endswith("s") else f"{word}s"


@dataclass
class Node:
    """What a node has, and how much of it no pod has asked for yet (by resource name)."""

    name: str
    labels: dict[str, str]
    taints: list[dict[str, str]]
    allocatable: dict[str, float]
    free: dict[str, float] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        """What the machine is, in words."""
        gpu = self.labels.get("nvidia.com/gpu.product", "")
        return ", ".join(filter(None, (self.labels.get("node.kubernetes.io/instance-type", ""), gpu)))

    def describe(self, resources: Iterable[str]) -> str:
        """One line for a user."""
        parts = [
            f"{_show(resource, self.free.get(resource, 0))} of {_show(resource, self.allocatable.get(resource, 0))} "
            f"{resource} free"
            for resource in resources
        ]
        return f"{self.name}{f' ({self.kind})' if self.kind else ''}: {', '.join(parts)}"


def nodes(cluster: Cluster) -> list[Node]:
    """Every node that takes new pods. Raises `Problem`."""
    found = {}
    for one in cluster.get("nodes", doing="looking at the nodes"):
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"].get("conditions", []))
        if not ready or one["spec"].get("unschedulable"):
            continue
        amounts = {key: plan.quantity(text) for key, text in one["status"]["allocatable"].items()}
        metadata = one["metadata"]
        found[metadata["name"]] = Node(
            metadata["name"], metadata.get("labels", {}), one["spec"].get("taints", []), amounts, dict(amounts)
        )
    pods = cluster.get("pods", "--all-namespaces", doing="looking at what the nodes run")
    for pod in pods:
        node = found.get(pod["spec"].get("nodeName", ""))
        ours = pod["metadata"]["namespace"] == NAMESPACE  # an update of ours replaces them
        if node is None or ours or pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        for container in pod["spec"]["containers"]:
            for resource, text in container.get("resources", {}).get("requests", {}).items():
                node.free[resource] = node.free.get(resource, 0) - plan.quantity(text)
    return list(found.values())


def check_capacity(cluster: Cluster, objects: Sequence[Object]) -> None:
    """Raise `Problem`, with what each node has, where one replica of each server finds no node with room for it."""
    known = nodes(cluster)
    if not known:
        raise Problem(f"{cluster.context} has no node that is ready and takes pods: kubectl get nodes shows why")
    deployments = plan.servers(objects)
    for deployment in deployments:
        need = {key: plan.quantity(text) for key, text in plan.container(deployment)["resources"]["requests"].items()}
        # Biggest demand first: a user who lacks a GPU should read of GPUs.
        shown = [GPU] if GPU in need else ["cpu", "memory"]
        fitting = [node for node in known if _takes(node, deployment)]
        room = [node for node in fitting if all(node.free.get(key, 0) >= amount for key, amount in need.items())]
        if room:
            chosen = max(room, key=lambda node: node.free.get(shown[0], 0))
            for key, amount in need.items():
                chosen.free[key] -= amount
            continue
        wants = ", ".join(f"{_show(key, need[key])} {key}" for key in shown)
        raise Problem(
            f"no node has room for {deployment['metadata']['name']} ({wants} for one replica"
            f"{_selector(deployment)}); nodes as above. {_mend(shown)}",
            [node.describe(shown) + ("" if node in fitting else ", does not match") for node in known],
        )


def _mend(shown: Sequence[str]) -> str:
    if GPU in shown:
        return "Free a GPU, add a node with NVIDIA's device plugin, or use OVERLAY=cpu"
    return "Free some room, add a node, or use OVERLAY=local, which asks for less"


def _selector(deployment: Object) -> str:
    selector = deployment["spec"]["template"]["spec"].get("nodeSelector", {})
    return "".join(f", on nodes with {key}={value}" for key, value in selector.items())


def _takes(node: Node, deployment: Object) -> bool:
    spec = deployment["spec"]["template"]["spec"]
    if any(node.labels.get(key) != value for key, value in spec.get("nodeSelector", {}).items()):
        return False
    required = spec.get("affinity", {}).get("nodeAffinity", {}).get("requiredDuringSchedulingIgnoredDuringExecution")
    for term in (required or {}).get("nodeSelectorTerms", []):
        if any(node.labels.get(one["key"]) not in one["values"] for one in term["matchExpressions"]):
            return False
    return all(
        any(_tolerates(toleration, taint) for toleration in spec.get("tolerations", []))
        for taint in node.taints
        if taint["effect"] in ("NoSchedule", "NoExecute")
    )


def _tolerates(toleration: dict[str, str], taint: dict[str, str]) -> bool:
    if toleration.get("effect") not in (None, taint["effect"]) or toleration.get("key") not in (None, taint["key"]):
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value") == taint.get("value")


def _show(resource: str, amount: float) -> str:
    if resource in ("memory", "ephemeral-storage"):
        return f"{max(0.0, amount) / 2**30:.1f}Gi"
    return f"{max(0.0, amount):g}"
