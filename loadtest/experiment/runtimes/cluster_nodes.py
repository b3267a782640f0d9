"""What was measured on a cluster: the servers' nodes and pods, and the load generator's, for environment.json."""

from __future__ import annotations

import msgspec

from loadtest.experiment.records import DifferentNodes, Node, NotReadable, Throttling, Unread
from loadtest.experiment.run_folder import RunFolder
from serving.runtimes.kubernetes import load_generator, pods
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Object


def record(cluster: Cluster, folder: RunFolder, target: str, pod: Object) -> None:
    """Write down where a target's pod is, and with what. Different types of nodes spoil the comparison, and what this
    user may not read is left out; both are noted. Raises `Problem`."""
    machine = pods.node(cluster, pod)
    others, every = pods.beside(cluster, pod)
    before = folder.environment()
    known = before.nodes.get(target, Node())
    found = msgspec.structs.replace(_described(pod, machine), beside=tuple(others), throttled=known.throttled)
    nodes = {**before.nodes, target: found}
    folder.save_environment(msgspec.structs.replace(before, nodes=nodes))
    if len({(one.instance_type, one.gpu) for one in nodes.values()}) > 1:
        folder.note(DifferentNodes())
    left_out = ([] if machine else [Unread.NODES]) + ([] if every else [Unread.PODS])
    _note_unread(folder, left_out)


def record_throttling(
    folder: RunFolder, target: str, before: tuple[int, float] | None, after: tuple[int, float] | None
) -> None:
    """Add how often, and for how many seconds, a target's pod was stopped between two answers of `pods.throttled`."""
    if before is None or after is None:
        _note_unread(folder, [Unread.EXEC])
        return
    known = folder.environment()
    node = known.nodes.get(target, Node())
    so_far = node.throttled or Throttling(periods=0, seconds=0.0)
    total = Throttling(
        periods=so_far.periods + after[0] - before[0], seconds=round(so_far.seconds + after[1] - before[1], 3)
    )
    nodes = {**known.nodes, target: msgspec.structs.replace(node, throttled=total)}
    folder.save_environment(msgspec.structs.replace(known, nodes=nodes))


def of_load_generator(cluster: Cluster) -> dict[str, Node]:
    """The pods of the load generator, by their names. Raises `Problem`."""
    every = cluster.get("pods", f"--namespace={NAMESPACE}", doing="looking for the load generator's pods")
    own = (load_generator.MASTER, load_generator.WORKERS)
    found = [one for one in every if one["metadata"].get("labels", {}).get("app.kubernetes.io/name") in own]
    machines: dict[str, Object | None] = {}
    for pod in (one for one in found if one["spec"].get("nodeName")):
        where = pod["spec"]["nodeName"]
        machines[where] = machines[where] if where in machines else pods.node(cluster, pod)
    return {
        pod["metadata"]["name"]: _described(pod, machines[pod["spec"]["nodeName"]])
        for pod in found
        if pod["spec"].get("nodeName")
    }


def _described(pod: Object, machine: Object | None) -> Node:
    node = machine or {"metadata": {}, "status": {}}
    labels, info = node["metadata"].get("labels", {}), node["status"].get("nodeInfo", {})
    (container, *_) = pod["spec"]["containers"]
    resources = container.get("resources", {})
    (ran, *_) = pod["status"].get("containerStatuses") or [{}]
    return Node(
        node=pod["spec"]["nodeName"],
        instance_type=labels.get("node.kubernetes.io/instance-type"),
        gpu=labels.get("nvidia.com/gpu.product"),
        capacity=node["status"].get("capacity", {}),
        kernel=info.get("kernelVersion"),
        kubelet=info.get("kubeletVersion"),
        container_runtime=info.get("containerRuntimeVersion"),
        os=info.get("osImage"),
        image=ran.get("imageID", ""),
        image_name=container.get("image"),
        limits=resources.get("limits", {}),
        requests=resources.get("requests", {}),
        qos=pod["status"].get("qosClass"),
        pod=pod["metadata"]["name"],
        instance=pods.instance(pod),
    )


def _note_unread(folder: RunFolder, left_out: list[Unread]) -> None:
    """One note of all that could not be read in this run."""
    known = folder.environment()
    noted = [note for note in known.warnings if isinstance(note, NotReadable)]
    what = {one for note in noted for one in note.what} | set(left_out)
    if not left_out or (noted and what == set(noted[0].what)):
        return
    others = tuple(note for note in known.warnings if not isinstance(note, NotReadable))
    whole = NotReadable(what=tuple(one for one in Unread if one in what))
    folder.save_environment(msgspec.structs.replace(known, warnings=(*others, whole)))
