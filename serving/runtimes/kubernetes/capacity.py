"""What the cluster's nodes have room for: the servers at all, and one more pod of each during an update."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from models.problem import Problem
from serving.runtimes.kubernetes import plan
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object

GPU = "nvidia.com/gpu"
GPU_NODE = "nvidia.com/gpu.present"  # a node's label
KUBELET = "/var/lib/kubelet"
NAME = "app.kubernetes.io/name"


@dataclass(frozen=True)
class Pod:
    """One of ours, there or to be: its labels, the labels of pods that it may not share a node with, what it asks
    for (by resource name)."""

    labels: Mapping[str, str]
    avoids: tuple[Mapping[str, str], ...] = ()
    requests: Mapping[str, float] = field(default_factory=dict)

    def repels(self, other: Pod) -> bool:
        """Whether the two cannot be on one node."""
        return any(_has(other.labels, one) for one in self.avoids) or any(
            _has(self.labels, one) for one in other.avoids
        )


@dataclass
class Node:
    """What a node has, and how much of it no pod of others has asked for yet (by resource name)."""

    name: str
    labels: dict[str, str]
    taints: list[dict[str, str]]
    allocatable: dict[str, float]
    free: dict[str, float] = field(default_factory=dict)
    ours: list[Pod] = field(default_factory=list)
    kubelet: str = ""  # its version

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

    def has_room(self, requests: Mapping[str, float]) -> bool:
        """Whether that much is free."""
        return all(self.free.get(key, 0) >= amount for key, amount in requests.items())

    def take(self, requests: Mapping[str, float]) -> None:
        """Count it as asked for."""
        for key, amount in requests.items():
            self.free[key] = self.free.get(key, 0) - amount


def nodes(cluster: Cluster) -> list[Node]:
    """Every node that takes new pods. Raises `Problem`, `Forbidden` where nodes or others' pods may not be seen."""
    found = {}
    for one in cluster.get("nodes", doing="looking at the nodes"):
        ready = any(c["type"] == "Ready" and c["status"] == "True" for c in one["status"].get("conditions", []))
        if not ready or one["spec"].get("unschedulable"):
            continue
        amounts = {key: plan.quantity(text) for key, text in one["status"]["allocatable"].items()}
        metadata = one["metadata"]
        found[metadata["name"]] = Node(
            metadata["name"],
            metadata.get("labels", {}),
            one["spec"].get("taints", []),
            amounts,
            dict(amounts),
            kubelet=one["status"].get("nodeInfo", {}).get("kubeletVersion", ""),
        )
    pods = cluster.get("pods", "--all-namespaces", doing="looking at what the nodes run")
    for pod in pods:
        node = found.get(pod["spec"].get("nodeName", ""))
        if node is None or pod["status"].get("phase") in ("Succeeded", "Failed"):
            continue
        if pod["metadata"]["namespace"] == NAMESPACE:  # an update of ours replaces them
            if not pod["metadata"].get("deletionTimestamp"):
                node.ours.append(_pod(pod))
        else:
            node.take(_requests(pod["spec"]))
    return list(found.values())


def check(known: Sequence[Node], objects: Sequence[Object], context: str) -> None:
    """Raise `Problem`, with what each node has, where one replica of each server finds no node with room for it."""
    if not known:
        raise Problem(f"{context} has no node that is ready and takes pods: kubectl get nodes shows why")
    free = _copy(known)
    for deployment in plan.servers(objects):
        need = _requests(_spec(deployment))
        # Biggest demand first: a user who lacks a GPU should read of GPUs.
        shown = [GPU] if GPU in need else ["cpu", "memory"]
        fitting = [node for node in free if _takes(node, deployment)]
        room = [node for node in fitting if node.has_room(need)]
        if room:
            max(room, key=lambda node: node.free.get(shown[0], 0)).take(need)
            continue
        wants = ", ".join(f"{_show(key, need[key])} {key}" for key in shown)
        raise Problem(
            f"no node has room for {deployment['metadata']['name']} ({wants} for one replica"
            f"{_selector(deployment)}); nodes as above. {_mend(shown)}",
            [node.describe(shown) + ("" if node in fitting else ", does not match") for node in free],
        )


def in_place(known: Sequence[Node], objects: Sequence[Object]) -> tuple[str, ...]:
    """The servers' Deployments for which no node has room for one more pod beside everything that runs: an update that
    adds before it takes away would wait for ever. All servers are updated at once."""
    room = _copy(known)
    counts = plan.replicas(objects)
    deployments = [one for one in objects if one["kind"] == "Deployment"]
    for deployment in deployments:
        pod, missing = _pod(deployment["spec"]["template"]), counts[deployment["metadata"]["name"]]
        for node in room:  # where they are, they stay
            there = sum(one.labels.get(NAME) == pod.labels.get(NAME) for one in node.ours)
            for _ in range(min(there, missing)):
                node.take(pod.requests)
            missing -= min(there, missing)
        for _ in range(missing):
            _place(room, deployment)
    servers = [one for one in plan.servers(objects) if counts[one["metadata"]["name"]]]
    return tuple(one["metadata"]["name"] for one in servers if not _place(room, one))


def kubelet_root(known: Iterable[Node]) -> str:
    """Where the kubelets of the nodes with GPUs keep their files, as their distribution has it; empty for the usual."""
    for node in known:
        if GPU_NODE not in node.labels:
            continue
        if "+k0s" in node.kubelet:
            return "/var/lib/k0s/kubelet"
        if any(key.startswith("microk8s.io/") for key in node.labels):
            return "/var/snap/microk8s/common/var/lib/kubelet"
    return ""


def _place(room: Sequence[Node], deployment: Object) -> bool:
    """Put one more pod where there is most room for it; False where there is none."""
    pod = _pod(deployment["spec"]["template"])
    fitting = [
        node
        for node in room
        if _takes(node, deployment) and node.has_room(pod.requests) and not any(pod.repels(one) for one in node.ours)
    ]
    if not fitting:
        return False
    chosen = max(fitting, key=lambda node: (node.free.get(GPU, 0), node.free.get("cpu", 0)))
    chosen.take(pod.requests)
    chosen.ours.append(pod)
    return True


def _copy(known: Sequence[Node]) -> list[Node]:
    return [replace(node, free=dict(node.free), ours=list(node.ours)) for node in known]


def _pod(one: Object) -> Pod:
    """A pod, or a template of some."""
    affinity = one["spec"].get("affinity", {}).get("podAntiAffinity", {})
    terms = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [])
    avoids = tuple(
        term["labelSelector"].get("matchLabels", {})
        for term in terms
        if term["topologyKey"] == "kubernetes.io/hostname"
    )
    return Pod(one["metadata"].get("labels", {}), avoids, _requests(one["spec"]))


def _requests(spec: Object) -> dict[str, float]:
    total: dict[str, float] = {}
    for container in spec["containers"]:
        for key, text in container.get("resources", {}).get("requests", {}).items():
            total[key] = total.get(key, 0) + plan.quantity(text)
    return total


def _spec(deployment: Object) -> Object:
    found: Object = deployment["spec"]["template"]["spec"]
    return found


def _has(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    return bool(wanted) and wanted.items() <= labels.items()


def _mend(shown: Sequence[str]) -> str:
    if GPU in shown:
        return "Free a GPU, add a node with NVIDIA's device plugin, or use OVERLAY=cpu"
    return "Free some room, add a node, or use OVERLAY=local, which asks for less"


def _selector(deployment: Object) -> str:
    selector = _spec(deployment).get("nodeSelector", {})
    return "".join(f", on nodes with {key}={value}" for key, value in selector.items())


def _takes(node: Node, deployment: Object) -> bool:
    spec = _spec(deployment)
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
