"""The servers' pods as the cluster has them: which one a server is, what it was given, and where it runs."""

from __future__ import annotations

import re
from collections.abc import Iterable

from models.problem import Problem
from serving.runtimes.kubernetes.kubectl import NAMESPACE, Cluster, Forbidden, Object

ENDED = ("Succeeded", "Failed")
# Of a container's control groups, whichever version the node has.
_CPU_STAT = "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpu/cpu.stat 2>/dev/null"


def of_servers(cluster: Cluster) -> list[Object]:
    """The pods of all servers, with those that have ended: one that a node has evicted stays in the cluster, without a
    container. Raises `Problem`."""
    selector = "--selector=app.kubernetes.io/component=server"
    return cluster.get("pods", f"--namespace={NAMESPACE}", selector, doing="looking for the servers' pods")


def of(deployment: str, pods: Iterable[Object]) -> Object | None:
    """A Deployment's pod that has not ended, of several one that stays; None where it has none."""
    own = [one for one in living(pods) if one["metadata"]["labels"].get("app.kubernetes.io/name") == deployment]
    return min(own, key=is_going, default=None)


def living(pods: Iterable[Object]) -> list[Object]:
    """Those that have not ended."""
    return [one for one in pods if one["status"].get("phase") not in ENDED]


def is_going(pod: Object) -> bool:
    """Whether somebody has deleted it: it goes on for its grace period, but no new client finds it."""
    return "deletionTimestamp" in pod["metadata"]


def instance(pod: Object) -> str:
    """What tells what runs in a pod from what takes its place: its UID, and how often its container was restarted."""
    return f"{pod['metadata']['uid']}#{restarts(pod)}"


def restarts(pod: Object) -> int:
    """How often its containers were restarted."""
    return sum(one.get("restartCount", 0) for one in pod["status"].get("containerStatuses", []))


def ended(pod: Object) -> tuple[str, int | None]:
    """(Reason, exit status) of the end of the container that was restarted last; empty and None where that is not
    known."""
    for one in pod["status"].get("containerStatuses", []):
        if last := one.get("lastState", {}).get("terminated"):
            return str(last.get("reason", "")), last.get("exitCode")
    return "", None


def configuration(cluster: Cluster, pod: Object) -> dict[str, str]:
    """The files of the ConfigMaps that a pod mounts, by their names. Raises `Problem`."""
    found: dict[str, str] = {}
    for volume in pod["spec"].get("volumes", []):
        if name := volume.get("configMap", {}).get("name"):
            found |= (cluster.find("configmap", name) or {}).get("data") or {}
    return found


def node(cluster: Cluster, pod: Object) -> Object | None:
    """The node that a pod is on; None where this user may not look at nodes. Raises `Problem`."""
    try:
        return cluster.find("node", pod["spec"]["nodeName"], None)
    except Forbidden:
        return None


def beside(cluster: Cluster, pod: Object) -> tuple[list[str], bool]:
    """(The other pods on a pod's node, as NAMESPACE/NAME; whether those are all, or only the namespace's own, as this
    user may not look at others). Raises `Problem`."""
    here = pod["spec"]["nodeName"]
    selector = f"--field-selector=spec.nodeName={here}"
    doing = f"looking for the other pods on {here}"
    try:
        found, every = cluster.get("pods", "--all-namespaces", selector, doing=doing), True
    except Forbidden:
        found, every = cluster.get("pods", f"--namespace={NAMESPACE}", selector, doing=doing), False
    others = (one for one in found if one["metadata"]["uid"] != pod["metadata"]["uid"])
    return sorted(f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in living(others)), every


def throttled(cluster: Cluster, pod: Object) -> tuple[int, float] | None:
    """(How often, for how many seconds) a pod's container has been stopped because its CPU limit was spent (cpu.stat of
    its control group, cgroup v1 and v2); None where that cannot be asked, as this user may run nothing in a pod."""
    name = pod["metadata"]["name"]
    done = cluster.try_run("exec", name, f"--namespace={NAMESPACE}", "--", "sh", "-c", _CPU_STAT)
    values = {key: int(text) for key, text in re.findall(r"^(\w+) (\d+)$", done.stdout, re.MULTILINE)}
    if "nr_throttled" not in values:
        return None
    return values["nr_throttled"], values.get("throttled_usec", 0) / 1e6 + values.get("throttled_time", 0) / 1e9


def log(cluster: Cluster, pod: Object, *, previous: bool = False) -> str:
    """What its container has written, or (``previous``) the one before; empty where that cannot be read."""
    flags = ["--previous"] if previous else []
    done = cluster.try_run("logs", pod["metadata"]["name"], f"--namespace={NAMESPACE}", *flags)
    return "" if done.returncode else done.stdout


def require(deployment: str, pods: Iterable[Object]) -> Object:
    """`of`; raises `Problem` where there is none."""
    found = of(deployment, pods)
    if found is None:
        raise Problem(f"{deployment} has no pod any more: kubectl --namespace={NAMESPACE} get pods,events")
    return found
