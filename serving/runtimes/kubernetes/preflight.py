"""What can be known before the cluster is touched: its version, one's permissions, a disk, room for the servers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from models.problem import Problem
from serving.runtimes.kubernetes import capacity, permissions
from serving.runtimes.kubernetes.capacity import Node
from serving.runtimes.kubernetes.kubectl import Cluster, Forbidden, Object, explain
from serving.runtimes.kubernetes.permissions import Permitted
from serving.runtimes.kubernetes.settings import Settings

OLDEST = (1, 30)  # sleep actions, matchLabelKeys and unhealthyPodEvictionPolicy are on by default from here
DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


@dataclass(frozen=True)
class Findings:
    """What the checks found.

    permitted  what may be applied
    nodes      what takes new pods; None where that may not be seen
    notes      what was not checked or is left out, a line each
    """

    permitted: Permitted
    nodes: tuple[Node, ...] | None
    notes: tuple[str, ...]


def check(cluster: Cluster, objects: Sequence[Object]) -> Findings:
    """Everything below, in order; raises the first `Problem`. What the user may not see is not checked, and noted."""
    check_version(cluster)
    present = check_namespaces(cluster, objects)
    check_kinds(cluster, objects)
    found = permissions.permitted(cluster, objects, present)
    found.require(cluster.context)
    notes = list(found.notes)
    try:
        check_storage(cluster, found.objects, present)
    except Forbidden:
        notes.append("the disk's storage class was not checked: your user may not list storageclasses")
    nodes: tuple[Node, ...] | None = None
    try:
        nodes = tuple(capacity.nodes(cluster))
        capacity.check(nodes, found.objects, cluster.context)
    except Forbidden:
        notes.append("the nodes' room was not checked: your user may not list nodes and all namespaces' pods")
    return Findings(found, nodes, tuple(notes))


def look(cluster: Cluster, objects: Sequence[Object]) -> Findings:
    """The same for somebody who only wants to know: nothing that is missing is a `Problem`, but noted."""
    check_version(cluster)
    present = check_namespaces(cluster, objects)
    found = permissions.permitted(cluster, objects, present)
    if found.missing:  # a reader: all of it is shown
        found = replace(found, objects=tuple(objects), left_out=())
    notes = list(found.notes)
    nodes: tuple[Node, ...] | None = None
    try:
        check_storage(cluster, found.objects, present)
        nodes = tuple(capacity.nodes(cluster))
        capacity.check(nodes, found.objects, cluster.context)
    except Forbidden as forbidden:
        notes.append(f"not checked: {forbidden}")
    except Problem as problem:
        notes.append(f"make deploy would fail: {problem}")
    return Findings(found, nodes, tuple(notes))


def fit(settings: Settings, objects: Sequence[Object], nodes: Iterable[Node] | None) -> Settings:
    """The settings with what follows from the cluster's nodes; as they are where those may not be seen."""
    if nodes is None:
        return settings
    known = tuple(nodes)
    return replace(
        settings,
        in_place=capacity.in_place(known, objects),
        kubelet_root=settings.kubelet_root or capacity.kubelet_root(known),
    )


def check_version(cluster: Cluster) -> str:
    """The cluster's version, such as "v1.36.2"; raises `Problem` where it does not answer or is too old."""
    found = re.match(r"v(\d+)\.(\d+)", cluster.version)
    if not found or (int(found[1]), int(found[2])) < OLDEST:
        raise Problem(f"{cluster.context} is Kubernetes {cluster.version}: {OLDEST[0]}.{OLDEST[1]} or newer is needed")
    return cluster.version


def check_namespaces(cluster: Cluster, objects: Iterable[Object]) -> Mapping[str, Object]:
    """The namespaces of ``objects`` that are there. Raises `Problem` where one is being removed."""
    names = sorted({one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"})
    found = permissions.namespaces(cluster, names)
    for name, one in found.items():
        if going := leaving(one):
            raise Problem(
                f"namespace {name} on {cluster.context} is being removed; give the command again when it is gone (make "
                f"undeploy waits for that)",
                going,
            )
    return found


def leaving(namespace: Object) -> list[str]:
    """What holds a namespace that is being removed, a line each; empty where it stays."""
    status = namespace.get("status", {})
    if status.get("phase") != "Terminating" and not namespace["metadata"].get("deletionTimestamp"):
        return []
    held = [one for one in status.get("conditions", []) if one["status"] == "True"]
    lines = [f"{one['type']}: {one.get('message', '')}" for one in held]
    return lines or [f"namespace {namespace['metadata']['name']} is Terminating"]


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


def check_storage(cluster: Cluster, objects: Iterable[Object], present: Mapping[str, Object]) -> None:
    """Raise `Problem` where a new disk asks for a storage class that is not there; `Forbidden` where classes may not
    be seen."""
    claims = [one for one in objects if one["kind"] == "PersistentVolumeClaim"]
    new = [one for one in claims if not _is_there(cluster, one, present)]
    if not new:
        return
    classes = cluster.get("storageclasses", doing="looking at the storage classes")
    names = [one["metadata"]["name"] for one in classes]
    default = any(one["metadata"].get("annotations", {}).get(DEFAULT_CLASS) == "true" for one in classes)
    for claim in new:
        wanted = claim["spec"].get("storageClassName")
        if wanted in names or (wanted is None and default):
            continue
        what = "has no default storage class" if wanted is None else f"has no storage class {wanted}"
        there = f"there are {', '.join(names)}" if names else "there is none: install a provisioner of disks"
        raise Problem(
            f"{cluster.context} {what}, and {claim['metadata']['name']} asks for a disk ({there}); name one by "
            f'ARGS="--storage-class=NAME", or use COMPONENTS=prometheus-operator, which needs no disk'
        )


def _is_there(cluster: Cluster, one: Object, present: Mapping[str, Object]) -> bool:
    metadata = one["metadata"]
    return metadata["namespace"] in present and bool(
        cluster.find(one["kind"].lower(), metadata["name"], metadata["namespace"])
    )
